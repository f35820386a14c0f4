"""What is wrong with an Image Builder component document: nothing here can run one, so it is read closely.

    schema        not the document format: phases, steps, loops, timeouts, parameters, constants
    phases        build, validate or test is missing
    action        no such action, not one of Windows, or ExecuteBash
    input         not what the action takes
    name          two steps of a phase, or two phases, share a name
    parameter     used and not declared, or declared and not used
    unchecked     something is downloaded, and nobody looks at its digest or signature
    unpinned      "latest", whatever that is today
    failure       a failed step would not fail the image
    timeout       a step could hang until the whole build is given up
    powershell    what tests/support/powershell.py finds in an embedded script
    length        longer than a template may hold

Sources: EC2 Image Builder user guide, "Use the AWSTOE component document framework for custom components",
"Action modules supported by AWSTOE component manager", "Use looping constructs in AWSTOE".
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from tests.support import powershell

MAX_INLINE_CHARACTERS = 16_000
PHASES = ("build", "validate", "test")
NO_TIMEOUT = {"Reboot", "SetRegistry", "ExecuteDocument"}
"""Actions that take no timeout, or that end at once."""

Json = dict[str, Any]
_TEXT: Json = {"type": "string", "minLength": 1}
_FLAG: Json = {"type": "boolean"}
_ENCODING: Json = {"type": "string", "pattern": r"(?i)^utf-?(8|(16|32)(-?[LB]E)?)$"}


def _object(required: Json, optional: Json | None = None) -> Json:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def _list(item: Json) -> Json:
    return {"type": "array", "items": item, "minItems": 1}


_MSI = _object(
    {"path": _TEXT},
    {
        "reboot": {"enum": ["Allow", "Force", "Skip"]},
        "logOptions": _TEXT,
        "logFile": _TEXT,
        "properties": {"type": "object", "additionalProperties": {"type": "string"}},
        "ignoreAuthenticodeSignatureErrors": {"const": False},
        "allowUnsignedInstaller": {"const": False},
    },
)
_MOVE = _list(_object({"source": _TEXT, "destination": _TEXT}, {"overwrite": _FLAG}))
_PATHS = _list(_object({"path": _TEXT}))
_CONTENT = {"content": {"type": "string"}, "encoding": _ENCODING}
_UPDATES = {"type": "array", "items": _TEXT}
ACTIONS: dict[str, Json | None] = {
    "ExecutePowerShell": _object({"commands": _list(_TEXT)}),
    "ExecuteBinary": _object({"path": _TEXT}, {"arguments": {"type": "array", "items": _TEXT}}),
    "ExecuteDocument": _object(
        {"document": _TEXT},
        {
            "document-s3-bucket-owner": _TEXT,
            "phases": _TEXT,
            "parameters": _list(_object({"name": _TEXT, "value": _TEXT})),
        },
    ),
    "S3Download": _list(
        _object({"source": _TEXT, "destination": _TEXT}, {"expectedBucketOwner": _TEXT, "overwrite": _FLAG})
    ),
    "S3Upload": _list(
        _object({"source": _TEXT, "destination": _TEXT}, {"expectedBucketOwner": _TEXT, "recurse": _FLAG})
    ),
    "WebDownload": _list(
        _object(
            {"source": {**_TEXT, "pattern": r"^(https://|\{\{ *\w+ *\}\}$)"}, "destination": _TEXT},
            {
                "overwrite": _FLAG,
                "checksum": _TEXT,
                "algorithm": {"const": "SHA256"},
                "ignoreCertificateErrors": {"const": False},
            },
        )
    ),
    "AppendFile": _list(_object({"path": _TEXT}, _CONTENT)),
    "CreateFile": _list(_object({"path": _TEXT}, {**_CONTENT, "overwrite": _FLAG})),
    "CreateFolder": _list(_object({"path": _TEXT}, {"overwrite": _FLAG})),
    "CreateSymlink": _list(_object({"path": _TEXT, "target": _TEXT}, {"force": _FLAG})),
    "CopyFile": _MOVE,
    "CopyFolder": _MOVE,
    "MoveFile": _MOVE,
    "MoveFolder": _MOVE,
    "DeleteFile": _PATHS,
    "DeleteFolder": _list(_object({"path": _TEXT}, {"force": _FLAG})),
    "ListFiles": _list(_object({"path": _TEXT}, {"fileNamePattern": _TEXT, "recursive": _FLAG})),
    "ReadFile": _list(_object({"path": _TEXT}, {"encoding": _ENCODING})),
    "SetFileEncoding": _list(_object({"path": _TEXT}, {"encoding": _ENCODING})),
    "InstallMSI": _MSI,
    "UninstallMSI": _MSI,
    "Reboot": _object({}, {"delaySeconds": {"type": "integer", "minimum": 0}}),
    "SetRegistry": _list(
        _object(
            {
                "path": {
                    "type": "string",
                    "pattern": r"^(HKEY_(CLASSES_ROOT|USERS|LOCAL_MACHINE|CURRENT_CONFIG|CURRENT_USER)"
                    r"|HK(CR|U|LM|CC|CU):)\\",
                },
                "name": _TEXT,
                "value": {"type": ["string", "number", "array"]},
                "type": {"enum": ["BINARY", "DWORD", "QWORD", "SZ", "EXPAND_SZ", "MULTI_SZ"]},
            }
        )
    ),
    "UpdateOS": _object({}, {"include": _UPDATES, "exclude": _UPDATES}),
    # Not of Windows, or not wanted:
    "ExecuteBash": None,
    "SetFileOwner": None,
    "SetFolderOwner": None,
    "SetFilePermissions": None,
    "SetFolderPermissions": None,
}
"""Action -> its `inputs`; None is refused here."""

_NUMBER: Json = {"type": ["integer", "string"]}
_LOOP: Json = {
    "oneOf": [
        _object({"for": _object({"start": _NUMBER, "end": _NUMBER, "updateBy": _NUMBER})}, {"name": _TEXT}),
        _object(
            {"forEach": {"oneOf": [_list({}), _object({"list": _TEXT}, {"delimiters": _TEXT})]}},
            {"name": _TEXT},
        ),
    ]
}
_STEP = _object(
    {"name": {**_TEXT, "pattern": r"^[A-Za-z][\w-]{0,127}$"}, "action": _TEXT},
    {
        "inputs": {},
        "timeoutSeconds": {"type": "integer", "minimum": 1, "maximum": 43_200},
        "onFailure": {"enum": ["Abort", "Continue", "Ignore"]},
        "maxAttempts": {"type": "integer", "minimum": 1},
        "loop": _LOOP,
        "if": {"type": "object"},
    },
)
_NAMED = {
    "type": "array",
    "items": {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "propertyNames": {"pattern": r"^[A-Za-z][\w-]{2,127}$"},
    },
}
DOCUMENT = _object(
    {"schemaVersion": {"const": 1.0}, "phases": _list(_object({"name": _TEXT, "steps": _list(_STEP)}))},
    {
        "name": {**_TEXT, "maxLength": 128},
        "description": _TEXT,
        "parameters": {
            **_NAMED,
            "items": {
                **_NAMED["items"],  # type: ignore[dict-item]
                "additionalProperties": _object(
                    {"type": {"const": "string"}}, {"default": {"type": "string"}, "description": _TEXT}
                ),
            },
        },
        "constants": {
            **_NAMED,
            "items": {
                **_NAMED["items"],  # type: ignore[dict-item]
                "additionalProperties": _object({"type": {"const": "string"}, "value": {"type": "string"}}),
            },
        },
    },
)

_REFERENCE = re.compile(r"\{\{\s*([\w.-]+)\s*\}\}")
_LATEST = re.compile(r"(?<![A-Za-z])latest(?![A-Za-z])", re.IGNORECASE)
_WEB = re.compile(
    r"Invoke-WebRequest|Invoke-RestMethod|Start-BitsTransfer|System\.Net\.WebClient|\b(curl|wget|iwr|irm)\b",
    re.IGNORECASE,
)
_CHECKS = re.compile(r"Assert-Sha256|Install-Agent|Get-AuthenticodeSignature")


def findings(text: str) -> list[str]:
    """Return what is wrong with a document, as "where: rule: what"."""
    found = list(_shape(text))
    if found:
        return found  # the other rules need the shape
    document = yaml.safe_load(text)
    found = [*_text(text), *_phases(document), *_parameters(document, text)]
    for phase in document["phases"]:
        for number, step in enumerate(phase["steps"]):
            where = f"{phase['name']}.{step['name']}"
            found += [f"{where}: {rule}" for rule in _step(step, phase["steps"][number + 1 :])]
    return found


def parameters(document: Mapping[str, Any]) -> dict[str, Json]:
    """Return a document's parameters by name."""
    return {name: facts for entry in document.get("parameters", []) for name, facts in entry.items()}


