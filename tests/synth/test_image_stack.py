"""The image stack: what is built where, by whom, when, and what becomes of the result."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from cdk.config_cron import aws_cron
from scanfleet.contract import NO_RELEASE, Parameter, Pool, WindowsPath, fleet_name, parameter_name
from tests.support.awstoe import parameters
from tests.support.template import StackTemplate

NAME = fleet_name("dev", Pool.WINDOWS_GPU)
RELEASES = {"release_bucket": "medit-releases", "initial_version": "2.4.1"}
GOLDEN = "s3://golden-scans/set-1/"


@pytest.fixture
def image(stack: Callable[..., StackTemplate]) -> StackTemplate:
    """The stack as cdk.json has it: no release bucket."""
    return stack("dev", "image")


@pytest.fixture
def whole(stack: Callable[..., StackTemplate]) -> StackTemplate:
    """The stack with a release bucket and a golden set."""
    return stack("dev", "image", medit=RELEASES, image={"golden_prefix": GOLDEN})


def parameter(template: StackTemplate, name: Parameter) -> dict[str, Any]:
    (found,) = [
        p.properties
        for p in template.all("AWS::SSM::Parameter")
        if p.properties["Name"] == parameter_name("dev", name)
    ]
    return found


def recipe(template: StackTemplate) -> dict[str, Any]:
    return template.only("AWS::ImageBuilder::ImageRecipe").properties


def built(template: StackTemplate) -> list[tuple[str, dict[str, Any]]]:
    """The recipe's components in order, each with its parameters' values."""
    by_id = {c.logical_id: c.properties for c in template.all("AWS::ImageBuilder::Component")}
    return [
        (
            by_id[entry["ComponentArn"]["Fn::GetAtt"][0]]["Name"].removeprefix("scanfleet-dev-"),
            {p["Name"]: p["Value"][0] for p in entry.get("Parameters", [])},
        )
        for entry in recipe(template)["Components"]
    ]


def statements(template: StackTemplate, role_part: str) -> list[dict[str, Any]]:
    """The policy statements of the roles whose ID has this part."""
    return [
        statement
        for policy in template.all("AWS::IAM::Policy")
        if any(role_part in role["Ref"] for role in policy.properties["Roles"])
        for statement in policy.properties["PolicyDocument"]["Statement"]
    ]


def actions(template: StackTemplate, role_part: str) -> set[str]:
    found: set[str] = set()
    for statement in statements(template, role_part):
        listed = statement["Action"]
        found |= {listed} if isinstance(listed, str) else set(listed)
    return found


# --- What is built -----------------------------------------------------------------------------------------


def test_the_agent_comes_after_its_python_and_the_tests_come_last(whole):
    assert [name for name, _ in built(whole)] == [
        "windows-updates",
        "nvidia-driver",
        "python",
        "cloudwatch-agent",
        "scanfleet-agent",
        "medit-release",
        "golden-test",
    ]


def test_every_component_gets_a_value_for_each_of_its_parameters_and_no_other(whole):
    documents = {
        c.properties["Name"].removeprefix("scanfleet-dev-"): yaml.safe_load(c.properties["Data"])
        for c in whole.all("AWS::ImageBuilder::Component")
    }

    for name, values in built(whole):
        assert set(values) == set(parameters(documents[name])), name


def test_without_a_release_bucket_nothing_is_fetched_from_one(image):
    names = [name for name, _ in built(image)]

    assert "medit-release" not in names
    assert "medit-releases" not in json.dumps(image.body)
    assert dict(built(image))["golden-test"]["Set"] == "none"


def test_windows_updates_can_be_left_out(stack):
    without = stack("dev", "image", image={"windows_updates": False})

    assert "windows-updates" not in [name for name, _ in built(without)]


def test_the_release_is_chosen_when_the_image_is_built_not_when_the_stack_is_deployed(whole):
    values = dict(built(whole))["medit-release"]

    assert values["VersionParameter"] == parameter_name("dev", Parameter.MEDIT_RELEASE)
    assert values["Bucket"] == "medit-releases"
    assert values["Releases"] == WindowsPath.MEDIT_RELEASES
    assert "2.4.1" not in json.dumps(recipe(whole))


def test_the_golden_set_and_its_time_limit_come_from_the_configuration(stack):
    template = stack("dev", "image", image={"golden_prefix": GOLDEN, "golden_seconds_at_most": 321})

    values = dict(built(template))["golden-test"]

    assert (values["Set"], values["SecondsAtMost"]) == (GOLDEN, "321")


def test_the_base_image_is_awss_own(image):
    assert recipe(image)["ParentImage"] == (
        "arn:aws:imagebuilder:us-east-1:aws:image/windows-server-2022-english-full-base-x86/x.x.x"
    )


def test_the_root_volume_is_encrypted_and_as_large_as_the_fleets(stack):
    pools = {"windows-gpu": {"root_volume_gib": 150, "root_volume_throughput_mibps": 800}}
    (device,) = recipe(stack("dev", "image", pools=pools))["BlockDeviceMappings"]

    assert device["Ebs"] == {
        "Encrypted": True,
        "VolumeType": "gp3",
        "VolumeSize": 150,
        "Throughput": 800,
        "Iops": 3200,
        "DeleteOnTermination": True,
    }


# --- Versions ----------------------------------------------------------------------------------------------


def test_versions_are_what_image_builder_takes(whole):
    versions = [c.properties["Version"] for c in whole.all("AWS::ImageBuilder::Component")]

    for version in [*versions, recipe(whole)["Version"]]:
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert all(int(node) < 2**30 for node in version.split("."))


def test_a_recipe_that_differs_has_another_version_and_an_equal_one_the_same(stack, image, whole):
    bigger = stack("dev", "image", pools={"windows-gpu": {"root_volume_gib": 150}})
    again = stack("dev", "image", monthly_budget_usd=77)

    assert len({recipe(t)["Version"] for t in (image, whole, bigger)}) == 3
    assert recipe(again)["Version"] == recipe(image)["Version"]


def test_a_setting_that_a_component_does_not_see_leaves_its_version(image, whole):
    def versions(template: StackTemplate) -> dict[str, str]:
        found = template.all("AWS::ImageBuilder::Component")
        return {c.properties["Name"]: c.properties["Version"] for c in found}

    assert versions(image).items() <= versions(whole).items()


def test_two_stages_of_an_account_share_no_name(stack):
    def names(stage: str) -> set[str]:
        template = stack(stage, "image")
        return {
            str(resource.properties["Name"])
            for resource in template.resources()
            if resource.kind.startswith(("AWS::ImageBuilder", "AWS::SSM", "AWS::Events"))
        }

    assert not names("dev") & names("prod")


# --- Where and when ----------------------------------------------------------------------------------------


def test_images_are_built_on_the_fleets_own_type_in_a_private_subnet_without_key_pair(stack):
    template = stack("dev", "image", pools={"windows-gpu": {"instance_types": ["g5.2xlarge", "g4dn.xlarge"]}})
    place = template.only("AWS::ImageBuilder::InfrastructureConfiguration").properties

    assert place["InstanceTypes"] == ["g5.2xlarge"]
    assert "Builders" in json.dumps(place["SecurityGroupIds"])
    assert "private" in json.dumps(place["SubnetId"]).lower()
    assert place["InstanceMetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    assert place["TerminateInstanceOnFailure"] is True
    assert "KeyPair" not in place


def test_the_pipeline_runs_on_schedule_with_tests_and_stops_after_failures(stack):
    template = stack("dev", "image", image={"schedule": "cron(30 2 ? * WED *)"})
    pipeline = template.only("AWS::ImageBuilder::ImagePipeline").properties

    expression = pipeline["Schedule"]["ScheduleExpression"]
    assert expression == aws_cron("")(expression) == "cron(30 2 ? * WED *)"
    assert pipeline["Schedule"]["AutoDisablePolicy"]["FailureCount"] == 5
    assert pipeline["ImageTestsConfiguration"]["ImageTestsEnabled"] is True
    assert pipeline["Status"] == "ENABLED"


def test_both_golden_runs_fit_into_the_test_stage(stack):
    longest = 7200
    template = stack("dev", "image", image={"golden_seconds_at_most": longest})
    pipeline = template.only("AWS::ImageBuilder::ImagePipeline").properties
    document = yaml.safe_load(
        next(
            c.properties["Data"]
            for c in template.all("AWS::ImageBuilder::Component")
            if c.properties["Name"].endswith("golden-test")
        )
    )
    step_seconds = document["phases"][-1]["steps"][0]["timeoutSeconds"]

    assert 2 * longest < step_seconds < 60 * pipeline["ImageTestsConfiguration"]["TimeoutMinutes"]


def test_a_release_that_becomes_active_starts_the_pipeline_and_so_does_a_new_stack(image):
    rule = image.only("AWS::Events::Rule")
    (target,) = rule.properties["Targets"]

    assert rule.properties["EventPattern"] == {
        "source": ["aws.ssm"],
        "detail-type": ["Parameter Store Change"],
        "detail": {
            "name": [parameter_name("dev", Parameter.MEDIT_RELEASE)],
            "operation": ["Create", "Update"],
        },
    }
    pipeline = image.only("AWS::ImageBuilder::ImagePipeline").logical_id
    assert target["Arn"] == {"Fn::GetAtt": [pipeline, "Arn"]}
    assert actions(image, "StarterRole") == {"imagebuilder:StartImagePipelineExecution"}
    (seed,) = [
        p
        for p in image.all("AWS::SSM::Parameter")
        if p.properties["Name"] == parameter_name("dev", Parameter.MEDIT_RELEASE)
    ]
    assert rule.logical_id in seed.body["DependsOn"]


def test_builds_log_to_a_group_with_retention(image):
    (group,) = image.all("AWS::Logs::LogGroup")

    assert group.properties["LogGroupName"] == f"/aws/imagebuilder/{NAME}"
    assert group.properties["RetentionInDays"] == 90


# --- What becomes of it ------------------------------------------------------------------------------------


def distribution(template: StackTemplate) -> dict[str, Any]:
    (found,) = template.only("AWS::ImageBuilder::DistributionConfiguration").properties["Distributions"]
    return dict(found)


def test_the_images_id_goes_to_the_parameter_that_the_fleet_reads(image):
    (written,) = distribution(image)["SsmParameterConfigurations"]

    assert written == {
        "ParameterName": parameter_name("dev", Parameter.AMI_WINDOWS_GPU),
        "DataType": "aws:ec2:image",
    }
    assert "ssm:PutParameter" in actions(image, "Execution")


def test_every_image_has_a_name_of_its_own(image):
    assert distribution(image)["AmiDistributionConfiguration"]["Name"].endswith(
        "{{ imagebuilder:buildDate }}"
    )


def test_fast_launch_prepares_in_the_private_subnet_and_can_be_switched_off(stack, image):
    (fast,) = distribution(image)["FastLaunchConfigurations"]
    template = image.only("AWS::EC2::LaunchTemplate").properties["LaunchTemplateData"]

    assert fast["Enabled"] is True
    assert fast["MaxParallelLaunches"] >= 6
    (interface,) = template["NetworkInterfaces"]
    assert interface["AssociatePublicIpAddress"] is False
    assert template["MetadataOptions"]["HttpTokens"] == "required"

    without = stack("dev", "image", image={"fast_launch": False})
    assert "FastLaunchConfigurations" not in distribution(without)
    assert not without.all("AWS::EC2::LaunchTemplate")
    assert "ec2:EnableFastLaunch" not in actions(without, "Execution")


def test_old_images_go_with_their_snapshots_whatever_recipe_made_them(stack):
    template = stack("dev", "image", image={"kept_images": 7})
    policies = [p.properties for p in template.all("AWS::ImageBuilder::LifecyclePolicy")]

    for policy in policies:
        (detail,) = policy["PolicyDetails"]
        assert detail["Filter"] == {"Type": "COUNT", "Value": 7}
        assert detail["ExclusionRules"] == {"Amis": {"LastLaunched": {"Unit": "DAYS", "Value": 30}}}
        assert detail["Action"] == {"Type": "DELETE", "IncludeResources": {"Amis": True, "Snapshots": True}}
    tags = template.only("AWS::ImageBuilder::ImagePipeline").properties["ImageTags"]
    assert tags in [policy["ResourceSelection"].get("TagMap") for policy in policies]
    present = {"Name": NAME, "SemanticVersion": recipe(template)["Version"]}
    assert [present] in [policy["ResourceSelection"].get("Recipes") for policy in policies]


# --- Parameters that others write --------------------------------------------------------------------------


def test_no_release_is_active_until_one_is_configured(image, whole):
    assert parameter(image, Parameter.MEDIT_RELEASE)["Value"] == NO_RELEASE
    assert parameter(whole, Parameter.MEDIT_RELEASE)["Value"] == "2.4.1"
    assert parameter(whole, Parameter.RELEASE_BUCKET)["Value"] == "medit-releases"


def test_a_deploy_never_takes_back_the_release_that_was_activated_since(stack, image):
    # CloudFormation writes the value again whenever a property of the resource changes.
    changed = stack(
        "dev",
        "image",
        tags={"cost-centre": "42"},
        log_retention_days=30,
        image={"kept_images": 9},
        pools={"windows-gpu": {"max_instances": 9}},
    )

    assert parameter(changed, Parameter.MEDIT_RELEASE) == parameter(image, Parameter.MEDIT_RELEASE)


# --- Who may do what ---------------------------------------------------------------------------------------


def test_the_machine_reads_only_what_goes_into_the_image(image, whole):
    assert {a for a in actions(whole, "MachineRole") if a.startswith(("s3:", "ssm:GetP", "dynamodb:"))} == {
        "s3:GetObject",
        "s3:ListBucket",
        "ssm:GetParameter",
    }
    assert "s3:ListBucket" not in actions(image, "MachineRole")
    assert "golden-scans/set-1/*" in json.dumps(statements(whole, "MachineRole"))


def test_nobody_here_sees_jobs_or_their_files(whole):
    text = json.dumps([p.properties for p in whole.all("AWS::IAM::Policy")])

    for service in ("dynamodb:", "sqs:", 'ImportValue": "scanfleet-dev-data'):
        assert service not in text


def test_image_builder_ends_and_changes_only_what_it_made(image):
    guarded = {
        "ec2:TerminateInstances": "ec2:ResourceTag/CreatedBy",
        "ec2:DeregisterImage": "ec2:ResourceTag/CreatedBy",
    }

    for action, key in guarded.items():
        (statement,) = [s for s in statements(image, "Execution") if action in s["Action"]]
        assert statement["Condition"]["StringEquals"] == {key: "EC2 Image Builder"}


def test_image_builder_may_hand_on_one_role_to_machines_and_no_other(image):
    (statement,) = [s for s in statements(image, "Execution") if s["Action"] == "iam:PassRole"]

    assert "MachineRole" in json.dumps(statement["Resource"])
    assert statement["Resource"] != "*"


def test_the_emulators_stage_synthesizes_the_same_pipeline_though_nothing_deploys_it(stack):
    assert stack("local", "image").all("AWS::ImageBuilder::ImagePipeline")
