"""The API's function and its two doors."""

from aws_cdk import Duration
from aws_cdk.aws_elasticloadbalancingv2 import (
    ApplicationProtocol,
    ApplicationTargetGroup,
    HealthCheck,
    TargetType,
)
from constructs import Construct

from cdk.base_stack import BaseStack
from cdk.config import DeploymentConfig
from cdk.network import Network
from cdk.system import System
from scanfleet.contract import AGENT_STATUS_PORT, Route


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
        self.agents_target_group = ApplicationTargetGroup(
            self,
            "AgentsTargetGroup",
            vpc=network.vpc,
            target_type=TargetType.INSTANCE,
            port=AGENT_STATUS_PORT,
            protocol=ApplicationProtocol.HTTP,
            deregistration_delay=Duration.seconds(0),
            health_check=HealthCheck(path=Route.HEALTH, port=str(AGENT_STATUS_PORT)),
        )
        """Instances of the fleets; the load balancer asks their agents for health and nothing else."""
