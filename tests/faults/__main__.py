"""`python -m tests.faults --jobs 1000 --seed 7`: runs a campaign; exit code 0 when every invariant held."""

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.faults.broken import SWITCHES
from tests.faults.campaign import Campaign, Options
from tests.faults.kept import ROOT
from tests.faults.plan import make_plan
from tests.faults.report import table, write_report


def main() -> int:
    """Run the campaign that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--agents", type=int, default=5)
    parser.add_argument("--report", type=Path, default=ROOT / "build" / "faults" / "report.json")
    parser.add_argument("--broken", choices=sorted(SWITCHES), default="", help="a build broken on purpose")
    parser.add_argument("--only", default="", help="kinds of faults to draw from, with commas between")
    parser.add_argument("--modes", default="", help="what programs may do, with commas between")
    parser.add_argument("--keep", action="store_true", help="keep the logs of a campaign that passed, too")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    only, modes = (tuple(filter(None, text.split(","))) for text in (given.only, given.modes))
    plan = make_plan(jobs=given.jobs, seed=given.seed, only=only, modes=modes)
    folder = Path(tempfile.mkdtemp(prefix="scanfleet-faults-"))
    say(f"plan {plan.digest}: {len(plan.jobs)} jobs, {len(plan.faults)} faults; logs in {folder}/logs")
    try:
        options = Options(plan=plan, folder=folder, agents=given.agents, broken=given.broken)
        outcome = Campaign(options).run()
        write_report(outcome, given.report)
        say(table(outcome))
        say(outcome.line())
    except KeyboardInterrupt:
        say("stopped")
        return 130
    if outcome.has_passed and not given.keep:
        shutil.rmtree(folder)
    return 0 if outcome.has_passed else 1


def say(text: str) -> None:
    """Print."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
