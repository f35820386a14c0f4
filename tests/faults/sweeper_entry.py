"""The campaign's sweeper: the product's own, each second instead of each minute."""

import time

from tests.faults import hurry

PAUSE_SECONDS = 1.0


def main() -> None:
    """Sweep until killed."""
    hurry.die_with_harness()
    hurry.shorten_answers()
    hurry.shorten_sweeper()
    from scanfleet.clients import build_clients
    from scanfleet.contract import Component
    from scanfleet.log_setup import configure_logging
    from scanfleet.settings import SweeperSettings, load
    from scanfleet.sweeper.sweeper import build_sweeper

    settings = load(SweeperSettings)
    configure_logging(Component.SWEEPER, settings.log_level, stage=settings.stage)
    sweeper = build_sweeper(build_clients(), settings, clock=time.time)
    while True:
        sweeper.run(is_time_up=lambda: False)
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
