"""A wrong context is refused before anything is built, and says what would be right."""

import copy
import re
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdk.config import LOG_RETENTION_DAYS, ConfigError, DeploymentConfig, Egress, read_config
from cdk.logs import RETENTION
from scanfleet.contract import Pool
from scanfleet.price_table import LINUX_US_EAST_1

CERTIFICATE = "arn:aws:acm:eu-central-1:123456789012:certificate/00000000-0000-0000-0000-000000000000"
ROLE = "arn:aws:iam::123456789012:role/clinic"
PUBLIC = {
    "load_balancer": "internet-facing",
    "certificate_arn": CERTIFICATE,
    "auth": "jwt",
    "jwt_issuer": "https://issuer.example",
    "jwt_audience": ["scanfleet"],
    "allowed_cidrs": ["203.0.113.0/24"],
}
EXISTING = {
    "vpc_id": "vpc-0123456789abcdef0",
    "vpc_cidr": "10.1.0.0/16",
    "private_subnet_ids": ["subnet-11111111", "subnet-22222222"],
    "zones": ["eu-central-1a", "eu-central-1b"],
}
SCHEDULE = {"pool": "windows-gpu", "at": "0 7 * * MON-FRI", "min_instances": 1, "max_instances": 8}
WHOLE = {
    "region": "eu-central-1",
    "account": "123456789012",
    "network": EXISTING | {"public_subnet_ids": ["subnet-33333333", "subnet-44444444"]},
    "api": PUBLIC | {"operators": ["admin"], "web_acl": True, "requests_per_second": 5},
    "pools": {
        "windows-gpu": {
            "instance_types": ["g4dn.xlarge", "g5.xlarge"],
            "scale_to_zero": False,
            "min_instances": 1,
            "max_instances": 9,
            "spot_percent": 50,
        }
    },
    "medit": {"release_bucket": "releases", "initial_version": "4.2"},
    "image": {"schedule": "cron(0 3 ? * SUN *)", "kept_images": 2, "golden_prefix": "s3://golden/set/"},
    "schedules": [SCHEDULE],
    "allowed_prefixes": ["s3://shared/"],
    "tenants": {"clinic": {"allowed_prefixes": ["s3://clinic/a/"], "callers": ["subject"]}},
    "alarm_email": "ops@example.com",
    "log_retention_days": 30,
    "monthly_budget_usd": 1000,
    "hourly_prices_usd": {"g4dn.xlarge": 0.6},
    "customer_managed_key": True,
    "noncurrent_versions_kept_days": 7,
    "tags": {"team": "imaging"},
}
"""A valid value for nearly every setting."""


def context(**values):
    return {"defaults": {"region": "eu-central-1"}, "stages": {"dev": values}}


def nest(path, value):
    """Return the smallest tree that has this value at a dotted path; a number is an index."""
    for name in reversed(path.split(".")):
        value = [value] if name.isdigit() else {name: value}
    return value


def merge(base, over):
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return base | {name: merge(base.get(name), value) for name, value in over.items()}


def refusal(**values):
    with pytest.raises(ConfigError) as refused:
        read_config(stage="dev", context=context(**values))
    return str(refused.value)


# --- How values come together ------------------------------------------------------------------------------


def test_a_stage_overrides_the_defaults_key_by_key_at_every_depth():
    tree = {
        "defaults": {
            "region": "eu-central-1",
            "pools": {"windows-gpu": {"max_instances": 8, "slots_per_instance": 2}},
            "network": {"availability_zones": 3},
        },
        "stages": {
            "dev": {
                "region": "us-west-2",
                "account": "123456789012",
                "pools": {"windows-gpu": {"max_instances": 2}},
            }
        },
    }

    config = read_config(stage="dev", context=tree)

    assert (config.stage, config.region, config.account) == ("dev", "us-west-2", "123456789012")
    pool = config.pools[Pool.WINDOWS_GPU]
    assert (pool.max_instances, pool.slots_per_instance) == (2, 2)
    assert config.network.availability_zones == 3


