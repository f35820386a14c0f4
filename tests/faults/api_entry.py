"""The campaign's API server: the product's own, which knows the campaign's program."""

from tests.faults.agent_entry import die_with_harness, shorten_waits


def main() -> None:
    """Serve until told to stop."""
    die_with_harness()
    shorten_waits()
    from scanfleet.processors import registry
    from tests.faults import processor

    registry.known_processors = lambda *_: processor.processors()  # type: ignore[assignment,return-value]
    from scanfleet.api import main as api

    api.main()


if __name__ == "__main__":
    main()
