"""The image that new machines boot before one was built. Never changed: see cdk/first_image.py."""

from aws_cdk import DefaultStackSynthesizer
from constructs import Construct

from cdk.base_stack import BaseStack
from cdk.config import DeploymentConfig
from cdk.first_image import FirstImage


class FirstImageStack(BaseStack):
    """One parameter, in a stack whose template stays the same for ever."""

    def __init__(self, scope: Construct, construct_id: str, *, config: DeploymentConfig) -> None:
        super().__init__(
            scope,
            construct_id,
            config=config,
            contains="the image before the first one",
            # Its rule lists versions of the CDK's bootstrap, which grow with the CDK: a change, too.
            synthesizer=DefaultStackSynthesizer(generate_bootstrap_version_rule=False),
        )
        FirstImage(self, "Parameter", config=config)