def test_a_stage_replaces_a_list_of_the_defaults_whole():
    tree = {
        "defaults": {"region": "eu-central-1", "allowed_prefixes": ["s3://one/", "s3://two/"]},
        "stages": {"dev": {"allowed_prefixes": ["s3://three/"]}},
    }

    assert read_config(stage="dev", context=tree).allowed_prefixes == ("s3://three/",)


def test_by_default_one_windows_fleet_starts_at_zero_behind_doors_inside_a_network_of_its_own():
    config = read_config(stage="dev", context=context())

    (pool,) = config.pools
    assert pool is Pool.WINDOWS_GPU
    assert config.pools[pool].min_instances == 0
    assert config.network.egress is Egress.NAT
    assert config.api.load_balancer == "internal"


def test_by_default_data_is_retained_and_the_data_bucket_is_all_that_jobs_may_touch():
    config = read_config(stage="dev", context=context())

    assert config.retain_data
    assert config.prefixes == ()
    assert config.account is None
    assert not config.is_local


def test_only_the_local_stage_may_destroy_its_data():
    tree = {"defaults": {"region": "us-east-1"}, "stages": {"local": {"retain_data": False}}}

    config = read_config(stage="local", context=tree)

    assert config.is_local
    assert not config.retain_data


def test_a_configuration_with_every_setting_is_read():
    config = read_config(stage="dev", context=context(**WHOLE))

    assert config.prefixes == ("s3://shared/", "s3://clinic/a/")
    assert config.schedules[0].time_zone == "Etc/UTC"


def test_the_reference_processor_runs_in_linux_cpu_only_where_there_is_one():
    local = {"defaults": {"region": "us-east-1"}, "stages": {"local": {"pools": {"linux-cpu": {}}}}}

    assert read_config(stage="local", context=local).reference_pool is Pool.LINUX_CPU
    assert read_config(stage="dev", context=context()).reference_pool is Pool.WINDOWS_GPU


def test_every_log_retention_that_may_be_chosen_is_known_to_the_log_groups():
    assert tuple(RETENTION) == LOG_RETENTION_DAYS


# --- One value ---------------------------------------------------------------------------------------------

