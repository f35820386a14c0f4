"""The API stack's promises: who reaches the function, what it may do, what is logged, what is refused."""

import json
from typing import Any

import pytest

from cdk import lambda_package
from cdk.config import ConfigError
from scanfleet.contract import AGENT_STATUS_PORT, Auth, Env, Pool, Route
from tests.support.template import StackTemplate, flat

CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/00000000-0000-0000-0000-000000000000"
TOKENS = {
    "auth": "jwt",
    "certificate_arn": CERTIFICATE,
    "jwt_issuer": "https://issuer.example",
    "jwt_audience": ["scanfleet", "other"],
    "operators": ["olga"],
}
PUBLIC = TOKENS | {
    "load_balancer": "internet-facing",
    "allowed_cidrs": ["203.0.113.0/24"],
    "web_acl": True,
    "requests_per_second": 20,
    "live_events": False,
    "reserved_concurrency": 7,
}
WITHOUT_EVENTS = {"live_events": False}
CLINIC = {
    "allowed_prefixes": ["s3://clinic/scans/", "s3://whole/"],
    "callers": ["arn:aws:iam::123456789012:role/clinic"],
}


@pytest.fixture(scope="session")
def plain(stack) -> StackTemplate:
    """As cdk.json has it: internal, signed by IAM; but without live events (test_live_events.py)."""
    return stack("dev", "api", api=WITHOUT_EVENTS)


@pytest.fixture(scope="session")
def public(stack) -> StackTemplate:
    """On the internet, with tokens."""
    return stack("prod", "api", api=PUBLIC)


def function(template: StackTemplate) -> dict[str, Any]:
    return template.only("AWS::Lambda::Function").properties


def environment(template: StackTemplate) -> dict[str, str]:
    return {n: flat(v) for n, v in function(template)["Environment"]["Variables"].items()}


def statements(template: StackTemplate) -> dict[str, dict[str, Any]]:
    policy = template.only("AWS::IAM::Policy").properties["PolicyDocument"]
    return {statement.get("Sid", "XRay"): statement for statement in policy["Statement"]}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def attributes(template: StackTemplate, kind: str, name: str) -> dict[str, Any]:
    resource = template.only(f"AWS::ElasticLoadBalancingV2::{kind}").properties
    return {a["Key"]: a["Value"] for a in resource[name]}


def target_group(template: StackTemplate, target_type: str) -> Any:
    [found] = [
        group
        for group in template.all("AWS::ElasticLoadBalancingV2::TargetGroup")
        if group.properties["TargetType"] == target_type
    ]
    return found


# --- The function ------------------------------------------------------------------------------------------


def test_the_function_runs_the_pinned_python_on_arm64_and_leaves_room_for_others(plain):
    facts = function(plain)

    assert (facts["Runtime"], facts["Architectures"]) == ("python3.11", ["arm64"])
    assert facts["FunctionName"] == "scanfleet-dev-api"
    assert facts["ReservedConcurrentExecutions"] == 50
    assert facts["TracingConfig"] == {"Mode": "Active"}
    assert facts["LoggingConfig"] == {"LogGroup": "/scanfleet/dev/api"}
    assert facts["Timeout"] < 30, "API Gateway gives up after 30 s"


def test_in_the_local_stage_it_is_built_for_this_machine(stack):
    import platform
    import sys

    facts = function(stack("local", "api", api=WITHOUT_EVENTS))

    assert facts["Runtime"] == f"python{sys.version_info[0]}.{sys.version_info[1]}"
    assert facts["Architectures"] == ["x86_64" if platform.machine() == "x86_64" else "arm64"]


def test_it_is_told_who_may_do_what(stack, public):
    tenants = stack(
        "dev", "api", api=WITHOUT_EVENTS, tenants={"clinic": CLINIC}, allowed_prefixes=["s3://shared/"]
    )

    assert environment(public)[Env.AUTH_MODE] == Auth.JWT
    assert environment(public)[Env.JWT_ISSUER] == "https://issuer.example"
    assert environment(public)[Env.JWT_AUDIENCE] == "scanfleet,other"
    assert environment(public)[Env.OPERATORS] == "olga"
    assert environment(tenants)[Env.AUTH_MODE] == Auth.IAM
    assert json.loads(environment(tenants)[Env.TENANTS]) == {"clinic": CLINIC}


