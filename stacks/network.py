"""The VPC, its ways to AWS's services, and the security groups."""

from constructs import Construct

from cdk.base_stack import BaseStack
from cdk.config import DeploymentConfig
from cdk.network import Network, zone_names


class NetworkStack(BaseStack):
    """The VPC, its ways to AWS's services, and the security groups."""

    def __init__(self, scope: Construct, construct_id: str, *, config: DeploymentConfig) -> None:
        super().__init__(scope, construct_id, config=config, contains="the network")
        self._zones = zone_names(config)
        self.network = Network(self, "Network", config=config)

    @property
    def availability_zones(self) -> list[str]:
        """Return the zones that a new VPC may use; the CDK's own answer would look them up."""
        return self._zones
