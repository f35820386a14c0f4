"""`/processors`: which programs jobs may name, and the settings that each knows."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from scanfleet.api.services import ServicesDep, SettingsDep
from scanfleet.contract import Pool

router = APIRouter(tags=["jobs"])


class ProcessorView(BaseModel):
    """A processor that this deployment has machines for."""

    name: str
    pool: Pool
    input_kinds: str = Field(description="For people: which files it reads.")
    is_default: bool = Field(description="Whether jobs that name no processor run it.")
    settings: dict[str, Any] = Field(description="JSON Schema of a job's `settings`, with their defaults.")


class ProcessorList(BaseModel):
    """The processors, by name."""

    processors: list[ProcessorView]


@router.get("/processors", summary="Which programs there are, and their settings")
def list_processors(services: ServicesDep, settings: SettingsDep) -> ProcessorList:
    """Return what a form for a new job needs to know. Programs of other deployments' pools are left out."""
    known = [one for one in services.processors.values() if one.pool in services.queues.pools]
    return ProcessorList(
        processors=[
            ProcessorView(
                name=one.name,
                pool=one.pool,
                input_kinds=one.input_kinds,
                is_default=one.name == settings.default_processor,
                settings=one.settings_schema(),
            )
            for one in sorted(known, key=lambda one: one.name)
        ]
    )