def test_receipts_count_with_the_operators_prices_where_there_are_some(stack):
    priced = stack("dev", "api", api=WITHOUT_EVENTS, hourly_prices_usd={"g4dn.xlarge": 0.6})

    assert json.loads(environment(priced)[Env.HOURLY_PRICES]) == {"g4dn.xlarge": 0.6}
    assert Env.HOURLY_PRICES not in environment(stack("dev", "api", api=WITHOUT_EVENTS))


def test_nobody_gets_the_whole_data_bucket_or_a_tenants_prefix_by_default(stack):
    template = stack(
        "dev", "api", api=WITHOUT_EVENTS, tenants={"clinic": CLINIC}, allowed_prefixes=["s3://shared/"]
    )

    everybody = environment(template)[Env.ALLOWED_PREFIXES].split(",")
    assert len(everybody) == 2
    assert everybody[0].endswith("/uploads/")
    assert everybody[1] == "s3://shared/"


def test_so_many_tenants_that_lambda_would_refuse_them_stop_the_synth(stack):
    many = {
        f"tenant{n}": {"allowed_prefixes": [f"s3://bucket-{n}/"], "callers": [f"arn:aws:iam::1:role/r{n}"]}
        for n in range(60)
    }

    with pytest.raises(ConfigError, match=r"tenants: got .* at most .* environment"):
        stack("dev", "api", api=WITHOUT_EVENTS, tenants=many)


@pytest.mark.parametrize("for_host", [False, True])
def test_without_the_built_packages_the_synth_says_what_to_run(monkeypatch, tmp_path, for_host):
    monkeypatch.setattr(lambda_package, "ROOT", tmp_path)
    for name in ("LAYER", "HOST_LAYER"):
        monkeypatch.setattr(lambda_package, name, tmp_path / "layer.zip")

    with pytest.raises(ConfigError, match=r"layer.zip: got 'no such file'.*make setup"):
        lambda_package.dependencies(for_host=for_host)


# --- Its role ----------------------------------------------------------------------------------------------


def test_the_role_names_every_action_and_deletes_nothing_but_dead_letters(public):
    found = statements(public)
    actions = [action for s in found.values() for action in listed(s["Action"])]

    assert not any("*" in action for action in actions)
    assert {sid for sid, s in found.items() if "Delete" in str(s["Action"])} == {"HandleDeadLetters"}
    assert sorted({action.split(":")[0] for action in actions}) == [
        "dynamodb",
        "kms",
        "logs",
        "s3",
        "sqs",
        "ssm",
        "xray",
    ]


def test_only_tracing_has_no_resource_of_its_own(plain):
    unnamed = [sid for sid, s in statements(plain).items() if "*" in listed(s["Resource"])]

    assert unnamed == ["XRay"]


def test_it_writes_to_the_uploads_only_and_reads_what_callers_may_read(stack):
    found = statements(stack("dev", "api", api=WITHOUT_EVENTS, tenants={"clinic": CLINIC}))

    writes = [
        r for s in found.values() if "s3:PutObject" in listed(s["Action"]) for r in listed(s["Resource"])
    ]
    assert [flat(resource).rpartition("/uploads/")[2] for resource in writes] == ["*"]
    assert flat(found["SignDownloadsOf0"]["Resource"]) == "arn:aws:s3:::clinic/scans/*"
    assert found["ListFilesOf0"]["Condition"] == {"StringLike": {"s3:prefix": ["scans/*"]}}
    assert flat(found["SignDownloadsOf1"]["Resource"]) == "arn:aws:s3:::whole/*"
    assert "Condition" not in found["ListFilesOf1"]


def test_it_puts_jobs_into_queues_and_cannot_take_them(plain):
    assert listed(statements(plain)["QueueJobs"]["Action"]) == ["sqs:GetQueueAttributes", "sqs:SendMessage"]


def test_it_takes_messages_of_the_dead_letter_queues_only(plain):
    found = statements(plain)
    taking = [sid for sid, s in found.items() if "sqs:ReceiveMessage" in listed(s["Action"])]
    handled = [str(resource) for resource in listed(found["HandleDeadLetters"]["Resource"])]

    assert taking == ["HandleDeadLetters"]
    assert len(handled) == len(Pool) - 1
    assert all("DeadLetters" in resource for resource in handled)


