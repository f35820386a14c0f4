"""`GET /variance` and `scanfleet variance`: what an operator learns of the spread."""

import json
from dataclasses import replace

import pytest

from scanfleet.history import RunHistory
from scanfleet.past_runs import Expected
from scanfleet.variance import FACTORS, analyse
from scanfleet.variance_words import NAMES, sentences
from tests.support.api import OPERATOR, RunningApi, running_api
from tests.unit.test_variance import runs_of


@pytest.fixture(scope="module")
def _api():
    with running_api() as api:
        yield api


@pytest.fixture
def api(_api):
    _api.reset()
    return _api


def remember(api: RunningApi, *, days_ago: float = 1.0) -> None:
    """Let runs have ended of which those with one release were slower."""
    history = RunHistory(api.clients.dynamodb, "jobs", clock=api.clock)
    for number, run in enumerate(runs_of(250, slow=lambda r: 1.5 if r.place.release == "4.3" else 1.0)):
        ended = replace(run, finished_at=api.clock.now - days_ago * 86_400, expected=Expected(100, 400, 900))
        job_id = f"{number}-{run.input_bytes}"
        history.add("ply", input_bytes=run.input_bytes, job_id=job_id, run=ended)


def variance(api: RunningApi, **asked) -> dict:
    answer = api.http.get("/variance", headers=OPERATOR, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_slower_release_is_named_in_figures_and_words(api):
    remember(api)

    found = variance(api)

    assert (found["processor"], found["days"]) == ("ply", 30)
    (release,) = found["explained"]
    assert (release["factor"], release["groups"][0]["name"]) == ("release", "4.3")
    assert release["share"] + found["unexplained"] == pytest.approx(1, abs=0.001)
    assert found["against_predictions"]["runs"] == found["runs"]
    assert any("The program's release explains" in sentence for sentence in found["sentences"])


def test_runs_that_ended_before_those_days_do_not_count(api):
    remember(api, days_ago=10)

    assert variance(api, days=7)["runs"] == 0
    assert variance(api, days=11)["runs"] > 100


def test_of_a_program_that_never_ran_there_is_nothing_to_tell(api):
    found = variance(api, processor="windows_ply")

    assert (found["runs"], found["explained"], found["unexplained"]) == (0, [], None)
    assert "below 20 nothing can be told from chance" in found["sentences"][0]


def test_only_operators_see_what_others_runs_took(api):
    assert api.http.get("/variance").status_code == 403


@pytest.mark.parametrize("asked", [{"processor": "word"}, {"days": 0}, {"days": 91}, {"days": "x"}])
def test_what_cannot_be_asked_is_refused(api, asked):
    answer = api.http.get("/variance", headers=OPERATOR, params=asked)

    assert answer.status_code == 422
    assert next(iter(asked)) in json.dumps(answer.json())


# --- Words -------------------------------------------------------------------------------------------------


def words(runs) -> str:
    return "\n".join(sentences(analyse(runs), runs=len(runs)))


def test_noise_is_said_to_be_noise():
    assert "None of these explains more of the spread than chance would: the machine" in words(runs_of(200))


def test_what_is_left_has_a_figure_too():
    said = words(runs_of(slow=lambda run: 2.0 if run.place.machine == "i-5" else 1.0))

    assert "The machine explains" in said
    assert "with i-5 runs take" in said
    assert "of the spread is left when that is taken out" in said


def test_one_machine_with_one_release_has_nothing_to_compare():
    same = runs_of(60)[0].place
    alike = [replace(run, place=same, settings="") for run in runs_of(60)]

    assert "nothing to compare" in words(alike)


def test_every_factor_has_a_name_for_people():
    assert set(NAMES) == set(FACTORS)
