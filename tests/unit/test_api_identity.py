"""Who calls, as the doors say it: ARNs, tokens, and nothing that a client may set."""

import base64
import json
from typing import Any

import pytest
from fastapi import Request

from scanfleet.api.identity import LOCAL_OWNER, Caller
from scanfleet.api.identity_doors import NETWORK_OWNER, identity_provider, principal
from scanfleet.api.places import Places
from scanfleet.api.problems import HttpProblem
from scanfleet.contract import Auth
from scanfleet.errors import ConfigurationError, InvalidRequest
from scanfleet.settings import ApiSettings, load

NOW = 1_800_000_000.0
ISSUER = "https://issuer.example"
ROLE = "arn:aws:iam::111122223333:role/Scans"
CLINIC = {"callers": [ROLE, "dora"], "allowed_prefixes": ["s3://clinic/scans/"]}
CLAIMS = {"sub": "dora", "iss": ISSUER, "aud": "scanfleet", "exp": NOW + 60}


def settings(mode: Auth, **changed: Any) -> ApiSettings:
    facts = {
        "job_table": "jobs",
        "artifacts_bucket": "artifacts",
        "queues": {},
        "allowed_prefixes": ("s3://data/uploads/", "s3://shared/"),
        "uploads_uri": "s3://data/uploads/",
        "auth_mode": mode,
        "jwt_issuer": ISSUER,
        "jwt_audience": ("scanfleet",),
        "operators": ("arn:aws:iam::111122223333:role/ops/Operators", "olga"),
        "tenants": {"clinic": CLINIC},
    }
    return ApiSettings(**(facts | changed))


def identify(mode: Auth, event: dict[str, Any] | None, **changed: Any) -> Caller:
    scope = {"type": "http", "headers": [], "aws.event": event}
    return identity_provider(settings(mode, **changed), clock=lambda: NOW).identify(Request(scope))


def signed_by(arn: object) -> dict[str, Any]:
    return {"requestContext": {"authorizer": {"iam": {"userArn": arn}}}}


def encoded(claims: object) -> str:
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJSUzI1NiJ9.{part}.c2lnbmF0dXJl"


def balanced(*authorizations: str) -> dict[str, Any]:
    headers = {"authorization": list(authorizations)} if authorizations else {}
    return {"requestContext": {"elb": {"targetGroupArn": "arn"}}, "multiValueHeaders": headers}


@pytest.mark.parametrize(
    ("arn", "expected"),
    [
        ("arn:aws:sts::111122223333:assumed-role/Scans/ann", ROLE),
        ("arn:aws:sts::111122223333:assumed-role/Scans/i-0123456789abcdef0", ROLE),
        ("arn:aws:iam::111122223333:role/Scans", ROLE),
        ("arn:aws:iam::111122223333:role/aws-reserved/sso.amazonaws.com/Scans", ROLE),
        ("arn:aws-cn:sts::111122223333:assumed-role/Scans/ann", "arn:aws-cn:iam::111122223333:role/Scans"),
        ("arn:aws:iam::111122223333:user/team/ann", "arn:aws:iam::111122223333:user/ann"),
        ("arn:aws:iam::111122223333:root", "arn:aws:iam::111122223333:root"),
        ("arn:aws:sts::111122223333:federated-user/ann", "arn:aws:sts::111122223333:federated-user/ann"),
        ("some-subject", "some-subject"),
    ],
)
def test_a_session_is_its_role_and_paths_do_not_count(arn, expected):
    assert principal(arn) == expected


def test_one_machine_has_one_operator_whatever_the_event_says():
    caller = identify(Auth.LOCAL, signed_by(ROLE))

    assert (caller.owner, caller.is_operator) == (LOCAL_OWNER, True)


def test_a_signed_caller_of_the_http_api_is_its_role():
    caller = identify(Auth.IAM, signed_by("arn:aws:sts::111122223333:assumed-role/Scans/ann"))

    assert (caller.owner, caller.is_operator) == (ROLE, False)
    assert caller.tenant_prefixes == ("s3://clinic/scans/",)


def test_an_operator_is_known_without_its_path():
    assert identify(Auth.IAM, signed_by("arn:aws:sts::111122223333:assumed-role/Operators/x")).is_operator
    assert not identify(Auth.IAM, signed_by("arn:aws:sts::999999999999:assumed-role/Operators/x")).is_operator


def test_callers_of_a_load_balancer_that_checks_nobody_are_one_owner_and_no_operator():
    caller = identify(Auth.IAM, balanced(f"Bearer {encoded(CLAIMS | {'sub': ROLE})}"))

    assert (caller.owner, caller.is_operator, caller.tenant_prefixes) == (NETWORK_OWNER, False, ())


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"requestContext": {}},
        {"requestContext": {"authorizer": None}},
        {"requestContext": {"authorizer": {"lambda": {"userArn": ROLE}}}},
        {"requestContext": {"authorizer": {"jwt": {"claims": {"sub": "olga"}}}}},
        {"requestContext": {"authorizer": {"iam": None}}},
        signed_by(None),
        signed_by(""),
        signed_by("arn:aws:iam::1:user/" + "x" * 200),
        signed_by("arn:aws:iam::1:user/a\nb"),
    ],
)
def test_without_a_signature_that_the_door_checked_nobody_is_let_in(event):
    with pytest.raises(HttpProblem) as refused:
        identify(Auth.IAM, event)

    assert refused.value.status == 403


