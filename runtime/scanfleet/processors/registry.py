"""Every processor that this version knows, by name."""

from collections.abc import Mapping

from scanfleet.contract import Pool
from scanfleet.processors.base import Processor
from scanfleet.processors.medit_autotest import MeditAutoTest
from scanfleet.processors.reference import ReferenceProcessor
from scanfleet.settings import SystemSettings


def known_processors(settings: SystemSettings) -> dict[str, Processor]:
    """Return all processors, whether or not this machine can run them: what the API accepts jobs for."""
    allow_unknown = settings.allow_unknown_settings
    processors: tuple[Processor, ...] = (
        MeditAutoTest(release_folder=settings.medit_release_folder, allow_unknown_settings=allow_unknown),
        ReferenceProcessor(pool=settings.reference_pool, allow_unknown_settings=allow_unknown),
    )
    return {processor.name: processor for processor in processors}


def ready_processors(settings: SystemSettings, pool: Pool) -> Mapping[str, Processor]:
    """Return the processors of a pool after checking each on this machine.

    Raises ConfigurationError at start-up rather than failing the first job.
    """
    mine = {name: p for name, p in known_processors(settings).items() if p.pool == pool}
    for processor in mine.values():
        processor.check_ready()
    return mine
