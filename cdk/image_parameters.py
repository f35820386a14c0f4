"""SSM parameters that are seeded here and written by others from then on."""

from aws_cdk import Tags
from aws_cdk.aws_ssm import CfnParameter, StringParameter
from constructs import Construct

from cdk.config import DeploymentConfig
from scanfleet.contract import NO_RELEASE, PRODUCT, Parameter, parameter_name

STAGE_TAG = f"{PRODUCT}:stage"
FIRST_IMAGE = "/aws/service/ami-windows-latest/Windows_Server-2022-English-Full-Base"
"""AWS's own parameter with its newest plain Windows image: a launch template needs some image before ours is
built. Source: EC2 user guide, "Reference the latest AMIs using Systems Manager public parameters"."""


class ImageParameters(Construct):
    """The active release, and the image that new instances boot.

    CloudFormation writes a parameter's value again whenever its resource changes, and would take back what
    `scanfleet release activate` and image builds wrote since. So nothing of these two ever changes but by the
    setting that seeds them: fixed descriptions, and no tags.
    """

    def __init__(self, scope: Construct, construct_id: str, *, config: DeploymentConfig) -> None:
        super().__init__(scope, construct_id)
        self.release = CfnParameter(
            self,
            "MeditRelease",
            name=parameter_name(config.stage, Parameter.MEDIT_RELEASE),
            type="String",
            value=config.medit.initial_version or NO_RELEASE,
            description="The active release of the closed program. Written by: scanfleet release activate",
        )
        self.image = CfnParameter(
            self,
            "WindowsGpuImage",
            name=parameter_name(config.stage, Parameter.AMI_WINDOWS_GPU),
            type="String",
            data_type="aws:ec2:image",
            value=f"{{{{resolve:ssm:{FIRST_IMAGE}}}}}",
            description="The image of new instances. Version 1 is plain Windows; image builds write on",
        )
        for parameter in (self.release, self.image):
            for name in (*config.tags, STAGE_TAG):
                Tags.of(parameter).remove(name)
        if config.medit.release_bucket is not None:
            StringParameter(
                self,
                "ReleaseBucket",
                parameter_name=parameter_name(config.stage, Parameter.RELEASE_BUCKET),
                string_value=config.medit.release_bucket,
                description=f"Scanfleet {config.stage}: {Parameter.RELEASE_BUCKET}",
            )