def scripts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each embedded PowerShell as ("phase.step", script)."""
    for phase in document["phases"]:
        for step in phase["steps"]:
            if step["action"] == "ExecutePowerShell":
                for command in step["inputs"]["commands"]:
                    yield f"{phase['name']}.{step['name']}", command


def _shape(text: str) -> Iterator[str]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        yield f"document: schema: {error}"
        return
    for error in Draft202012Validator(DOCUMENT).iter_errors(document):
        yield f"{error.json_path}: schema: {error.message[:200]}"


def _text(text: str) -> Iterator[str]:
    if len(text) > MAX_INLINE_CHARACTERS:
        yield f"document: length: {len(text)} characters"
    for match in _LATEST.finditer(text):
        yield f"document: unpinned: {text[max(0, match.start() - 40) : match.end() + 10]!r}"


def _phases(document: Json) -> Iterator[str]:
    names = [phase["name"] for phase in document["phases"]]
    yield from (f"document: phases: no {name} phase" for name in PHASES if name not in names)
    yield from (f"document: phases: {name} never runs" for name in names if name not in PHASES)
    yield from (f"document: name: {name} twice" for name in set(names) if names.count(name) > 1)
    for phase in document["phases"]:
        steps = [step["name"] for step in phase["steps"]]
        yield from (f"{phase['name']}: name: {name} twice" for name in set(steps) if steps.count(name) > 1)


def _parameters(document: Json, text: str) -> Iterator[str]:
    declared = set(parameters(document)) | {name for entry in document.get("constants", []) for name in entry}
    used = set(_REFERENCE.findall(text))
    loops = {
        step["loop"].get("name", "loop")
        for phase in document["phases"]
        for step in phase["steps"]
        if "loop" in step
    }
    chained = {name for name in used if name.split(".")[0] in {*PHASES, *loops, "loop"}}
    yield from (f"document: parameter: {name} is not declared" for name in sorted(used - declared - chained))
    yield from (f"document: parameter: {name} is not used" for name in sorted(declared - used))


def _step(step: Json, later: list[Json]) -> Iterator[str]:
    action = step["action"]
    if ACTIONS.get(action) is None:
        yield f"action: {action} is not known on Windows"
        return
    for error in Draft202012Validator(ACTIONS[action] or {}).iter_errors(step.get("inputs", {})):
        yield f"input: {error.json_path}: {error.message[:200]}"
        return
    if step.get("onFailure") != "Abort":
        yield f"failure: onFailure is {step.get('onFailure')}, not Abort"
    if "timeoutSeconds" not in step and action not in NO_TIMEOUT:
        yield f"timeout: {action} has none"
    yield from _downloads(step, later)
    if action == "ExecutePowerShell":
        for command in step["inputs"]["commands"]:
            yield from (f"powershell: {finding}" for finding in powershell.findings(command))


def _downloads(step: Json, later: list[Json]) -> Iterator[str]:
    action, inputs = step["action"], step.get("inputs", {})
    if action == "WebDownload":
        for entry in inputs:
            has_digest = {"checksum", "algorithm"} <= set(entry)
            if not has_digest and not _is_checked_next(entry["destination"], later):
                yield f"unchecked: {entry['source']}"
    if action == "S3Download":
        for entry in inputs:
            if not _is_checked_next(entry["destination"], later):
                yield f"unchecked: {entry['source']}"
    if action == "InstallMSI" and re.match(r"(https?|s3)://", inputs["path"]):
        yield f"unchecked: {inputs['path']}"
    if action == "ExecutePowerShell":
        for command in inputs["commands"]:
            if match := _WEB.search(command):
                yield f"unchecked: {match[0]}; WebDownload takes a digest"
            after = command.rpartition("Read-S3Object")
            if after[1] and not _CHECKS.search(after[2]):
                yield "unchecked: Read-S3Object"


def _is_checked_next(destination: str, later: list[Json]) -> bool:
    """Whether the step after a download looks at its digest or signature before it runs."""
    if not later or later[0]["action"] != "ExecutePowerShell":
        return False
    script = "\n".join(later[0]["inputs"]["commands"])
    return destination in script and bool(_CHECKS.search(script)) and "throw" in script
