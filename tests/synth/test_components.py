"""Component documents: the real ones are clean, and each rule catches the fault that it is for."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cdk.config import ConfigError
from cdk.image_components import COMPONENTS, MAX_VERSION_NODE, content_version, read_document
from cdk.image_versions import FILE, UNKNOWN, read_versions
from scanfleet import golden
from tests.support import awstoe

NAMES = sorted(path.stem for path in COMPONENTS.glob("*.yaml"))
DOCUMENT = """
name: example
schemaVersion: 1.0
parameters:
  - Sha256:
      type: string
phases:
  - name: build
    steps:
      - name: Download
        action: WebDownload
        timeoutSeconds: 60
        onFailure: Abort
        inputs:
          - source: https://example.com/tool-1.2.exe
            destination: C:\\tool.exe
            checksum: "{{ Sha256 }}"
            algorithm: SHA256
      - name: Install
        action: ExecutePowerShell
        timeoutSeconds: 60
        onFailure: Abort
        inputs:
          commands:
            - |
              $ErrorActionPreference = 'Stop'
              & 'C:\\tool.exe' '/quiet'
              if ($LASTEXITCODE -ne 0) { throw "exit code $LASTEXITCODE" }
  - name: validate
    steps:
      - name: Look
        action: ListFiles
        timeoutSeconds: 60
        onFailure: Abort
        inputs:
          - path: C:\\
  - name: test
    steps:
      - name: Restart
        action: Reboot
        onFailure: Abort
