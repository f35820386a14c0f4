"""Settings of processes and of programs, for any value that somebody may set."""

import json
import logging
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scanfleet.contract import Env
from scanfleet.errors import ConfigurationError, InvalidRequest
from scanfleet.processors import medit_settings
from scanfleet.settings import (
    ENV_PREFIX,
    AgentSettings,
    ApiSettings,
    ClientSettings,
    ControllerSettings,
    load,
)
from tests.support.outcomes import outcome

QUEUES = {"linux-cpu": {"high": "https://q/high", "normal": "https://q/normal"}}
COMPLETE = {
    Env.JOB_TABLE: "jobs",
    Env.ARTIFACTS_BUCKET: "artifacts",
    Env.QUEUES: json.dumps(QUEUES),
    Env.DEAD_LETTERS: json.dumps({"linux-cpu": "https://q/dead"}),
    Env.ALLOWED_PREFIXES: "s3://data/",
    Env.UPLOADS_URI: "s3://data/uploads/",
    Env.POOL: "linux-cpu",
    Env.SCRATCH: "/scratch",
    Env.FLEETS: json.dumps({"linux-cpu": {"group": "g", "slots": 1}}),
}
KINDS = (AgentSettings, ApiSettings, ControllerSettings, ClientSettings)
NAMES = sorted({(kind, ENV_PREFIX + name.upper()) for kind in KINDS for name in kind.model_fields}, key=str)

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=6,
)
TEXTS = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
    JSON.map(json.dumps),
    st.floats().map(repr),
    st.integers().map(str),
    st.sampled_from(
        ["", " ", "inf", "nan", "-1", "1e400", "9" * 5000, "true", "[" * 100_000, "s3://", "s3:///"]
    ),
)


@given(st.sampled_from(NAMES), TEXTS)
@example((AgentSettings, "SCANFLEET_DRAIN_SECONDS"), "inf")
@example((AgentSettings, "SCANFLEET_STOP_GRACE_SECONDS"), "1e300")
@example((AgentSettings, "SCANFLEET_TIME_LIMIT_SECONDS"), "9" * 30)
@example((ControllerSettings, "SCANFLEET_FLEETS"), "[" * 100_000)
@example((ControllerSettings, "SCANFLEET_HOURLY_PRICES"), '{"m5.large": 1e999}')
@example((ApiSettings, "SCANFLEET_UPLOADS_URI"), "data")
@example((ApiSettings, "SCANFLEET_LOG_LEVEL"), "LOUD")
def test_any_text_is_a_setting_that_can_be_used_or_is_refused_by_its_name(setting, text):
    kind, name = setting
    with pytest.MonkeyPatch.context() as patch:
        for key, value in (COMPLETE | {name: text}).items():
            patch.setenv(key, value)
        settings, refused = outcome(ConfigurationError, lambda: load(kind))
        if refused:
            assert name in str(refused)
            assert len(str(refused)) < 5000
            return
    use(settings)


def use(settings):
    """Do what the processes do first with their settings."""
    if not isinstance(settings, ClientSettings):
        assert logging.getLevelName(settings.log_level) in range(100)
    if isinstance(settings, AgentSettings):
        assert settings.stop_grace.total_seconds() >= 0
        assert settings.drain_grace.total_seconds() >= 0
    if isinstance(settings, ApiSettings):
        assert settings.uploads_uri.split("/")[2]
    if isinstance(settings, ControllerSettings):
        assert all(price < 1e6 for price in settings.hourly_prices.values())
    assert os.environ.get("SCANFLEET_JOB_TABLE") is None


# --- Settings of a program ---------------------------------------------------------------------------------

KEYS = st.one_of(st.sampled_from([*medit_settings.KEYS, "Use GPUs", "use_gpu"]), st.text(max_size=12))


@given(st.dictionaries(KEYS, JSON, max_size=6), st.booleans())
def test_any_json_is_a_whole_set_of_settings_or_every_wrong_key_is_named(raw, allow_unknown):
    try:
        settings = medit_settings.validate(raw, allow_unknown=allow_unknown)
    except InvalidRequest as refused:
        named = {error.field for error in refused.errors}
        unknown = set() if allow_unknown else set(raw) - set(medit_settings.KEYS)
        assert unknown <= named <= set(raw)
        return
    assert set(medit_settings.KEYS) <= set(settings)
    assert {key: settings[key] for key in raw} == raw
    assert all(
        type(settings[key]) is type(medit_settings.validate({}, allow_unknown=False)[key])
        for key in medit_settings.KEYS
    )
