"""The docs name everything that they must: settings, metrics, states, failure classes, endpoints, verbs."""

import re
from pathlib import Path

import pytest

from scanfleet.contract import METRIC_FACTS, Metric
from scanfleet.jobs import RETRY_RULES, FailureClass, JobState
from scanfleet.settings import (
    ENV_PREFIX,
    AgentSettings,
    ApiSettings,
    ClientSettings,
    ControllerSettings,
    EventsSettings,
    SystemSettings,
)

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def settings() -> set[str]:
    kinds = (SystemSettings, AgentSettings, ApiSettings, ClientSettings, ControllerSettings, EventsSettings)
    return {ENV_PREFIX + name.upper() for kind in kinds for name in kind.model_fields}


def test_every_setting_is_documented():
    text = page("configuration.md")

    assert [name for name in sorted(settings()) if f"`{name}`" not in text] == []


def test_no_setting_is_documented_that_does_not_exist():
    documented = set(
        re.findall(rf"^\| `({ENV_PREFIX}[A-Z_]+)`", page("configuration.md"), flags=re.MULTILINE)
    )

    assert documented - settings() == set()


def test_every_metric_is_documented_with_its_unit():
    rows = page("logging-and-metrics.md").splitlines()

    for metric in Metric:
        assert any(row.startswith(f"| `{metric}` | {METRIC_FACTS[metric][0]} |") for row in rows), metric


def test_every_logged_action_is_documented():
    source = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "runtime").rglob("*.py"))
    actions = set(re.findall(r'"action": "([a-z_]+)"|_facts\("([a-z_]+)"\)|action="([a-z_]+)"', source))
    text = page("logging-and-metrics.md")

    logged = {name for found in actions for name in found if name} - {"store_true"}  # argparse's word
    assert sorted(name for name in logged if f"`{name}`" not in text) == []


@pytest.mark.parametrize("word", [*JobState, *FailureClass])
def test_every_state_and_failure_class_is_documented(word):
    assert f"| `{word}` |" in page("job-lifecycle.md")


def test_the_documented_retry_rules_are_the_real_ones():
    text = page("job-lifecycle.md")

    for failure_class, rule in RETRY_RULES.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{failure_class}` |"))
        expected = str(rule.max_retries) if rule.max_retries else "none"
        assert row.split("|")[3].strip().startswith(expected), row


def test_every_link_of_a_page_leads_somewhere():
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    for source in pages:
        for target in re.findall(r"\]\(([^)#\s]+)", source.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://")):
                assert (source.parent / target).exists(), f"{source.name} links to {target}"


def test_every_file_of_the_agent_is_on_its_map():
    start = page("architecture.md").split("## The agent\n")[1].split("\n## ")[0]
    on_the_map = re.findall(r"`([a-z_]+)`", start)
    files = {p.stem for p in (ROOT / "runtime/scanfleet/agent").glob("*.py")} - {"__init__"}

    assert sorted(on_the_map) == sorted(files)


def test_every_decision_can_be_found():
    text = page("architecture.md")

    assert [
        p.name for p in sorted((DOCS / "decisions").glob("*.md")) if f"decisions/{p.name}" not in text
    ] == []


def test_the_readme_names_every_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert [p.name for p in sorted(DOCS.glob("*.md")) if f"docs/{p.name}" not in text] == []
