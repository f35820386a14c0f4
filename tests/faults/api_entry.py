"""The campaign's API server: the product's own, which knows the campaign's program."""

from tests.faults import hurry


def main() -> None:
    """Serve until told to stop."""
    hurry.die_with_harness()
    hurry.shorten_answers()
    from scanfleet.processors import registry
    from tests.faults import processor

    hurry.set_constants(registry, known_processors=lambda *_: processor.processors())
    from scanfleet.api import main as api

    api.main()


if __name__ == "__main__":
    main()
