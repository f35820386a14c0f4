"""What the agents of `make up` take from the environment of whoever started it."""

from scanfleet.local.system import tuning
from scanfleet.settings import ENV_PREFIX, AgentSettings


def test_local_agents_take_the_settings_that_tune_them():
    chosen = {"SCANFLEET_WATCHDOG_IDLE_SECONDS": "15", "SCANFLEET_SLOTS": "3", "HOME": "/root"}

    assert tuning(chosen) == {"WATCHDOG_IDLE_SECONDS": "15", "SLOTS": "3"}


def test_local_agents_are_not_led_elsewhere():
    chosen = {
        "SCANFLEET_JOB_TABLE": "another",
        "SCANFLEET_QUEUES": "{}",
        "SCANFLEET_FLEET": "f",
        "AWS_REGION": "x",
    }

    assert tuning(chosen) == {}


def test_every_tuning_setting_is_one_of_the_agents():
    known = {name.upper() for name in AgentSettings.model_fields}
    taken = tuning({ENV_PREFIX + name: "" for name in known})

    assert {"SLOTS", "TIME_LIMIT_SECONDS", "BREAKER_FAILURES", "LOG_LEVEL", "DRAIN_SECONDS"} <= set(taken)
    assert {name for name in known if name.startswith("WATCHDOG_")} <= set(taken)