WRONG = [
    ("pools.windows-gpu.instance_types.0", "g4dn.3xlarge", "an x86 instance type with NVIDIA GPU"),
    ("pools.windows-gpu.instance_types.0", "gr6.xlarge", "an x86 instance type with NVIDIA GPU"),
    ("region", "eu-centrall-1", "did you mean 'eu-central-1'?"),
    ("region", "cn-north-1", "a region of AWS, China and government clouds aside"),
    ("region", "Frankfurt", "an AWS region such as eu-central-1"),
    ("region", None, "an AWS region such as eu-central-1"),
    ("account", "1234", "12 digits, or left out"),
    ("account", 123456789012, "12 digits, or left out"),
    ("account", "١٢٣٤٥٦٧٨٩٠١٢", "12 digits, or left out"),
    ("network", [], "an object"),
    ("network.vpc_cidr", "10.0.0.0", "an IPv4 CIDR block"),
    ("network.vpc_cidr", "10.0.0.300/16", "an IPv4 CIDR block"),
    ("network.vpc_cidr", "010.0.0.0/16", "an IPv4 CIDR block"),
    ("network.vpc_cidr", "10.0.7.0/16", "the block's first address: 10.0.0.0/16"),
    ("network.availability_zones", 1, "from 2 to 3"),
    ("network.zones", "eu-central-1a", "a list"),
    ("network.zones.0", "Frankfurt", "a zone such as eu-central-1a"),
    ("network.egress", "internet", "one of nat, endpoints"),
    ("network.nat_gateways", 0, "from 1 to 3"),
    ("network.close_default_security_group", "yes", "true or false"),
    ("network.vpc_id", "my-vpc", "vpc- and hex digits"),
    ("network.private_subnet_ids.0", "private", "subnet- and hex digits"),
    ("network.public_subnet_ids.0", 7, "subnet- and hex digits"),
    ("api.load_balancer", "public", "one of internal, internet-facing"),
    ("api.load_balancer", True, "one of internal, internet-facing"),
    ("api.allowed_cidrs.0", "everyone", "an IPv4 CIDR block"),
    ("api.allowed_cidrs.0", "203.0.113.9/24", "the block's first address: 203.0.113.0/24"),
    ("api.certificate_arn", "cert", "the ARN of an ACM certificate"),
    ("api.auth", "basic", "one of iam, jwt"),
    ("api.jwt_issuer", "http://issuer.example", "https://issuer"),
    ("api.jwt_audience.0", "", "an audience"),
    ("api.jwt_keys_url", "http://issuer.example/keys", "the https address of a JSON Web Key Set"),
    ("api.operators.0", "a b", "an IAM ARN or a JWT subject"),
    ("api.web_acl", 1, "true or false"),
    ("api.live_events", "yes", "true or false"),
    ("api.console_origins.0", "*", "an origin such as https://host"),
    ("api.console_origins.0", "https://console.example/page", "an origin such as https://host"),
    ("api.requests_per_second", 0, "from 1 to 10000"),
    ("api.reserved_concurrency", 1001, "from 0 to 1000"),
    ("pools", {}, "an object of at least 1"),
    ("pools", ["windows-gpu"], "an object of at least 1"),
    ("pools.windows-gpu.instance_types", [], "a list of at least 1"),
    ("pools.windows-gpu.instance_types.0", "m5.large", "NVIDIA GPU and NVMe"),
    ("pools.windows-gpu.scale_to_zero", None, "true or false"),
    ("pools.windows-gpu.min_instances", -1, "from 0 to 500"),
    ("pools.windows-gpu.max_instances", 0, "from 1 to 500"),
    ("pools.windows-gpu.warm_instances", 1.0, "from 0 to 500"),
    ("pools.windows-gpu.slots_per_instance", 65, "from 1 to 64"),
    ("pools.windows-gpu.slots_per_instance", 0, "from 1 to 64"),
    ("pools.windows-gpu.slots_per_instance", "many", 'or "auto"'),
    ("pools.windows-gpu.spot_percent", 101, "from 0 to 100"),
    ("pools.windows-gpu.idle_minutes", 2.5, "a whole number of minutes from 0 to 1440"),
    ("pools.windows-gpu.root_volume_gib", 30, "a whole number of GiB from 50"),
    ("pools.windows-gpu.root_volume_throughput_mibps", 100, "a whole number of MiB/s from 125"),
    ("pools.windows-gpu.scratch_volume_gib", "200", "a whole number of GiB"),
    ("medit.release_bucket", "No_Bucket", "an S3 bucket's name"),
    ("medit.initial_version", "latest version", "1 to 64 of letters"),
    ("image.schedule", "weekly", "an AWS cron expression of six fields"),
    ("image.schedule", "cron(0 3 * * * *)", "'?' as the day of the month or as the day of the week"),
    ("image.schedule", "cron(0 3 ? * ? *)", "'?' as the day of the month or as the day of the week"),
    ("image.schedule", "cron(60 3 ? * SUN *)", "minute from 0 to 59"),
    ("image.schedule", "cron(0 24 ? * SUN *)", "hour from 0 to 23"),
    ("image.schedule", "cron(0 3 32 * ? *)", "day of the month from 1 to 31"),
    ("image.schedule", "cron(0 3 ? 13 SUN *)", "month from 1 to 12"),
    ("image.schedule", "cron(0 3 ? * SOL *)", "day of the week from 1 to 7 or SUN to SAT"),
    ("image.schedule", "cron(0 3 ? * SUN 1)", "year from 1970"),
    ("image.windows_updates", "no", "true or false"),
    ("image.kept_images", 0, "from 1 to 100"),
    ("image.fast_launch", 0, "true or false"),
    ("image.golden_seconds_at_most", 5, "a whole number of seconds from 30"),
    ("image.golden_prefix", "s3://golden", "s3://bucket/ or s3://bucket/folder/"),
    ("schedules", {}, "a list"),
    ("schedules.0.pool", "gpu", "one of windows-gpu, linux-cpu"),
    ("schedules.0.at", "0 7 * *", "a Unix cron expression of five fields"),
    ("schedules.0.at", "0 7-5 * * *", "hour from 0 to 23"),
    ("schedules.0.at", "*/0 7 * * *", "minute from 0 to 59"),
    ("schedules.0.at", "0 7 ? * *", "day of the month from 1 to 31"),
    ("schedules.0.time_zone", "Berlin time", "an IANA time zone"),
    ("schedules.0.min_instances", None, "from 0 to 500"),
    ("schedules.0.max_instances", 501, "from 1 to 500"),
    ("allowed_prefixes", "s3://bucket/", "a list"),
    ("allowed_prefixes.0", "s3://bucket", "s3://bucket/ or s3://bucket/folder/"),
    ("allowed_prefixes.0", "http://bucket/", "s3://bucket/ or s3://bucket/folder/"),
    ("allowed_prefixes.0", "s3://bucket/a,b/", "s3://bucket/ or s3://bucket/folder/"),
    ("allowed_prefixes.0", "s3://bucket/*/", "s3://bucket/ or s3://bucket/folder/"),
    ("allowed_prefixes.0", "s3://bucket/${aws:username}/", "in ASCII, without blanks and , * ? $"),
    ("allowed_prefixes.0", "s3://bucket/日本/", "in ASCII"),
    ("allowed_prefixes", ["s3://bucket/", "s3://bucket/"], "each value once"),
    ("tenants.clinic.allowed_prefixes", [], "a list of at least 1"),
    ("tenants.clinic.callers", [], "a list of at least 1"),
    ("alarm_email", "ops", "an e-mail address"),
    ("log_retention_days", 8, "one of 1, 3, 5, 7, 14"),
    ("log_retention_days", True, "one of 1, 3, 5, 7, 14"),
    ("monthly_budget_usd", 0, "a whole number of US dollars from 1"),
    ("hourly_prices_usd", [0.6], "an object"),
    ("retain_data", "no", "true or false"),
    ("customer_managed_key", 1, "true or false"),
    ("noncurrent_versions_kept_days", 0, "a whole number of days from 1 to 3650"),
    ("noncurrent_versions_kept_days", True, "a whole number of days from 1 to 3650"),
    ("noncurrent_versions_kept_days", 1.5, "a whole number of days from 1 to 3650"),
    ("tags", ["a"], "an object of at most 40 texts"),
    ("tags", {str(n): "x" for n in range(41)}, "an object of at most 40 texts"),
    ("tags", {"aws:x": "y"}, 'not starting with "aws:"'),
    ("tags", {"scanfleet:stage": "y"}, 'or "scanfleet:"'),
    ("tags", {"x": 1}, 'not starting with "aws:"'),
    ("tags", {"x": "<y>"}, "letters, digits, spaces"),
]
SURROUNDINGS = {
    "schedules": lambda value: {"schedules": [SCHEDULE | value["schedules"][0]]},
    "tenants": lambda value: merge(
        {"tenants": {"clinic": {"allowed_prefixes": ["s3://aaa/"], "callers": [ROLE]}}}, value
    ),
}
"""What must stand beside a value so that it alone is wrong."""


