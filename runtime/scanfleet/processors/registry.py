"""Every processor that this version knows, by name."""

from collections.abc import Mapping

from scanfleet.contract import Pool
from scanfleet.processors.base import Processor
from scanfleet.processors.medit_autotest import MeditAutoTest
from scanfleet.processors.reference import ReferenceProcessor
from scanfleet.processors.release_source import FixedRelease, ReleaseSource
from scanfleet.settings import SystemSettings


def known_processors(
    settings: SystemSettings, medit_releases: ReleaseSource | None = None
) -> dict[str, Processor]:
    """Return all processors, whether or not this machine can run them: what the API accepts jobs for.

    medit_releases: where the closed program's releases come from; None takes the settings' fixed folder.
    """
    allow_unknown = settings.allow_unknown_settings
    if medit_releases is None and settings.medit_release_folder is not None:
        medit_releases = FixedRelease(settings.medit_release_folder)
    processors: tuple[Processor, ...] = (
        MeditAutoTest(releases=medit_releases, allow_unknown_settings=allow_unknown),
        ReferenceProcessor(pool=settings.reference_pool, allow_unknown_settings=allow_unknown),
    )
    return {processor.name: processor for processor in processors}


def pool_processors(
    settings: SystemSettings, pool: Pool, medit_releases: ReleaseSource | None = None
) -> Mapping[str, Processor]:
    """Return the processors of a pool; whether this machine can run them is the self-check's to find out.

    The closed program is left out where the settings name no place for it and the pool has another processor.
    """
    mine = {n: p for n, p in known_processors(settings, medit_releases).items() if p.pool == pool}
    if medit_releases is None and settings.medit_release_folder is None and len(mine) > 1:
        mine.pop(MeditAutoTest.name, None)
    return mine
