"""The request keys of the Medit processor, shared by the closed program and the reference processor."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError

from scanfleet.errors import FieldError, InvalidRequest, shorten
from scanfleet.processors.base import AttemptFolders

SOURCE_KEY = "Source Folder Path"
TARGET_KEY = "Target Folder Path"
CONFIG_NAME = "config.json"

# The program reads 32-bit integers; none of its integer keys has a meaning below zero.
Count = Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]


class MeditSettings(BaseModel):
    """The processor's settings, spelled as requests and `config.json` spell them."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=False)

    force_global_align: StrictBool = Field(default=False, alias="Force Global Align")
    save_source: StrictBool = Field(default=False, alias="Save Source To Result Folder")
    use_gpu: StrictBool = Field(default=True, alias="Use GPU")
    use_gpu_for_voxels: StrictBool = Field(default=True, alias="Use GPU For Voxel Regeneration")
    compensate_occlusion: StrictBool = Field(default=False, alias="Compensate Occlusion Align")
    high_resolution_prep: StrictBool = Field(default=False, alias="Apply High Resolution to Prep")
    complete_type: Count = Field(default=0, alias="Complete Type")
    file_size: Count = Field(default=0, alias="File Size")
    compensate_occlusion_level: Count = Field(default=0, alias="Compensate Occlusion Level")
    reduce_roughness: Count = Field(default=0, alias="Reduce Roughness")
    merge_type: Count = Field(default=0, alias="High Resolution Merge Type")


KEYS: tuple[str, ...] = tuple(f.alias for f in MeditSettings.model_fields.values() if f.alias is not None)


def validate(raw: Mapping[str, Any], *, allow_unknown: bool) -> dict[str, Any]:
    """Return every key with its value, defaults filled in.

    Raises InvalidRequest naming each unknown key (with the nearest known one) and each mistyped value.
    Unknown keys pass through to the program when `allow_unknown` is set: a newer release may know them.
    """
    errors = [] if allow_unknown else [_unknown(key, raw[key]) for key in raw if key not in KEYS]
    try:
        settings = MeditSettings.model_validate(dict(raw))
    except ValidationError as error:
        errors += [_mistyped(dict(raw), e["loc"], e["type"]) for e in error.errors()]
    if errors:
        raise InvalidRequest(errors)
    return settings.model_dump(by_alias=True)


def schema(*, allow_unknown: bool) -> dict[str, Any]:
    """Return the keys as JSON Schema: {"properties": {key: {"type", "default", ...}}, ...}."""
    described = MeditSettings.model_json_schema(by_alias=True)
    return {
        "type": "object",
        "properties": described["properties"],
        "additionalProperties": allow_unknown,
    }


def write_config(settings: Mapping[str, Any], folders: AttemptFolders) -> Path:
    """Write `config.json` into the input folder, with local paths for the two folders; return its path."""
    config = {SOURCE_KEY: str(folders.input), TARGET_KEY: str(folders.output), **settings}
    path = folders.input / CONFIG_NAME
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
    return path


def _unknown(key: str, value: object) -> FieldError:
    nearest = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.5)
    hint = f'did you mean "{nearest[0]}"?' if nearest else "unknown key"
    return FieldError(
        field=key, message=f"unknown setting; {hint}", value=_shown(value), allowed=", ".join(KEYS)
    )


def _mistyped(raw: dict[str, Any], location: tuple[int | str, ...], kind: str) -> FieldError:
    key = str(location[0])
    allowed = "true or false" if "bool" in kind else "an integer from 0 to 2147483647"
    return FieldError(field=key, message="wrong type or range", value=_shown(raw.get(key)), allowed=allowed)


def _shown(value: object) -> str:
    return shorten(json.dumps(value, default=str))
