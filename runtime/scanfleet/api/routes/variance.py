"""`/variance`: where the spread of a processor's run times comes from."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from scanfleet.api.identity import CallerDep
from scanfleet.api.problems import HttpProblem, documented
from scanfleet.api.services import ServicesDep, SettingsDep
from scanfleet.contract import HISTORY_KEPT
from scanfleet.errors import InvalidRequest
from scanfleet.variance import AgainstPredictions, Explained, Group, Variance, analyse
from scanfleet.variance_words import sentences

router = APIRouter(tags=["operations"])

DAY_SECONDS = 86_400


class VarianceView(BaseModel):
    """Shares are of the variance of log run times; they and `unexplained` add up to 1."""

    processor: str
    days: int
    runs: int = Field(description="Kept runs that ended in these days, the youngest 600.")
    spread: float | None = Field(
        description="The 90 % quantile divided by the 10 % quantile, sizes taken out; null: too few runs."
    )
    explained: tuple[Explained, ...] = Field(
        description="Factors that explain more than chance would, the largest first."
    )
    unexplained: float | None
    unexplained_spread: float | None = Field(description="`spread` of what is left.")
    against_predictions: AgainstPredictions | None = Field(description="null: no run had a prediction.")
    worst_machines: tuple[Group, ...] = Field(description="Slowest first, other named factors taken out.")
    looked_at: tuple[str, ...] = Field(description="Factors in which the runs differ.")
    sentences: tuple[str, ...] = Field(description="The same for people.")


@router.get("/variance", responses=documented(403, 422), summary="Where the spread of run times comes from")
def get_variance(
    *,
    services: ServicesDep,
    settings: SettingsDep,
    caller: CallerDep,
    processor: Annotated[str | None, Query(description="The deployment's default when left out.")] = None,
    days: Annotated[int, Query(ge=1, le=HISTORY_KEPT.days, description="Runs that ended in them.")] = 30,
) -> VarianceView:
    """Tell how much machine, image, driver, release, instance type, settings and neighbours explain.

    For operators. Runs that failed do not count, and of each size of inputs only about the last hundred are
    kept.
    """
    if not caller.is_operator:
        raise HttpProblem(403, "only operators see what all owners' runs took")
    name = settings.default_processor if processor is None else processor
    if name not in services.processors:
        known = ", ".join(sorted(services.processors))
        raise InvalidRequest.of("processor", "unknown processor", value=name, allowed=known)
    since = services.clock() - days * DAY_SECONDS
    runs = [run for run in services.history.of(name) if run.finished_at >= since]
    return _view(name, days, len(runs), analyse(runs))


def _view(processor: str, days: int, runs: int, found: Variance | None) -> VarianceView:
    return VarianceView(
        processor=processor,
        days=days,
        runs=runs if found is None else found.runs,
        spread=None if found is None else round(found.spread, 3),
        explained=() if found is None else found.explained,
        unexplained=None if found is None else round(found.unexplained, 4),
        unexplained_spread=None if found is None else round(found.unexplained_spread, 3),
        against_predictions=None if found is None else found.against_predictions,
        worst_machines=() if found is None else found.worst_machines,
        looked_at=() if found is None else found.looked_at,
        sentences=sentences(found, runs=runs),
    )
