"""Every template of every kind of stage, as checkers and our rules see it: what they find was agreed on."""

import pytest
from aws_cdk import App, Stack

from app import build
from tests.support.findings import Agreed, Finding, not_agreed, not_needed, read_agreed
from tests.support.full_stage import CLOSED_SETTINGS, SETTINGS
from tests.support.guard_rules import guard_template
from tests.support.policies import Document, documents, guard
from tests.support.static_checks import cfn_lint, checkov, parliament, write_templates

STAGES = {"dev": {}, "prod": {}, "full": SETTINGS, "closed": CLOSED_SETTINGS}
"""As cdk.json has them, with every option, and with what excludes those."""


@pytest.fixture(scope="module")
def templates(assembly):
    """Stage -> stage/stack -> template."""
    return {
        stage: {
            made.stack_name.removeprefix("scanfleet-").replace("-", "/"): made.template
            for made in assembly(stage, **settings).stacks
            if "Resources" in made.template
        }
        for stage, settings in STAGES.items()
    }


@pytest.fixture(scope="module")
def files(templates, tmp_path_factory):
    """The templates of two stages as files: together they have every part that the others have."""
    chosen = templates["full"] | templates["closed"]
    return sorted(write_templates(tmp_path_factory.mktemp("templates"), chosen))


@pytest.fixture(scope="module")
def policies(templates) -> list[Document]:
    """Every policy document of every stage."""
    return [document for stacks in templates.values() for document in documents(stacks)]


@pytest.fixture(scope="module")
def agreed() -> list[Agreed]:
    """What was agreed on, each with its reason."""
    return read_agreed()


def shown(findings: list[Finding]) -> str:
    return "\n".join(f"{f.tool} {f.rule} {f.where}: {f.detail}" for f in findings)


def assert_agreed(findings: list[Finding], agreed: list[Agreed], *, tool: str) -> None:
    """Fail for a finding that nobody agreed on, and for an agreement that nothing needs."""
    assert not (new := not_agreed(findings, agreed)), shown(new)
    assert not_needed(findings, agreed, tool=tool) == []


def test_cfn_lint_finds_nothing_but_what_was_agreed_on(files, agreed):
    assert_agreed(cfn_lint(files), agreed, tool="cfn-lint")


def test_checkov_finds_nothing_but_what_was_agreed_on(files, agreed):
    assert_agreed(checkov(files), agreed, tool="checkov")


def test_parliament_finds_nothing_in_what_roles_may_do_but_what_was_agreed_on(policies, agreed):
    identity = {document.where: document.body for document in policies if document.kind == "identity"}

    assert len(identity) > 3
    assert_agreed(parliament(identity), agreed, tool="parliament")


def test_our_own_rules_find_nothing_but_what_was_agreed_on(templates, policies, agreed):
    found = [finding for document in policies for finding in guard(document)]
    found += [
        f
        for stacks in templates.values()
        for name, body in stacks.items()
        for f in guard_template(name, body)
    ]

    assert_agreed(found, agreed, tool="guard")


@pytest.mark.parametrize("stage", ["full", "closed"])  # `make synth` does the same for dev
def test_cdk_nag_finds_nothing_that_was_not_acknowledged(context, monkeypatch, stage):
    monkeypatch.delenv("CDK_VALIDATION")
    tree = context["scanfleet"] | {"stages": {stage: STAGES[stage]}}
    app = App(context=context | {"stage": stage, "scanfleet": tree}, analytics_reporting=False)
    build(app)

    made = app.synth()

    assert {stack.stack_name for stack in made.stacks} == {
        s.stack_name for s in app.node.children if Stack.is_stack(s)
    }


def test_every_agreement_has_a_reason(agreed):
    assert [entry for entry in agreed if len(entry.reason) < 20 or not entry.where] == []


# --- The rules themselves ----------------------------------------------------------------------------------


