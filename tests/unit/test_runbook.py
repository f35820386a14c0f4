"""The runbook: its commands, queries and links exist, so nobody tries them first at three in the morning."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from botocore import xform_name
from botocore.session import get_session

from cdk.queries import all_queries
from scanfleet.cli import app
from scanfleet.contract import Alarm

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
DEPLOY = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
IMAGES = (ROOT / "docs" / "ami-pipeline.md").read_text(encoding="utf-8")
SERVICES = {"s3api": "s3"}
"""Where the command line has another name for a service than its model."""
GLOBAL_OPTIONS = {"query", "output", "max-items", "region"}
"""Options of the AWS command line that belong to no operation."""


def commands(program: str) -> list[list[str]]:
    """Each call of a program in the pages' code, as a list of words."""
    return [command for page in (RUNBOOK, DEPLOY, IMAGES) for command in commands_of(page, program)]


def commands_of(page: str, program: str) -> list[list[str]]:
    """Each call of a program in one page's code."""
    blocks = re.findall(r"(?:^    .+\n)+", page, flags=re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", page)
    code = "\n".join(block.replace("\\\n", " ") for block in blocks)
    lines = [re.sub(r"\s#\s.*", "", line) for line in [*code.splitlines(), *inline]]
    # Up to what ends a command: a pipe, the end of $(...), the end of the line.
    found = [
        m[1]
        for line in lines
        for m in re.finditer(rf"(?:^|\$\()\s*(?:\.venv/bin/)?({program} [^|)]*(?:\)[^|)]+)*)", line)
    ]
    return [shlex.split(balanced(command)) for command in found]


def balanced(command: str) -> str:
    """A command whose quoted query was cut at its pipe or bracket, closed again."""
    return command + "'" * (command.count("'") % 2) + '"' * (command.count('"') % 2)


def test_the_page_has_commands():
    assert len(commands_of(RUNBOOK, "aws")) > 15
    assert len(commands_of(RUNBOOK, "scanfleet")) > 5
    assert len(commands_of(DEPLOY, "aws")) > 10
    assert len(commands_of(DEPLOY, "scanfleet")) > 4


@pytest.mark.parametrize("command", commands("aws"), ids=" ".join)
def test_every_aws_command_is_one_of_aws(command):
    _, service, operation, *rest = command
    model = get_session().get_service_model(SERVICES.get(service, service))
    by_name = {xform_name(name, "-"): name for name in model.operation_names}

    # Session Manager's own verb is a plug-in's, over the API's StartSession.
    assert operation in by_name
    shape = model.operation_model(by_name[operation]).input_shape
    known = {xform_name(name, "-") for name in shape.members} if shape else set()
    asked = {word[2:].removeprefix("no-") for word in rest if word.startswith("--")}
    assert asked - known - GLOBAL_OPTIONS == set()


@pytest.mark.parametrize("command", commands("scanfleet"), ids=" ".join)
def test_every_scanfleet_command_is_one_of_ours(command):
    verbs = [word for word in command[1:] if not word.startswith("-")]
    found = typer.main.get_command(app)
    options: set[str] = set()
    while True:
        options |= {option for parameter in found.params for option in parameter.opts}
        if not hasattr(found, "commands"):
            break
        verb = verbs.pop(0)
        assert verb in found.commands, command
        found = found.commands[verb]

    asked = {word for word in command if word.startswith("--")}
    assert asked - options == set()


def test_every_saved_query_of_the_page_exists():
    asked = set(re.findall(r"\*((?:jobs|machines|releases|api)/[^*]+)\*", RUNBOOK.replace("\n", " ")))

    assert len(asked) > 8
    assert asked - {query.name for query in all_queries()} == set()


def test_every_link_within_the_page_leads_to_a_section():
    headings = re.findall(r"^#+ (.+)$", RUNBOOK, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([\w-]+)\)", RUNBOOK)) - anchors == set()


def test_there_is_a_section_for_each_alarm_and_for_no_other():
    alarms = RUNBOOK.partition("\n## Alarms\n")[2].partition("\n## Tasks\n")[0]

    assert set(re.findall(r"^### (.+)$", alarms, flags=re.MULTILINE)) == set(Alarm)