@pytest.mark.parametrize(("field", "value", "allowed"), WRONG)
def test_a_wrong_value_is_refused_with_its_field_and_what_is_allowed(field, value, allowed):
    tree = nest(field, value)
    top = field.split(".")[0]
    if top in SURROUNDINGS and top != field:
        tree = SURROUNDINGS[top](tree)

    message = refusal(**tree)

    assert message.startswith(f"{field}: got {value!r}; allowed: ")
    assert allowed in message


@pytest.mark.parametrize(
    ("field", "allowed"),
    [
        ("pools.windows", "one of windows-gpu, linux-cpu"),
        ("tenants.Clinic", "a lower-case letter, then up to 31"),
    ],
)
def test_a_wrong_name_is_refused_with_what_is_allowed(field, allowed):
    message = refusal(**nest(field, {}))

    assert message.startswith(f"{field}: got {field.split('.')[1]!r}; allowed: {allowed}")


def test_the_instance_types_are_those_that_have_a_price():
    priced = tuple(LINUX_US_EAST_1)

    pools = {"windows-gpu": {"instance_types": priced}}
    config = read_config(stage="dev", context=context(pools=pools))

    assert config.pools[Pool.WINDOWS_GPU].instance_types == priced


def test_a_very_long_value_is_cut_in_the_message():
    assert len(refusal(alarm_email="x" * 10_000)) < 600


