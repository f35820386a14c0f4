"""Runs checkers over templates, offline: cfn-lint from .venv, checkov and parliament from .venv-checks."""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.findings import Finding

ROOT = Path(__file__).resolve().parents[2]
CHECKS = ROOT / ".venv-checks" / "bin"
NOWHERE = "http://127.0.0.1:9"
"""A proxy that does not answer: a checker that wants the network fails."""


def write_templates(folder: Path, templates: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Write stage-and-stack -> template into the folder, one file each. Example name: "dev/data"."""
    paths = []
    for name, body in templates.items():
        path = folder / f"{name.replace('/', '.')}.template.json"
        path.write_text(json.dumps(body))
        paths.append(path)
    return paths


def cfn_lint(paths: Iterable[Path]) -> list[Finding]:
    """Return what cfn-lint finds, warnings included; what is only informational is a matter of taste."""
    said = run([ROOT / ".venv" / "bin" / "cfn-lint", "--format", "json", "-t", *paths])
    return [
        Finding(
            tool="cfn-lint",
            rule=found["Rule"]["Id"],
            where=_place(found["Filename"], _logical_id(found["Location"]["Path"])),
            detail=found["Message"],
        )
        for found in json.loads(said or "[]")
    ]


def checkov(paths: Iterable[Path]) -> list[Finding]:
    """Return the checks that fail for some of the templates."""
    files = [word for path in paths for word in ("--file", path)]
    options = ["--framework", "cloudformation", "--skip-download", "--output", "json", "--quiet", "--compact"]
    report = json.loads(run([CHECKS / "python", CHECKS / "checkov", *files, *options]))
    assert not report["summary"]["parsing_errors"], report["results"]["parsing_errors"]
    assert report["summary"]["passed"] > 50, "checkov read no template"
    return [
        Finding(
            tool="checkov",
            rule=found["check_id"],
            where=_place(found["file_path"], found["resource"].split(".")[-1]),
            detail=found["check_name"],
        )
        for found in report["results"]["failed_checks"]
    ]


def parliament(documents: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Return what parliament finds in policy documents: place -> document without intrinsics."""
    script = Path(__file__).with_name("run_parliament.py")
    said = run([CHECKS / "python", "-W", "ignore", script], text=json.dumps(documents))
    return [
        Finding(tool="parliament", rule=found["issue"], where=where, detail=json.dumps(found["detail"]))
        for where, all_found in json.loads(said).items()
        for found in all_found
    ]


def run(argv: list[str | Path], *, text: str = "") -> str:
    """Return what a checker prints. Exit codes say whether it found something, so they do not count."""
    if not Path(argv[0]).exists():
        raise FileNotFoundError(f"{argv[0]} is missing: run make setup-checks")
    done = subprocess.run(
        [str(word) for word in argv],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HTTPS_PROXY": NOWHERE, "HTTP_PROXY": NOWHERE, "LOG_LEVEL": "ERROR"},
        cwd=ROOT,
        timeout=240,
    )
    assert done.stdout.strip() or not done.stderr.strip(), done.stderr
    return done.stdout


def _logical_id(path: list[Any]) -> str:
    return str(path[1]) if path and path[0] == "Resources" and len(path) > 1 else "-"


def _place(file_name: str, logical_id: str) -> str:
    """Return stage, stack and logical ID."""
    name = Path(file_name).name.removesuffix(".template.json").replace(".", "/")
    return f"{name}/{logical_id}"
