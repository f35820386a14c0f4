"""Every stack is deployed, updated and destroyed by the real CDK command line, in moto's account."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import build
from scanfleet.contract import Pool, fleet_name
from tests.support.moto_cloud import MotoCloud, adapt_to_moto, app_for_moto, moto_cloud

pytestmark = pytest.mark.system

SKIPPED_BY_MOTO = {
    "AWS::ApiGatewayV2::Api",  # this and the next three: tests/system/test_deployed_api.py
    "AWS::ApiGatewayV2::Integration",
    "AWS::ApiGatewayV2::Route",
    "AWS::ApiGatewayV2::Stage",
    "AWS::AutoScaling::ScalingPolicy",  # replayed by tests/synth/test_scaling.py
    "AWS::CloudWatch::Alarm",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::ImageBuilder::Component",  # this and the next five: docs/unproven.md
    "AWS::ImageBuilder::DistributionConfiguration",
    "AWS::ImageBuilder::ImagePipeline",
    "AWS::ImageBuilder::ImageRecipe",
    "AWS::ImageBuilder::InfrastructureConfiguration",
    "AWS::ImageBuilder::LifecyclePolicy",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Logs::QueryDefinition",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::Scheduler::Schedule",
}
"""Types that moto's CloudFormation does not know: their templates are checked, their making is not."""
KEPT = ("data", "network")
STACKS = ("network", "data", "firstimage", "image", "api", "fleet", "monitoring")
STACK_IDS = {stack: "FirstImage" if stack == "firstimage" else stack.title() for stack in STACKS}


@pytest.fixture(scope="module")
def moto(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoCloud]:
    """moto's account."""
    with moto_cloud(repo_root=repo_root, folder=tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture(scope="module")
def synthesized(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the folder of the stage dev's assembly with these settings changed."""

    def synthesize(**settings: Any) -> Path:
        context = json.loads((repo_root / "cdk.json").read_text())["context"]
        # Closing it is a custom resource: its function would have to run, and moto runs no code.
        network = {"close_default_security_group": False}
        context["scanfleet"]["stages"]["dev"].update({"network": network} | settings)
        folder = tmp_path_factory.mktemp("assembly")
        app = app_for_moto(context=context, folder=folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CDK_VALIDATION", "false")
            build(app)
            app.synth()
        adapt_to_moto(folder)
        return folder

    return synthesize


@pytest.fixture(scope="module")
def deployed(moto: MotoCloud, synthesized: Callable[..., Path]) -> Path:
    """Every stack of the stage dev, deployed once."""
    assembly = synthesized()
    moto.deploy(assembly)
    return assembly


def status(moto: MotoCloud, stack: str) -> str:
    found = moto.client("cloudformation").describe_stacks(StackName=f"scanfleet-dev-{stack}")["Stacks"]
    return str(found[0]["StackStatus"])


@pytest.fixture(scope="module")
def updated(moto: MotoCloud, deployed: Path, synthesized: Callable[..., Path]) -> Path:
    """The same after a change of the configuration was deployed over it."""
    del deployed
    assembly = synthesized(pools={"windows-gpu": {"max_instances": 7}}, log_retention_days=30)
    moto.deploy(assembly)
    return assembly


@pytest.fixture(scope="module")
def destroyed(moto: MotoCloud, updated: Path) -> Path:
    """The same after the stacks without state are gone.

    The network stays, too: moto does not take route tables away with a stack, and then keeps their VPC.
    """
    moto.destroy(updated, *(STACK_IDS[stack] for stack in reversed(STACKS) if stack not in KEPT))
    return updated


def statuses(moto: MotoCloud) -> dict[str, str]:
    """Return each live stack's status by its name."""
    found = moto.client("cloudformation").describe_stacks()["Stacks"]
    return {stack["StackName"]: stack["StackStatus"] for stack in found}


def group(moto: MotoCloud) -> dict[str, Any]:
    """Return the Auto Scaling group of windows-gpu."""
    (found,) = moto.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    return dict(found)


def test_every_stack_is_created(moto, deployed):
    assert statuses(moto) == {f"scanfleet-dev-{stack}": "CREATE_COMPLETE" for stack in STACKS}


def test_moto_makes_every_kind_of_resource_but_those_that_it_is_known_to_skip(moto, deployed):
    wanted = {
        resource["Type"]
        for path in deployed.glob("*.template.json")
        for resource in json.loads(path.read_text())["Resources"].values()
    }
    pages = moto.client("cloudformation").get_paginator("list_stack_resources")
    made = {
        resource["ResourceType"]
        for stack in STACKS
        for page in pages.paginate(StackName=f"scanfleet-dev-{stack}")
        for resource in page["StackResourceSummaries"]
    }

    assert wanted - made <= SKIPPED_BY_MOTO, "deployed nowhere: prove it another way, then name it here"
    assert not SKIPPED_BY_MOTO - wanted, "named, but in no template"


def test_the_fleet_is_there_and_empty(moto, deployed):
    fleet = group(moto)

    assert fleet["AutoScalingGroupName"] == fleet_name("dev", Pool.WINDOWS_GPU)
    assert (fleet["MinSize"], fleet["MaxSize"], fleet["Instances"]) == (0, 4, [])


def test_the_fleets_machines_would_start_with_session_tokens_only_and_no_key_pair(moto, deployed):
    ec2 = moto.client("ec2")
    name = fleet_name("dev", Pool.WINDOWS_GPU)
    (version,) = ec2.describe_launch_template_versions(LaunchTemplateName=name)["LaunchTemplateVersions"]
    data = version["LaunchTemplateData"]

    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert "KeyName" not in data


def test_a_changed_setting_arrives_by_a_second_deploy(moto, updated):
    assert group(moto)["MaxSize"] == 7


def test_a_second_deploy_keeps_the_jobs_queues_and_files(moto, deployed, updated):
    before, after = (
        {
            name: resource["Type"]
            for name, resource in json.loads((folder / "Data.template.json").read_text())["Resources"].items()
            if resource["Type"] in {"AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SQS::Queue"}
        }
        for folder in (deployed, updated)
    )

    assert after == before


def test_destroying_the_rest_leaves_the_data_alone(moto, destroyed):
    assert set(statuses(moto)) == {f"scanfleet-dev-{stack}" for stack in KEPT}
    assert moto.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"] == []
    assert len(moto.client("dynamodb").list_tables()["TableNames"]) == 1
