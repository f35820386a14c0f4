"""An agent of the campaign: the product's own agent, with a clock that can jump and shorter waits.

Nothing of the product is replaced but its processors, its waits, and what `FAULTS_BROKEN` names.
"""

import mmap
import os
import struct
import time
from pathlib import Path

from tests.faults import hurry

CONTROL = "FAULTS_CONTROL"
"""Environment variable: file of 8 bytes, the clock's offset in seconds as a little-endian double."""
BROKEN = "FAULTS_BROKEN"


def install_clock(file: Path) -> None:
    """Move this process's wall clock by what the file says; before anything takes `time.time` as default."""
    with file.open("rb") as opened:
        offset = mmap.mmap(opened.fileno(), 8, access=mmap.ACCESS_READ)
    real = time.time

    def moved() -> float:
        return real() + float(struct.unpack_from("<d", offset)[0])

    time.time = moved


def main() -> None:
    """Run an agent until it is told to stop."""
    hurry.die_with_harness()
    install_clock(Path(os.environ[CONTROL]))
    hurry.shorten_answers()
    from scanfleet.processors import registry
    from tests.faults import broken, processor

    hurry.set_constants(
        registry, pool_processors=lambda _settings, _pool, releases=None: processor.processors(releases)
    )
    from scanfleet.agent import main as agent

    hurry.shorten_agent()
    if switch := os.environ.get(BROKEN):
        broken.SWITCHES[switch]()
    agent.main()


if __name__ == "__main__":
    main()
