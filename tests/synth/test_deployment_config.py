"""A wrong context is refused before anything is built, and says what would be right."""

import re

import pytest

from cdk.config import ConfigError, read_config
from scanfleet.contract import Pool


def context(**values):
    return {"defaults": {"region": "eu-central-1"}, "stages": {"dev": values}}


def test_a_stage_overrides_the_defaults():
    tree = {
        "defaults": {"region": "eu-central-1", "pools": ["linux-cpu"]},
        "stages": {"dev": {"region": "us-west-2", "account": "123456789012"}},
    }

    config = read_config(stage="dev", context=tree)

    assert (config.stage, config.region, config.account) == ("dev", "us-west-2", "123456789012")
    assert config.pools == (Pool.LINUX_CPU,)


def test_by_default_data_is_retained_and_the_data_bucket_is_all_that_jobs_may_touch():
    config = read_config(stage="dev", context=context())

    assert config.retain_data
    assert config.allowed_prefixes == ()
    assert config.account is None
    assert not config.is_local


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("region", "Frankfurt", "an AWS region such as eu-central-1"),
        ("region", None, "an AWS region such as eu-central-1"),
        ("account", "1234", "12 digits, or left out"),
        ("account", 123456789012, "12 digits, or left out"),
        ("pools", [], "a list of at least 1"),
        ("pools", "linux-cpu", "a list of at least 1"),
        ("pools", ["linux"], "windows-gpu, linux-cpu"),
        ("pools", [7], "windows-gpu, linux-cpu"),
        ("pools", ["linux-cpu", "linux-cpu"], "each value once"),
        ("allowed_prefixes", ["s3://bucket"], "s3://bucket/ or s3://bucket/folder/"),
        ("allowed_prefixes", ["http://bucket/"], "s3://bucket/ or s3://bucket/folder/"),
        ("allowed_prefixes", ["s3://bucket/a,b/"], "s3://bucket/ or s3://bucket/folder/"),
        ("allowed_prefixes", "s3://bucket/", "a list"),
        ("retain_data", "no", "true or false"),
        ("retain_data", False, "only the stage 'local' may destroy its data"),
        ("customer_managed_key", 1, "true or false"),
        ("noncurrent_versions_kept_days", 0, "a whole number of days from 1 to 3650"),
        ("noncurrent_versions_kept_days", True, "a whole number of days from 1 to 3650"),
        ("noncurrent_versions_kept_days", 1.5, "a whole number of days from 1 to 3650"),
        ("tags", ["a"], "an object of texts"),
        ("tags", {"aws:x": "y"}, 'not starting with "aws:"'),
        ("tags", {"x": 1}, 'not starting with "aws:"'),
    ],
)
def test_a_wrong_value_is_refused_with_its_field_and_what_is_allowed(field, value, allowed):
    with pytest.raises(ConfigError) as refused:
        read_config(stage="dev", context=context(**{field: value}))

    message = str(refused.value)
    assert message.startswith(f"{field}: got {value!r}; allowed: ")
    assert allowed in message


def test_a_region_is_required():
    with pytest.raises(ConfigError, match="region: got None"):
        read_config(stage="dev", context={"stages": {"dev": {}}})


@pytest.mark.parametrize(
    ("tree", "field", "hint"),
    [
        ({"stage": {}}, "scanfleet.stage", "did you mean 'stages'?"),
        (context(acount="1"), "scanfleet.stages.dev.acount", "did you mean 'account'?"),
        ({"defaults": {"regoin": "x"}, "stages": {"dev": {}}}, "scanfleet.defaults.regoin", "'region'?"),
        (context(stage="prod"), "scanfleet.stages.dev.stage", "one of account"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_name(tree, field, hint):
    with pytest.raises(ConfigError, match=re.escape(hint)) as refused:
        read_config(stage="dev", context=tree)

    assert str(refused.value).startswith(f"{field}: ")


@pytest.mark.parametrize("stage", [None, "production", 7])
def test_an_unknown_stage_is_refused_with_the_known_ones(stage):
    with pytest.raises(ConfigError, match=f"stage: got {stage!r}; allowed: one of dev"):
        read_config(stage=stage, context=context())


@pytest.mark.parametrize("name", ["Dev", "1dev", "d" * 17, "dev_1", ""])
def test_a_stage_whose_name_cannot_be_part_of_other_names_is_refused(name):
    tree = {"defaults": {"region": "eu-central-1"}, "stages": {name: {}}}

    with pytest.raises(ConfigError, match="a lower-case letter, then up to 15"):
        read_config(stage=name, context=tree)


@pytest.mark.parametrize("tree", [None, [], "dev", {"stages": []}, {"stages": {"dev": 1}}])
def test_a_context_of_another_shape_is_refused(tree):
    with pytest.raises(ConfigError, match="allowed: an object"):
        read_config(stage="dev", context=tree)


def test_only_the_local_stage_may_destroy_its_data():
    tree = {"defaults": {"region": "us-east-1"}, "stages": {"local": {"retain_data": False}}}

    config = read_config(stage="local", context=tree)

    assert config.is_local
    assert not config.retain_data