def test_every_setting_has_a_wrong_value_in_the_table():
    tried = {re.sub(r"\.\d+$", "", field) for field, _, _ in WRONG}

    missing = {name for name in setting_names() if name not in tried} - {"stage"}
    assert missing == set()


def setting_names():
    """Return each setting's dotted name, written as in the table above."""
    parts = {
        "pools": "pools.windows-gpu",
        "schedules": "schedules.0",
        "tenants": "tenants.clinic",
        "network": "network",
        "api": "api",
        "medit": "medit",
        "image": "image",
    }
    config = read_config(stage="dev", context=context(**WHOLE))
    for f in fields(DeploymentConfig):
        if f.name not in parts:
            yield f.name
            continue
        value = getattr(config, f.name)
        one = (
            next(iter(value.values()))
            if hasattr(value, "values")
            else value[0]
            if f.name == "schedules"
            else value
        )
        yield from (f"{parts[f.name]}.{inner.name}" for inner in fields(one))


@pytest.mark.parametrize(
    "expression",
    [
        "cron(0 3 ? * SUN *)",
        "cron(15,45 */6 L * ? 2026-2030)",
        "cron(0 0 15W JAN-MAR ? *)",
        "cron(0 0 ? * 6#3 *)",
        "cron(0 0 ? * mon-fri *)",
    ],
)
def test_cron_expressions_of_every_kind_are_read(expression):
    assert (
        read_config(stage="dev", context=context(image={"schedule": expression})).image.schedule == expression
    )


# --- Several values ----------------------------------------------------------------------------------------

