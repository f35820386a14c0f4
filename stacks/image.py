"""The machine image: its pipeline, the parameter that names it, and the active release."""

from constructs import Construct

from cdk.base_stack import BaseStack
from cdk.config import DeploymentConfig
from cdk.image_parameters import ImageParameters
from cdk.image_pipeline import ImagePipeline
from cdk.image_versions import read_versions
from cdk.network import Network
from cdk.system import System
from scanfleet.contract import Parameter, Pool, parameter_name


class ImageStack(BaseStack):
    """The pipeline of the Windows GPU pool's image."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: DeploymentConfig,
        network: Network,
        system: System,
    ) -> None:
        super().__init__(scope, construct_id, config=config, contains="the machine image")
        del system  # image builds see neither jobs nor their files
        parameters = ImageParameters(self, "Parameters", config=config)
        if Pool.WINDOWS_GPU not in config.pools:
            return
        pipeline = ImagePipeline(
            self,
            "WindowsGpu",
            config=config,
            pool=Pool.WINDOWS_GPU,
            network=network,
            versions=read_versions(),
            release_parameter_name=parameter_name(config.stage, Parameter.MEDIT_RELEASE),
        )
        # Its creation is the event that has the first image built, so whoever listens comes first.
        parameters.release.add_resource_dependency(pipeline.release_rule)