"""


# --- The real documents ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_real_component_is_clean(name):
    assert awstoe.findings(read_document(name)) == []


def test_every_component_has_a_version_and_every_version_a_component():
    assert set(read_versions().components) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_component_is_called_as_its_file(name):
    assert yaml.safe_load(read_document(name))["name"] == name


def test_the_cloudwatch_agents_configuration_is_json_once_its_parameters_are_in():
    document = yaml.safe_load(read_document("cloudwatch-agent"))
    (content,) = [
        entry["content"]
        for step in document["phases"][0]["steps"]
        if step["action"] == "CreateFile"
        for entry in step["inputs"]
    ]
    values = {name: name for name in awstoe.parameters(document)} | {"LogFolder": r"C:\\Logs"}
    filled = re.sub(r"\{\{ (\w+) \}\}", lambda match: values[match[1]], content)

    followed = json.loads(filled)["logs"]["logs_collected"]["files"]["collect_list"]

    assert {file["file_path"]: file["log_group_name"] for file in followed} == {
        r"C:\Logs\userdata.jsonl": "UserdataLogGroup",
        r"C:\Logs\agent.jsonl": "AgentLogGroup",
        r"C:\Logs\jobs.jsonl": "JobsLogGroup",
    }
    assert {file["log_stream_name"] for file in followed} == {"{instance_id}"}


def test_what_components_call_by_name_exists():
    texts = "\n".join(read_document(name) for name in NAMES)
    modules = set(re.findall(r"'-m', '(scanfleet[\w.]*)'", texts))

    assert modules == {"scanfleet.releases_fetch", "scanfleet.golden"}
    for option in re.findall(r"'(--(?:set|releases|seconds-at-most|only-read))'", texts):
        assert f'"{option}"' in Path(golden.__file__).read_text()
    assert "scanfleet.golden.installed(" in texts
    assert callable(golden.installed)


# --- Seeded faults -----------------------------------------------------------------------------------------


def test_the_example_is_clean_so_that_each_fault_stands_alone():
    assert awstoe.findings(DOCUMENT) == []


def _replaced(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text, f"the example has no {old!r}"
        return text.replace(old, new, 1)

    return change


def _without_phase(name: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        document = yaml.safe_load(text)
        document["phases"] = [phase for phase in document["phases"] if phase["name"] != name]
        return yaml.safe_dump(document)

    return change


FAULTS = {
    "a wrong action name": (_replaced("WebDownload", "WebDownlaod"), "action"),
    "an action of another system": (_replaced("action: Reboot", "action: ExecuteBash"), "action"),
    "no build phase": (_without_phase("build"), "phases"),
    "no validate phase": (_without_phase("validate"), "phases"),
    "no test phase": (_without_phase("test"), "phases"),
    "a phase that never runs": (_replaced("name: validate", "name: verify"), "phases"),
    "a phase twice": (_replaced("name: validate", "name: test"), "name"),
    "a step twice": (_replaced("name: Install", "name: Download"), "name"),
    "a misspelt key of a step": (_replaced("onFailure", "onFailed"), "schema"),
    "an unknown reaction to failure": (_replaced("onFailure: Abort", "onFailure: Stop"), "schema"),
    "a failure that is ignored": (_replaced("onFailure: Abort", "onFailure: Ignore"), "failure"),
    "a failure without a reaction": (_replaced("        onFailure: Abort\n", ""), "failure"),
    "a step without a timeout": (_replaced("        timeoutSeconds: 60\n", ""), "timeout"),
    "a timeout of no seconds": (_replaced("timeoutSeconds: 60", "timeoutSeconds: 0"), "schema"),
    "a timeout of more than twelve hours": (
        _replaced("timeoutSeconds: 60", "timeoutSeconds: 43201"),
        "schema",
    ),
    "no attempt": (_replaced("onFailure: Abort", "onFailure: Abort\n        maxAttempts: 0"), "schema"),
    "a misspelt input": (_replaced("checksum:", "cheksum:"), "input"),
    "an input that is missing": (_replaced("            destination: C:\\tool.exe\n", ""), "input"),
    "commands that are no list": (_replaced("commands:\n            - |", "commands: |"), "input"),
    "a download without digest": (
        _replaced('            checksum: "{{ Sha256 }}"\n', ""),
        "unchecked",
    ),
    "a download with a weak digest": (_replaced("algorithm: SHA256", "algorithm: MD5"), "input"),
    "a download over plain HTTP": (_replaced("https://", "http://"), "input"),
    "certificate errors ignored": (
        _replaced("algorithm: SHA256", "algorithm: SHA256\n            ignoreCertificateErrors: true"),
        "input",
    ),
    "a download by PowerShell": (
        _replaced("& 'C:\\tool.exe'", "Invoke-WebRequest -Uri $x -OutFile y\n              & 'C:\\tool.exe'"),
        "unchecked",
    ),
    "an object that nobody checks": (
        _replaced("'Stop'\n", "'Stop'\n              Read-S3Object -BucketName b -Key k -File f\n"),
        "unchecked",
    ),
    "the newest of something": (_replaced("tool-1.2.exe", "latest/tool.exe"), "unpinned"),
    "a parameter that is not declared": (_replaced("{{ Sha256 }}", "{{ Sha265 }}"), "parameter"),
    "a parameter that nobody uses": (
        _replaced("parameters:\n", "parameters:\n  - Unused:\n      type: string\n"),
        "parameter",
    ),
    "a parameter without a type": (_replaced("type: string", "description: x"), "schema"),
    "a parameter of another type": (_replaced("type: string", "type: number"), "schema"),
    "a loop without an end": (
        _replaced(
            "action: Reboot",
            "action: Reboot\n        loop:\n          for: {start: 1, updateBy: 1}",
        ),
        "schema",
    ),
    "another schema version": (_replaced("schemaVersion: 1.0", "schemaVersion: 2.0"), "schema"),
    "no YAML": (_replaced("phases:", "phases: ]["), "schema"),
    "an exit code that nobody looks at": (
        _replaced('if ($LASTEXITCODE -ne 0) { throw "exit code $LASTEXITCODE" }', "Write-Output 'done'"),
        "powershell: 2: exit code",
    ),
    "a script that goes on after an error": (
        _replaced("$ErrorActionPreference = 'Stop'", "$ErrorActionPreference = 'Continue'"),
        "powershell: 1: stop",
    ),
    "a script that does not parse": (_replaced("-ne 0) {", "-ne 0 {"), "powershell"),
    "too long a document": (_replaced("name: example", "# " + "x" * 16_000 + "\nname: example"), "length"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_caught_by_its_rule(fault):
    change, rule = FAULTS[fault]

    found = awstoe.findings(change(DOCUMENT))

    assert any(f": {rule}" in finding for finding in found), found


def test_a_signature_may_stand_in_for_a_digest_but_only_in_the_next_step():
    text = read_document("nvidia-driver")

    without = text.replace("Get-AuthenticodeSignature", "Get-Item").replace("Assert-Sha256", "Get-Thing")

    assert any("unchecked" in finding for finding in awstoe.findings(without))


# --- Versions ----------------------------------------------------------------------------------------------


def test_changed_content_is_a_new_version_and_equal_content_the_same():
    first = content_version("1.2", "a")

    assert first == content_version("1.2", "a") != content_version("1.2", "b")
    assert re.fullmatch(r"1\.2\.\d{1,10}", first)


def test_no_content_makes_a_version_that_image_builder_refuses():
    nodes = [int(content_version("1.0", str(n)).split(".")[2]) for n in range(20_000)]

    assert max(nodes) <= MAX_VERSION_NODE
    assert len(set(nodes)) == len(nodes)


def test_an_included_file_is_part_of_the_content():
    assert "function Invoke-Native {" in read_document("python")
    assert "# include:" not in "".join(read_document(name) for name in NAMES)


def test_a_component_that_grew_too_long_stops_the_synth(tmp_path):
    (tmp_path / "long.yaml").write_text("# " + "x" * 16_000)

    with pytest.raises(ConfigError, match="16002 characters"):
        read_document("long", tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("python", "sha256"), "5EE42C", "python.sha256"),
        (("python", "sha256"), UNKNOWN, "python.sha256"),
        (("python", "url"), "https://www.python.org/ftp/python/latest/python.exe", "python.url"),
        (("python", "url"), "http://www.python.org/python-3.11.9.exe", "python.url"),
        (("cloudwatch_agent", "version"), 1.3, "cloudwatch_agent.version"),
        (("nvidia_driver", "publisher"), "", "nvidia_driver.sha256"),
        (("nvidia_driver", "version"), "600.1", "nvidia_driver.url"),
        (("components", "python"), "1.0.0", "components.python"),
        (("components", "python"), 1.0, "components.python"),
        (("recipe",), "1", "recipe"),
        (("base_image", "version"), "latest", "base_image.version"),
        (("base_image", "version"), "x.1.x", "base_image.version"),
    ],
)
def test_a_pin_that_is_none_stops_the_synth(tmp_path, place, value, named):
    tree: dict[str, Any] = yaml.safe_load(FILE.read_text())
    node = tree
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    (tmp_path / "versions.yaml").write_text(yaml.safe_dump(tree))

    with pytest.raises(ConfigError, match=re.escape(named)):
        read_versions(tmp_path / "versions.yaml")


def test_every_pin_tells_its_source():
    text = FILE.read_text()

    for section in ("base_image", "python", "nvidia_driver", "cloudwatch_agent"):
        body = text.split(f"\n{section}:\n")[1].split("\n\n")[0]
        assert "# Source: " in body, section