CONFLICTS = [
    ({"retain_data": False}, "retain_data: got False", "only the stage 'local' may destroy"),
    ({"network": {"vpc_cidr": "10.0.0.0/8"}}, "network.vpc_cidr: got", "a block from /16 to /24"),
    ({"network": {"zones": ["us-east-1a"]}}, "network.zones.0: got", "a zone of the region eu-central-1"),
    ({"network": {"zones": ["eu-central-1a"]}}, "network.zones: got", "2 or 3 zones, each once"),
    ({"network": {"nat_gateways": 3}}, "network.nat_gateways: got 3", "at most one for each of 2 zones"),
    (
        {"network": {"private_subnet_ids": ["subnet-11111111"]}},
        "network.private_subnet_ids: got",
        "set network.vpc_id too",
    ),
    (
        {"network": {"public_subnet_ids": ["subnet-11111111"]}},
        "network.public_subnet_ids: got",
        "set network.vpc_id too",
    ),
    (
        {"network": EXISTING | {"private_subnet_ids": ["subnet-11111111"]}},
        "network.private_subnet_ids: got",
        "at least 2 private subnets",
    ),
    (
        {"network": EXISTING | {"zones": ["eu-central-1a"]}},
        "network.zones: got",
        "one zone for each of network.private_subnet_ids",
    ),
    (
        {"network": EXISTING | {"zones": ["eu-central-1a", "eu-central-1a"]}},
        "network.zones: got",
        "two different ones at least",
    ),
    (
        {"network": EXISTING | {"public_subnet_ids": ["subnet-11111111"]}},
        "network.public_subnet_ids: got",
        "subnets that are not private_subnet_ids",
    ),
    (
        {"network": {"egress": "endpoints"}},
        "network.egress: got 'endpoints'",
        "set image.windows_updates to false",
    ),
    (
        {"network": {"egress": "endpoints"}, "image": {"windows_updates": False}, "api": PUBLIC},
        "network.egress: got 'endpoints'",
        "needs public subnets",
    ),
    (
        {
            "network": {"egress": "endpoints"},
            "image": {"windows_updates": False},
            "api": PUBLIC | {"load_balancer": "internal"},
        },
        "network.egress: got 'endpoints'",
        "the issuer's keys",
    ),
    ({"api": PUBLIC | {"jwt_issuer": None}}, "api.jwt_issuer: got None", "because api.auth is jwt"),
    ({"api": PUBLIC | {"jwt_audience": []}}, "api.jwt_audience: got []", "because api.auth is jwt"),
    ({"api": {"jwt_issuer": "https://issuer.example"}}, "api.auth: got 'iam'", "jwt, because"),
    ({"api": {"jwt_audience": ["scanfleet"]}}, "api.auth: got 'iam'", "jwt, because"),
    ({"api": {"jwt_keys_url": "https://issuer.example/keys"}}, "api.auth: got 'iam'", "jwt, because"),
    (
        {"api": PUBLIC | {"load_balancer": "internal", "certificate_arn": None}},
        "api.certificate_arn: got None",
        "because api.auth is jwt",
    ),
    ({"api": {"operators": ["admin"]}}, "api.operators.0: got 'admin'", "because api.auth is iam"),
    (
        {"tenants": {"clinic": {"allowed_prefixes": ["s3://aaa/"], "callers": ["subject"]}}},
        "tenants.clinic.callers.0: got 'subject'",
        "because api.auth is iam",
    ),
    (
        {"api": {"certificate_arn": CERTIFICATE.replace("eu-central-1", "us-east-1")}},
        "api.certificate_arn: got",
        "a certificate in the region eu-central-1",
    ),
    ({"api": PUBLIC | {"certificate_arn": None}}, "api.certificate_arn: got None", "or make it internal"),
    (
        {"api": {"load_balancer": "internet-facing", "certificate_arn": CERTIFICATE}},
        "api.auth: got 'iam'",
        "or make it internal",
    ),
    ({"api": PUBLIC | {"allowed_cidrs": []}}, "api.allowed_cidrs: got []", "who may reach it"),
    ({"api": PUBLIC, "network": EXISTING}, "network.public_subnet_ids: got []", "at least 2"),
    (
        {"pools": {"windows-gpu": {"min_instances": 5, "scale_to_zero": False}}},
        "pools.windows-gpu.min_instances: got 5",
        "at most max_instances (4)",
    ),
    (
        {"pools": {"windows-gpu": {"min_instances": 1}}},
        "pools.windows-gpu.min_instances: got 1",
        "or set scale_to_zero to false",
    ),
    (
        {"pools": {"windows-gpu": {"scale_to_zero": False}}},
        "pools.windows-gpu.min_instances: got 0",
        "at least 1, because scale_to_zero is false",
    ),
    (
        {"pools": {"windows-gpu": {"warm_instances": 5}}},
        "pools.windows-gpu.warm_instances: got 5",
        "at most max_instances (4)",
    ),
    (
        {"pools": {"windows-gpu": {"warm_instances": 1, "spot_percent": 10}}},
        "pools.windows-gpu.warm_instances: got 1",
        "a warm pool cannot hold spot instances; or spot_percent 0",
    ),
    (
        {"pools": {"windows-gpu": {"warm_instances": 1, "instance_types": ["g4dn.xlarge", "g5.xlarge"]}}},
        "pools.windows-gpu.instance_types: got",
        "one type, because warm_instances is set",
    ),
    ({"pools": {"linux-cpu": {}}}, "pools.linux-cpu: got", "only the stage 'local' has machines for it"),
    (
        {"medit": {"initial_version": "4.2"}},
        "medit.initial_version: got '4.2'",
        "set medit.release_bucket too",
    ),
    (
        {"schedules": [SCHEDULE | {"pool": "linux-cpu"}]},
        "schedules.0.pool: got 'linux-cpu'",
        "a pool of this deployment",
    ),
    (
        {"schedules": [SCHEDULE | {"min_instances": 9}]},
        "schedules.0.min_instances: got 9",
        "at most its max_instances",
    ),
    (
        {"schedules": [SCHEDULE, SCHEDULE | {"max_instances": 9}]},
        "schedules.1.at: got",
        "another time than schedules.0",
    ),
    (
        {
            "tenants": {
                "a": {"allowed_prefixes": ["s3://aaa/"], "callers": [ROLE]},
                "b": {"allowed_prefixes": ["s3://bbb/"], "callers": [ROLE]},
            }
        },
        "tenants.b.callers: got",
        "it is in a too",
    ),
    (
        {
            "tenants": {
                "a": {"allowed_prefixes": ["s3://scans/"], "callers": [ROLE]},
                "b": {"allowed_prefixes": ["s3://scans/b/"], "callers": [ROLE + "2"]},
            }
        },
        "tenants.b.allowed_prefixes: got 's3://scans/b/'",
        "a may use s3://scans/",
    ),
    (
        {
            "allowed_prefixes": ["s3://scans/b/"],
            "tenants": {"a": {"allowed_prefixes": ["s3://scans/"], "callers": [ROLE]}},
        },
        "tenants.a.allowed_prefixes: got 's3://scans/'",
        "every caller may use s3://scans/b/",
    ),
    (
        {"allowed_prefixes": [f"s3://bucket-{n}/scans/" for n in range(21)]},
        "allowed_prefixes: got '21 with those of tenants, 5,",
        "name a folder above several",
    ),
    (
        {"allowed_prefixes": [f"s3://bucket/{'x' * 900}{n}/" for n in range(4)]},
        "allowed_prefixes: got '3,",
        "at most 2,800 bytes",
    ),
    (
        {"api": {"operators": [f"{ROLE}-{n}" for n in range(70)]}},
        "api.operators: got '3,",
        "at most 2,800 bytes",
    ),
    (
        {
            "tenants": {
                f"tenant{n}": {
                    "allowed_prefixes": [f"s3://clinics/tenant{n}/"],
                    "callers": [f"{ROLE}-{n}-{m}" for m in range(4)],
                }
                for n in range(14)
            }
        },
        "tenants: got '",
        "give tenants a stage of their own",
    ),
    (
        {"hourly_prices_usd": {f"g4dn.{n}xlarge": 1.2345 for n in range(130)}},
        "hourly_prices_usd: got '3,",
        "at most 2,800 bytes",
    ),
    (
        {"tags": {"Product": "scans", "product": "scanfleet"}},
        "tags.product: got 'scanfleet'",
        "one spelling",
    ),
]


