r"""Runs golden scan sets on a new image, and says whether what came out, and how fast, is within bounds.

    python -m scanfleet.golden --seconds-at-most 900 --releases "C:\Program Files\Scanfleet\medit" \
        [--set s3://bucket/golden/]

1. The generated sample through the reference processor: its true alignment is known.
2. A set of the deployment's own, when one is given: `scans/` and `expected.json` in an S3 folder, run by the
   program that `expected.json` names.

Prints one line for each set, and for each bound that is broken. Exit code 0, or 1 when a bound is broken.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from scanfleet.agent.safe_paths import local_path
from scanfleet.errors import ConfigurationError, InvalidRequest, ScanfleetError
from scanfleet.golden_expected import EXPECTED, REPORT, SCANS, broken_bounds, read_expected
from scanfleet.jobs import Job, new_job_id
from scanfleet.processors.base import AttemptFolders, Processor, ProgramExit
from scanfleet.processors.medit_autotest import MeditAutoTest
from scanfleet.processors.reference import ReferenceProcessor
from scanfleet.processors.release_source import FixedRelease
from scanfleet.releases_local import LocalReleases

NO_SET = "none"
SAMPLE_RMSE_AT_MOST_MM = 0.05
"""The sample's noise is 0.02 mm; the reference processor stays below 0.01 mm on it (docs/benchmarks.md)."""
SAMPLE_ROTATION_AT_MOST_DEG = 0.1
SAMPLE_SCANS, SAMPLE_POINTS = 8, 60_000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run: where its results lie, how long it took, and what was wrong with it."""

    output: Path
    seconds: float
    problems: tuple[str, ...]


def run_program(
    processor: Processor, settings: Mapping[str, Any], *, scans: Path, work: Path, limit_seconds: float
) -> Outcome:
    """Run a program over a folder of scans, as an agent would start it."""
    folders = AttemptFolders(input=scans, work=work / "work", output=work / "output")
    folders.work.mkdir(parents=True)
    folders.output.mkdir()
    invocation = processor.prepare(_job(processor, processor.validate_settings(settings)), folders)
    log = work / "program.log"
    started = time.monotonic()
    with log.open("wb") as out:
        try:
            code = subprocess.run(
                invocation.argv,
                cwd=invocation.cwd,
                env={**os.environ, **invocation.env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=limit_seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            problem = f"took longer than {limit_seconds:g} s and was stopped"
            return Outcome(
                output=folders.output, seconds=time.monotonic() - started, problems=(problem, *_last(log))
            )
    seconds = time.monotonic() - started
    failure = processor.explain_exit(ProgramExit(exit_code=code))
    problems = () if failure is None else (str(failure), *_last(log))
    return Outcome(output=folders.output, seconds=seconds, problems=problems)


def check_sample(work: Path, *, limit_seconds: float) -> Outcome:
    """Run the generated sample through the reference processor and compare with its truth."""
    from scanfleet.sample import alignment_error, make_sample  # noqa: PLC0415 - numpy, with this extra only

    processor = ReferenceProcessor()
    processor.check_ready()
    truth = make_sample(work / "sample", scans=SAMPLE_SCANS, points=SAMPLE_POINTS)
    outcome = run_program(
        processor, {}, scans=truth.scans_folder, work=work / "sample-run", limit_seconds=limit_seconds
    )
    if outcome.problems:
        return outcome
    error = alignment_error(json.loads((outcome.output / REPORT).read_text(encoding="utf-8")), truth)
    problems = []
    if error.scans_aligned != error.scans:
        problems.append(f"{error.scans_aligned} of {error.scans} scans were aligned")
    for name, value, limit in (
        ("point error in mm", error.point_rmse_max_mm, SAMPLE_RMSE_AT_MOST_MM),
        ("rotation error in degrees", error.rotation_max_deg, SAMPLE_ROTATION_AT_MOST_DEG),
    ):
        if value is None or value > limit:
            problems.append(f"the largest {name} is {value}, at most {limit} is allowed")
    return Outcome(output=outcome.output, seconds=outcome.seconds, problems=tuple(problems))


def check_set(
    folder: Path, work: Path, *, processors: Mapping[str, Processor], limit_seconds: float
) -> Outcome:
    """Run a golden set that lies in `folder` and compare with its `expected.json`.

    Raises ConfigurationError for a set that is none, or whose program this image has not.
    """
    expected = read_expected(folder)
    if expected.processor not in processors:
        raise ConfigurationError(
            f"{EXPECTED}: the processor {expected.processor!r} is not on this image; it has"
            f" {', '.join(sorted(processors))}"
        )
    limit = min(limit_seconds, expected.seconds_at_most or limit_seconds)
    try:
        outcome = run_program(
            processors[expected.processor],
            expected.settings,
            scans=folder / SCANS,
            work=work,
            limit_seconds=limit,
        )
    except InvalidRequest as error:
        raise ConfigurationError(f"{EXPECTED}: settings: {error}") from error
    problems = outcome.problems or tuple(broken_bounds(expected, outcome.output))
    return Outcome(output=outcome.output, seconds=outcome.seconds, problems=problems)


def download_set(uri: str, into: Path, *, session: boto3.session.Session | None = None) -> None:
    """Download every object under an s3:// folder. Raises JobFailure for keys that cannot be files."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    s3 = (session or boto3.session.Session()).client("s3")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            relative = entry["Key"].removeprefix(prefix)
            if not relative or relative.endswith("/"):
                continue
            path = local_path(into, relative)
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, entry["Key"], str(path))


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scanfleet.golden", description=__doc__)
    parser.add_argument(
        "--seconds-at-most", required=True, type=float, help="one run takes at most this long"
    )
    parser.add_argument(
        "--releases", required=True, type=Path, help="folder of the closed program's releases"
    )
    parser.add_argument("--set", default=NO_SET, help='s3:// folder with scans/ and expected.json, or "none"')
    parser.add_argument("--only-read", action="store_true", help="see that the set can be read; run nothing")
    given = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="golden-") as folder:
            if given.only_read:
                return _only_read(Path(folder), given.set)
            return _run_all(Path(folder), given.set, given.releases, limit_seconds=given.seconds_at_most)
    except (ScanfleetError, OSError) as error:
        sys.stderr.write(f"scanfleet: {error}\n")
        return 1