def allow(**statement: object) -> dict:
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Resource": "arn:aws:s3:::a/*", **statement}],
    }


CARELESS = [
    ("identity", allow(Action="*"), "ACTION_WILDCARD"),
    ("identity", allow(Action=["s3:GetObject", "s3:*"]), "ACTION_WILDCARD"),
    ("identity", allow(NotAction="s3:GetObject"), "NOT"),
    ("identity", allow(Action="s3:GetObject", NotResource="arn:aws:s3:::b/*"), "NOT"),
    ("resource", allow(Action="s3:GetObject", Principal="*"), "ANYONE"),
    ("resource", allow(Action="s3:GetObject", Principal={"AWS": ["*"]}), "ANYONE"),
    ("trust", allow(Action="sts:AssumeRole", Principal={"AWS": "arn:aws:iam::999999999999:root"}), "TRUST"),
]


@pytest.mark.parametrize(("kind", "body", "rule"), CARELESS)
def test_a_careless_policy_is_seen(kind, body, rule):
    assert rule in {finding.rule for finding in guard(Document("stack/It", kind, body))}


def test_a_policy_written_out_by_action_and_resource_is_not():
    body = allow(Action=["s3:GetObject", "s3:PutObject"])

    assert list(guard(Document("stack/It", "identity", body))) == []


def test_parliament_sees_unknown_actions_and_every_resource_where_one_could_be_named():
    found = parliament(
        {
            "a": allow(Action="sqs:Fly", Resource="*"),
            "b": allow(Action="sqs:SendMessage", Resource="*"),
            "c": allow(Action="ec2:DescribeInstances", Resource="*"),
            "d": allow(Action="s3:GetObject", Resource="arn:aws:s3:::bucket"),
        }
    )

    assert {(f.where, f.rule) for f in found} == {
        ("a", "UNKNOWN_ACTION"),
        ("b", "RESOURCE_STAR"),
        ("d", "RESOURCE_MISMATCH"),
    }


def template(kind: str, **properties: object) -> dict:
    return {"Resources": {"It": {"Type": kind, "Properties": properties}}}


GOOD_METADATA = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
CARELESS_TEMPLATES = [
    (
        template("AWS::EC2::SecurityGroup", SecurityGroupIngress=[{"CidrIp": "0.0.0.0/0", "FromPort": 3389}]),
        "OPEN_TO_EVERYONE",
    ),
    (template("AWS::EC2::SecurityGroupIngress", CidrIpv6="::/0", IpProtocol="tcp"), "OPEN_TO_EVERYONE"),
    (template("AWS::EC2::SecurityGroupIngress", CidrIp="10.0.0.0/8", IpProtocol="-1"), "EVERY_PORT"),
    (template("AWS::EC2::Subnet", MapPublicIpOnLaunch=True), "PUBLIC_ADDRESS"),
    (template("AWS::EC2::LaunchTemplate", LaunchTemplateData={}), "IMDSV1"),
    (
        template(
            "AWS::EC2::LaunchTemplate", LaunchTemplateData={"MetadataOptions": {"HttpTokens": "required"}}
        ),
        "IMDS_HOPS",
    ),
    (
        template(
            "AWS::EC2::LaunchTemplate", LaunchTemplateData={"MetadataOptions": GOOD_METADATA, "KeyName": "me"}
        ),
        "KEY_PAIR",
    ),
    (
        template(
            "AWS::EC2::LaunchTemplate",
            LaunchTemplateData={"NetworkInterfaces": [{"AssociatePublicIpAddress": True}]},
        ),
        "PUBLIC_ADDRESS",
    ),
    (
        template(
            "AWS::EC2::LaunchTemplate",
            LaunchTemplateData={"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {}}]},
        ),
        "PLAIN_VOLUME",
    ),
    (template("AWS::ImageBuilder::InfrastructureConfiguration", KeyPair="me"), "KEY_PAIR"),
    (template("AWS::EC2::Instance"), "OLD_MACHINE"),
]


@pytest.mark.parametrize(("body", "rule"), CARELESS_TEMPLATES)
def test_a_careless_template_is_seen(body, rule):
    assert rule in {finding.rule for finding in guard_template("stack", body)}


def test_findings_are_matched_by_rule_place_and_detail():
    entry = Agreed(tool="t", rule="R", where=("data/*",), detail="a*", reason="because it has to be")
    there = Finding(tool="t", rule="R", where="data/Queue", detail="abc")
    elsewhere = Finding(tool="t", rule="R", where="fleet/Queue", detail="abc")

    assert not_agreed([there, elsewhere], [entry]) == [elsewhere]
    assert not_needed([elsewhere], [entry], tool="t") == [entry]
