"""The parameter that names the image of new machines, before any was built."""

from aws_cdk import Tags
from aws_cdk.aws_ssm import CfnParameter
from constructs import Construct

from cdk.config import DeploymentConfig
from scanfleet.contract import PRODUCT, Parameter, parameter_name

STAGE_TAG = f"{PRODUCT}:stage"
FIRST_IMAGE = "/aws/service/ami-windows-latest/Windows_Server-2022-English-Full-Base"
"""AWS's own parameter with its newest plain Windows image: a launch template needs some image before ours is
built. Source: EC2 user guide, "Reference the latest AMIs using Systems Manager public parameters"."""


class FirstImage(Construct):
    """The parameter AMI_WINDOWS_GPU, seeded with plain Windows.

    CloudFormation resolves the seed anew at every update of its stack, and AWS publishes a new plain Windows
    each month: an update would write that over the image that was built, and the fleet would roll it out. So
    it is alone in its stack, whose template depends on the stage's name and nothing else: never updated.
    Source: CloudFormation user guide, "Get a plaintext value from Systems Manager Parameter Store".
    """

    def __init__(self, scope: Construct, construct_id: str, *, config: DeploymentConfig) -> None:
        super().__init__(scope, construct_id)
        parameter = CfnParameter(
            self,
            "WindowsGpu",
            name=parameter_name(config.stage, Parameter.AMI_WINDOWS_GPU),
            type="String",
            data_type="aws:ec2:image",
            value=f"{{{{resolve:ssm:{FIRST_IMAGE}}}}}",
            description="The image of new instances. Version 1 is plain Windows; image builds write on",
        )
        for name in (*config.tags, STAGE_TAG):
            Tags.of(parameter).remove(name)