def _only_read(work: Path, uri: str) -> int:
    """An image's build takes an hour: a set that is wrong shows before, not after."""
    if uri == NO_SET:
        _print("own golden set: none is configured")
    else:
        download_set(uri, work)
        _print(f"{uri}: for {read_expected(work).processor}")
    return 0


def _run_all(work: Path, uri: str, releases: Path, *, limit_seconds: float) -> int:
    broken = _say("generated sample", check_sample(work, limit_seconds=limit_seconds))
    processors = installed(releases)
    if uri == NO_SET:
        _print("own golden set: none is configured")
        return int(broken)
    download_set(uri, work / "set")
    wanted = read_expected(work / "set").processor
    if wanted == MeditAutoTest.name and wanted not in processors:
        _print(f"{uri}: not run, because no release of the closed program is active")
        return int(broken)
    outcome = check_set(work / "set", work / "set-run", processors=processors, limit_seconds=limit_seconds)
    return int(_say(uri, outcome) or broken)


def installed(releases: Path) -> dict[str, Processor]:
    """Return what this machine can run. Raises ConfigurationError for a release without its program."""
    found: dict[str, Processor] = {ReferenceProcessor.name: ReferenceProcessor()}
    active = LocalReleases(releases).active()
    if active is not None:
        medit = MeditAutoTest(releases=FixedRelease(active))
        medit.check_ready()
        found[medit.name] = medit
    return found


def _say(name: str, outcome: Outcome) -> bool:
    """Print how a run went; return whether a bound is broken."""
    _print(f"{name}: {'BROKEN' if outcome.problems else 'good'} after {outcome.seconds:.1f} s")
    for problem in outcome.problems:
        _print(f"  {problem}")
    return bool(outcome.problems)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def _job(processor: Processor, settings: dict[str, Any]) -> Job:
    now = time.time()
    return Job(
        job_id=new_job_id(),
        owner="image-build",
        processor=processor.name,
        pool=processor.pool,
        source_uri="s3://golden/in/",
        target_uri="s3://golden/out/",
        settings=settings,
        created_at=now,
        queued_at=now,
        state_changed_at=now,
    )


def _last(log: Path, lines: int = 20) -> tuple[str, ...]:
    text = log.read_text(encoding="utf-8", errors="replace")
    return tuple(f"| {line}" for line in text.splitlines()[-lines:])


if __name__ == "__main__":
    sys.exit(main())