# --- The load balancer -------------------------------------------------------------------------------------


def test_the_load_balancer_is_internal_and_careful(plain):
    balancer = plain.only("AWS::ElasticLoadBalancingV2::LoadBalancer").properties
    settings = attributes(plain, "LoadBalancer", "LoadBalancerAttributes")

    assert balancer["Scheme"] == "internal"
    assert settings["routing.http.drop_invalid_header_fields.enabled"] == "true"
    assert settings["deletion_protection.enabled"] == "true"
    assert settings["access_logs.s3.enabled"] == "true"


def test_the_local_stage_can_be_taken_down(stack):
    settings = attributes(stack("local", "api", api=WITHOUT_EVENTS), "LoadBalancer", "LoadBalancerAttributes")

    assert settings["deletion_protection.enabled"] == "false"


def test_access_logs_go_to_a_closed_bucket_that_only_the_service_writes(plain):
    bucket = plain.only("AWS::S3::Bucket")
    policy = plain.only("AWS::S3::BucketPolicy").properties["PolicyDocument"]["Statement"]
    allowed = [s for s in policy if s["Effect"] == "Allow"]

    assert bucket.is_retained
    assert set(bucket.properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert plain.refuses_plain_http(bucket)
    assert allowed
    assert all(s["Principal"] != "*" and s["Principal"] != {"AWS": "*"} for s in allowed)
    assert {a for s in allowed for a in listed(s["Action"])} <= {"s3:PutObject", "s3:GetBucketAcl"}


def test_without_a_certificate_it_speaks_http_and_with_one_modern_tls_only(plain, public):
    bare = plain.only("AWS::ElasticLoadBalancingV2::Listener").properties
    safe = public.only("AWS::ElasticLoadBalancingV2::Listener").properties

    assert (bare["Port"], bare["Protocol"]) == (80, "HTTP")
    assert (safe["Port"], safe["Protocol"]) == (443, "HTTPS")
    assert safe["Certificates"] == [{"CertificateArn": CERTIFICATE}]
    assert safe["SslPolicy"].startswith("ELBSecurityPolicy-TLS13-1-2-Res")
    assert public.only("AWS::ElasticLoadBalancingV2::LoadBalancer").properties["Scheme"] == "internet-facing"


def test_tokens_are_checked_before_anything_is_forwarded(public):
    actions = public.only("AWS::ElasticLoadBalancingV2::Listener").properties["DefaultActions"]

    first, second = sorted(actions, key=lambda action: action["Order"])
    assert (first["Type"], second["Type"]) == ("jwt-validation", "forward")
    assert first["JwtValidationConfig"] == {
        "Issuer": "https://issuer.example",
        "JwksEndpoint": "https://issuer.example/.well-known/jwks.json",
    }


def test_another_address_of_the_keys_is_taken(stack):
    keys = "https://keys.example/set.json"
    template = stack("dev", "api", api=TOKENS | {"jwt_keys_url": keys})

    [check, _] = template.only("AWS::ElasticLoadBalancingV2::Listener").properties["DefaultActions"]
    assert check["JwtValidationConfig"]["JwksEndpoint"] == keys


def test_every_request_goes_to_the_function_with_all_its_headers(plain):
    group = target_group(plain, "lambda")
    [action] = plain.only("AWS::ElasticLoadBalancingV2::Listener").properties["DefaultActions"]

    assert action["TargetGroupArn"] == {"Ref": group.logical_id}
    assert group.properties["TargetGroupAttributes"] == [
        {"Key": "lambda.multi_value_headers.enabled", "Value": "true"}
    ]


def test_agents_are_health_checked_but_no_client_is_sent_to_them(plain):
    group = target_group(plain, "instance")
    rule = plain.only("AWS::ElasticLoadBalancingV2::ListenerRule").properties
    conditions = {condition["Field"]: condition for condition in rule["Conditions"]}

    assert group.properties["Port"] == AGENT_STATUS_PORT
    assert group.properties["HealthCheckPath"] == Route.HEALTH
    assert rule["Actions"] == [{"TargetGroupArn": {"Ref": group.logical_id}, "Type": "forward"}]
    assert conditions["source-ip"]["SourceIpConfig"]["Values"] == ["192.0.2.1/32"]
    assert conditions["host-header"]["HostHeaderConfig"]["Values"] == ["agents.invalid"]


# --- Who may call the function -----------------------------------------------------------------------------


def test_only_our_own_doors_may_call_the_function(plain):
    permissions = [p.properties for p in plain.all("AWS::Lambda::Permission")]
    sources = {p["Principal"]: flat(p["SourceArn"]) for p in permissions}

    assert set(sources) == {"apigateway.amazonaws.com", "elasticloadbalancing.amazonaws.com"}
    name = target_group(plain, "lambda").properties["Name"]
    assert sources["elasticloadbalancing.amazonaws.com"].endswith(f":targetgroup/{name}/*")
    assert {p["Action"] for p in permissions} == {"lambda:InvokeFunction"}


def test_the_permission_is_there_before_the_function_is_registered(plain):
    group = target_group(plain, "lambda")
    [permission] = [
        p.logical_id
        for p in plain.all("AWS::Lambda::Permission")
        if p.properties["Principal"] == "elasticloadbalancing.amazonaws.com"
    ]

    assert permission in group.body["DependsOn"]


@pytest.mark.parametrize("name", ["plain", "public"])
def test_every_route_of_the_http_api_wants_a_caller(request, name):
    template = request.getfixturevalue(name)
    expected = {"plain": "AWS_IAM", "public": "JWT"}[name]

    routes = [route.properties for route in template.all("AWS::ApiGatewayV2::Route")]
    assert {route["RouteKey"] for route in routes} == {"$default"}
    assert {route["AuthorizationType"] for route in routes} == {expected}


def test_tokens_of_other_issuers_or_audiences_are_refused(public):
    authorizer = public.only("AWS::ApiGatewayV2::Authorizer").properties

    assert authorizer["JwtConfiguration"] == {
        "Issuer": "https://issuer.example",
        "Audience": ["scanfleet", "other"],
    }
    assert authorizer["IdentitySource"] == ["$request.header.Authorization"]


def test_the_http_api_is_throttled_logged_and_open_to_no_other_origin(plain, public):
    stage = public.only("AWS::ApiGatewayV2::Stage").properties
    settings = stage["DefaultRouteSettings"]
    log = plain.only("AWS::Logs::LogGroup")

    assert (settings["ThrottlingRateLimit"], settings["ThrottlingBurstLimit"]) == (20, 40)
    assert "CorsConfiguration" not in plain.only("AWS::ApiGatewayV2::Api").properties
    assert log.properties["RetentionInDays"] == 90
    access = plain.only("AWS::ApiGatewayV2::Stage").properties["AccessLogSettings"]
    assert "$context.status" in access["Format"]
    assert "query" not in access["Format"].lower()
    assert plain.only("AWS::ApiGatewayV2::Integration").properties["PayloadFormatVersion"] == "2.0"


# --- The web ACL -------------------------------------------------------------------------------------------


def test_the_web_acl_is_there_when_it_is_wanted(plain, public):
    assert plain.all("AWS::WAFv2::WebACL") == []
    rules = {rule["Name"]: rule for rule in public.only("AWS::WAFv2::WebACL").properties["Rules"]}
    association = public.only("AWS::WAFv2::WebACLAssociation").properties

    assert set(rules) >= {"AWSManagedRulesCommonRuleSet", "TooManyRequests"}
    assert "Block" in rules["TooManyRequests"]["Action"]
    assert len({rule["Priority"] for rule in rules.values()}) == len(rules)
    balancer = public.only("AWS::ElasticLoadBalancingV2::LoadBalancer").logical_id
    assert association["ResourceArn"] == {"Ref": balancer}


def test_tokens_stay_out_of_the_web_acls_log(public):
    logging = public.only("AWS::WAFv2::LoggingConfiguration").properties

    assert logging["RedactedFields"] == [{"SingleHeader": {"Name": "authorization"}}]
    [group] = [g for g in public.all("AWS::Logs::LogGroup") if "LogGroupName" in g.properties]
    assert group.properties["LogGroupName"] == "aws-waf-logs-scanfleet-prod"
