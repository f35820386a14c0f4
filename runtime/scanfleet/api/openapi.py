"""What OpenAPI says beyond what FastAPI derives: request bodies read by hand, the problem documents."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from scanfleet.api.problems import FieldProblem, Problem
from scanfleet.api.schemas import LogPage
from scanfleet.processors.medit_settings import SOURCE_KEY, TARGET_KEY, MeditSettings

REFERENCE = "#/components/schemas/{model}"

DESCRIPTION = """
Scanfleet runs programs over folders of scans in S3 and shows what every job is doing.

Every answer that is not a success is a problem document (RFC 9457, `application/problem+json`) that names
the field, the value got and what is allowed.
"""

TAGS = [
    {"name": "jobs", "description": "Submit jobs, see them, cancel and retry them, read their logs."},
    {"name": "files", "description": "Upload inputs and download results without AWS credentials."},
    {"name": "operations", "description": "For operators: what nobody could run."},
    {"name": "status", "description": "What health checks, routing and scaling read."},
]


def json_body(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """Return `openapi_extra` for a handler that reads its JSON body by hand."""
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON schema with nothing outside of it."""
    schema = model.model_json_schema(by_alias=True, ref_template=REFERENCE)
    definitions = schema.pop("$defs", {})
    inlined: dict[str, Any] = _inlined(schema, definitions)
    return inlined


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(one, definitions) for one in node]
    if not isinstance(node, dict):
        return node
    reference = str(node.get("$ref", ""))
    name = reference.rpartition("/")[2]
    if name in definitions:
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return _inlined(definitions[name], definitions) | rest
    return {key: _inlined(value, definitions) for key, value in node.items()}


def process_schema() -> dict[str, Any]:
    """Return the schema of `POST /process`: the Medit keys and the two folders."""
    schema = schema_of(MeditSettings)
    folders = {
        SOURCE_KEY: {"type": "string", "description": "s3://bucket/folder/ that holds the scans."},
        TARGET_KEY: {"type": "string", "description": "s3://bucket/folder/ for the results."},
    }
    return {
        "title": "ProcessRequest",
        "type": "object",
        "properties": folders | schema["properties"],
        "required": [SOURCE_KEY, TARGET_KEY],
        "additionalProperties": False,
    }


def install(app: FastAPI) -> None:
    """Make the app's OpenAPI complete: schemas that handlers only refer to, and none that nothing answers."""
    derive = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(derive())
        return derive()

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (Problem, FieldProblem, LogPage):
        schema = model.model_json_schema(ref_template=REFERENCE)
        schema.pop("$defs", None)
        schemas[model.__name__] = schema
    # FastAPI adds its own 422 wherever there is a parameter, even a job id that no validation can refuse;
    # our handlers document the problem document that they really answer with.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for item in document["paths"].values():
        for operation in item.values():
            content = operation["responses"].get("422", {}).get("content", {})
            if "application/json" in content:
                del operation["responses"]["422"]
