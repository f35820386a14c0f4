"""The environment, typed: what is missing or wrong is named."""

import json

import pytest

from scanfleet import contract
from scanfleet.contract import Env, Pool, Priority
from scanfleet.errors import ConfigurationError
from scanfleet.settings import (
    ENV_PREFIX,
    AgentSettings,
    ApiSettings,
    ClientSettings,
    ControllerSettings,
    EventsSettings,
    load,
)

COMPLETE = {
    "SCANFLEET_JOB_TABLE": "jobs",
    "SCANFLEET_ARTIFACTS_BUCKET": "artifacts",
    "SCANFLEET_QUEUES": json.dumps({"linux-cpu": {"high": "https://q/high", "normal": "https://q/normal"}}),
    "SCANFLEET_DEAD_LETTERS": json.dumps({"linux-cpu": "https://q/dead"}),
    "SCANFLEET_ALLOWED_PREFIXES": "s3://data/, s3://more/folder/",
    "SCANFLEET_UPLOADS_URI": "s3://data/uploads/",
    "SCANFLEET_POOL": "linux-cpu",
    "SCANFLEET_SCRATCH": "/scratch",
}


@pytest.fixture
def environment(monkeypatch):
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_complete_environment_becomes_one_typed_object(environment):
    settings = load(AgentSettings)

    assert settings.queues[Pool.LINUX_CPU][Priority.HIGH] == "https://q/high"
    assert settings.allowed_prefixes == ("s3://data/", "s3://more/folder/")


def test_the_default_address_is_this_machine_only(environment):
    assert load(ApiSettings).host == "127.0.0.1"
    assert load(AgentSettings).status_host == "127.0.0.1"


def test_every_missing_setting_is_named_at_once(environment):
    environment.delenv("SCANFLEET_JOB_TABLE")
    environment.delenv("SCANFLEET_POOL")

    with pytest.raises(ConfigurationError, match=r"SCANFLEET_JOB_TABLE.*SCANFLEET_POOL"):
        load(AgentSettings)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SCANFLEET_POOL", "gpu", "windows-gpu"),
        ("SCANFLEET_SLOTS", "-1", "greater than or equal to 0"),
        ("SCANFLEET_SLOTS", "many", "valid integer"),
        ("SCANFLEET_ALLOWED_PREFIXES", "data/", "s3://bucket/"),
        ("SCANFLEET_ALLOWED_PREFIXES", "", "s3://bucket/"),
        ("SCANFLEET_ALLOWED_PREFIXES", "s3://data", "s3://bucket/"),
        ("SCANFLEET_QUEUES", '{"linux-cpu": {"soon": "u"}}', "high"),
        ("SCANFLEET_DEAD_LETTERS", "{}", "no queue of the pools linux-cpu"),
        ("SCANFLEET_DEAD_LETTERS", "https://q/dead", "JSON"),
        ("SCANFLEET_STATUS_PORT", "70000", "65535"),
        ("SCANFLEET_VISIBILITY_SECONDS", "20", "SCANFLEET_LEASE_SECONDS < SCANFLEET_VISIBILITY_SECONDS"),
        ("SCANFLEET_HEARTBEAT_SECONDS", "30", "SCANFLEET_HEARTBEAT_SECONDS < SCANFLEET_LEASE_SECONDS"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(environment, name, value, said):
    environment.setenv(name, value)

    with pytest.raises(ConfigurationError) as caught:
        load(AgentSettings)

    assert said in str(caught.value)
    assert name in str(caught.value)


def test_queues_that_are_not_json_are_refused_with_their_name(environment):
    environment.setenv("SCANFLEET_QUEUES", "https://q")

    with pytest.raises(ConfigurationError, match="SCANFLEET_QUEUES"):
        load(AgentSettings)


@pytest.mark.parametrize("kind", [AgentSettings, EventsSettings])
def test_every_process_takes_a_level_in_small_letters_and_looks_for_others_soon_enough(environment, kind):
    environment.setenv("SCANFLEET_CONNECTIONS_URL", "https://api.example/live")
    environment.setenv("SCANFLEET_LOG_LEVEL", "debug")

    settings = load(kind)

    assert settings.log_level == "DEBUG"
    environment.setenv("SCANFLEET_LOG_LEVEL_LOOK_SECONDS", "31")
    with pytest.raises(ConfigurationError, match="SCANFLEET_LOG_LEVEL_LOOK_SECONDS"):
        load(kind)


def test_the_client_needs_no_environment(monkeypatch):
    monkeypatch.delenv("SCANFLEET_URL", raising=False)

    assert load(ClientSettings).url == "http://127.0.0.1:8080"


def test_every_shared_variable_is_a_setting():
    kinds = (AgentSettings, ApiSettings, ControllerSettings, EventsSettings)
    names = {ENV_PREFIX + name.upper() for kind in kinds for name in kind.model_fields}

    assert set(Env) <= names


def test_the_times_that_infrastructure_and_agents_share_are_in_order():
    assert contract.CANCEL_POLL_INTERVAL < contract.HEARTBEAT_INTERVAL
    assert contract.HEARTBEAT_INTERVAL * 3 < contract.LEASE_DURATION
    assert contract.LEASE_DURATION < contract.VISIBILITY_TIMEOUT
    assert contract.VISIBILITY_TIMEOUT + contract.RECEIVE_WAIT < contract.AGENT_SILENT_AFTER * 2