def test_a_token_that_the_http_api_checked_names_its_subject():
    event = {"requestContext": {"authorizer": {"jwt": {"claims": {"sub": "olga"}}}}}

    assert identify(Auth.JWT, event) == Caller(owner="olga", is_operator=True)


def test_a_token_that_the_load_balancer_checked_names_its_subject():
    caller = identify(Auth.JWT, balanced(f"Bearer {encoded(CLAIMS)}"))

    assert (caller.owner, caller.is_operator) == ("dora", False)
    assert caller.tenant_prefixes == ("s3://clinic/scans/",)


@pytest.mark.parametrize(
    "claims",
    [
        CLAIMS | {"aud": ["other", "scanfleet"]},
        {name: value for name, value in CLAIMS.items() if name != "aud"} | {"client_id": "scanfleet"},
    ],
)
def test_an_audience_comes_alone_in_a_list_or_as_the_client(claims):
    assert identify(Auth.JWT, balanced(f"bearer {encoded(claims)}")).owner == "dora"


@pytest.mark.parametrize(
    ("authorizations", "reason"),
    [
        ((), "exactly one"),
        (("Basic YW5uOnB3",), "exactly one"),
        (("Bearer not-a-token",), "exactly one"),
        (("Bearer a.%%%.c",), "no JWT"),
        ((f"Bearer {encoded([1])}",), "no JWT"),
        ((f"Bearer {encoded(CLAIMS)}", f"Bearer {encoded(CLAIMS | {'sub': 'olga'})}"), "exactly one"),
        ((f"Bearer {encoded(CLAIMS | {'iss': 'https://other.example'})}",), "another issuer"),
        ((f"Bearer {encoded(CLAIMS | {'exp': NOW})}",), "expired"),
        ((f"Bearer {encoded(CLAIMS | {'exp': 'soon'})}",), "expired"),
        ((f"Bearer {encoded(CLAIMS | {'exp': float('nan')})}",), "expired"),
        ((f"Bearer {encoded(CLAIMS | {'aud': 'other'})}",), "another audience"),
        ((f"Bearer {encoded(CLAIMS | {'aud': None})}",), "another audience"),
        ((f"Bearer {encoded(CLAIMS | {'aud': 1})}",), "another audience"),
        ((f"Bearer {encoded(CLAIMS | {'sub': 7})}",), "no subject"),
        ((f"Bearer {encoded(CLAIMS | {'sub': ''})}",), "no subject"),
        ((f"Bearer {encoded(CLAIMS | {'sub': '..'})}",), "printable"),
    ],
)
def test_another_or_a_broken_token_is_refused_with_its_reason(authorizations, reason):
    with pytest.raises(HttpProblem, match=reason) as refused:
        identify(Auth.JWT, balanced(*authorizations))

    assert refused.value.status == 403


def test_tokens_need_an_issuer_and_an_audience_to_be_compared_with(monkeypatch):
    for name, value in {
        "JOB_TABLE": "jobs",
        "ARTIFACTS_BUCKET": "artifacts",
        "QUEUES": "{}",
        "ALLOWED_PREFIXES": "s3://data/",
        "UPLOADS_URI": "s3://data/uploads/",
        "AUTH_MODE": "jwt",
        "JWT_ISSUER": ISSUER,
    }.items():
        monkeypatch.setenv(f"SCANFLEET_{name}", value)

    with pytest.raises(ConfigurationError, match="SCANFLEET_JWT_AUDIENCE are needed"):
        load(ApiSettings)


@pytest.mark.parametrize(
    ("owner", "folder", "is_allowed"),
    [
        ("dora", "s3://clinic/scans/today/", True),
        ("dora", "s3://clinic/other/", False),
        ("dora", "s3://shared/scans/", True),
        ("dora", "s3://data/uploads/dora/scans/", True),
        ("dora", "s3://data/uploads/olga/scans/", False),
        ("dora", "s3://data/", False),
        ("olga", "s3://clinic/scans/today/", False),
        ("olga", "s3://data/uploads/dora/scans/", True),
    ],
)
def test_a_caller_may_name_its_own_folder_shared_prefixes_and_its_tenants(owner, folder, is_allowed):
    mode = settings(Auth.JWT)
    caller = identify(Auth.JWT, balanced(f"Bearer {encoded(CLAIMS | {'sub': owner})}"))
    places = Places(mode, caller)

    if is_allowed:
        assert str(places.folder(folder, field="source")) == folder
    else:
        with pytest.raises(InvalidRequest):
            places.folder(folder, field="source")
