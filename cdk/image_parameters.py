"""The release's SSM parameters: seeded here, written by others from then on."""

from aws_cdk import Tags
from aws_cdk.aws_ssm import CfnParameter, StringParameter
from constructs import Construct

from cdk.config import DeploymentConfig
from cdk.first_image import STAGE_TAG
from scanfleet.contract import NO_RELEASE, Parameter, parameter_name


class ImageParameters(Construct):
    """The active release, and the bucket that it is in.

    CloudFormation writes a parameter's value again whenever its resource changes, and would take back what
    `scanfleet release activate` wrote since. So nothing of the release's parameter ever changes but by the
    setting that seeds it: a fixed description, and no tags.
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
        for name in (*config.tags, STAGE_TAG):
            Tags.of(self.release).remove(name)
        if config.medit.release_bucket is not None:
            StringParameter(
                self,
                "ReleaseBucket",
                parameter_name=parameter_name(config.stage, Parameter.RELEASE_BUCKET),
                string_value=config.medit.release_bucket,
                description=f"Scanfleet {config.stage}: {Parameter.RELEASE_BUCKET}",
            )
