"""The API's function and its two doors."""

from constructs import Construct

from cdk.base_stack import BaseStack
from cdk.config import DeploymentConfig
from cdk.network import Network
from cdk.system import System


class ApiStack(BaseStack):
    """The API's function and its two doors."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: DeploymentConfig,
        network: Network,
        system: System,
    ) -> None:
        super().__init__(scope, construct_id, config=config, contains="the API")