@pytest.mark.parametrize(("values", "start", "advice"), CONFLICTS)
def test_choices_that_exclude_each_other_are_refused_with_what_to_do(values, start, advice):
    message = refusal(**values)

    assert message.startswith(start)
    assert advice in message


# --- Another shape -----------------------------------------------------------------------------------------


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
        (context(network={"vpcid": "x"}), "network.vpcid", "did you mean 'vpc_id'?"),
        (context(pools={"windows-gpu": {"max": 3}}), "pools.windows-gpu.max", "max_instances"),
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


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def places(tree, path=()):
    """Return the path of every value in the tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(found for name, value in items for found in places(value, (*path, name)))]


def config_or_error(tree):
    try:
        return read_config(stage="dev", context=tree)
    except ConfigError as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(places(WHOLE)), value=ANY_JSON)
def test_whatever_stands_in_the_place_of_a_value_there_is_a_configuration_or_one_clear_error(path, value):
    tree = {"values": copy.deepcopy(WHOLE)}
    *outer, last = ("values", *path)
    inside = tree
    for name in outer:
        inside = inside[name]
    inside[last] = value

    outcome = config_or_error({"defaults": {}, "stages": {"dev": tree["values"]}})
    assert isinstance(outcome, DeploymentConfig) or re.fullmatch(r".+: got .*; allowed: .+", outcome)


@settings(max_examples=100, deadline=None)
@given(stage=ANY_JSON, tree=ANY_JSON | st.fixed_dictionaries({"stages": ANY_JSON, "defaults": ANY_JSON}))
def test_whatever_the_context_is_there_is_one_clear_error(stage, tree):
    with pytest.raises(ConfigError, match="; allowed: "):
        read_config(stage=stage, context=tree)
