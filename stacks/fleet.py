"""The pools' machines, what scales them, and what finishes the jobs that got stuck."""

from aws_cdk.aws_elasticloadbalancingv2 import ITargetGroup
from constructs import Construct

from cdk.agent_bundle import AgentBundle
from cdk.base_stack import BaseStack
from cdk.config import DeploymentConfig
from cdk.controller import ControlledFleet, Controller
from cdk.fleet import IMAGES, Fleet
from cdk.lambda_function import DependenciesLayer
from cdk.network import Network
from cdk.sweeper import Sweeper
from cdk.system import System
from scanfleet.contract import Pool


class FleetStack(BaseStack):
    """One fleet for each pool that has machines on AWS; the controller and the sweeper serve all pools."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: DeploymentConfig,
        network: Network,
        system: System,
        agents: ITargetGroup,
    ) -> None:
        super().__init__(scope, construct_id, config=config, contains="the machines")
        bundle = AgentBundle(self, "AgentBundle")
        self.fleets = {
            pool: Fleet(
                self,
                _FLEET_IDS[pool],
                config=config,
                pool=pool,
                network=network,
                system=system,
                bundle=bundle,
                target_group=agents.target_group_arn,
            )
            for pool in config.pools
            if pool in IMAGES
        }
        layer = DependenciesLayer(self, "Packages", config=config)
        Sweeper(self, "Sweeper", system=system, layer=layer)
        Controller(
            self,
            "Controller",
            system=system,
            layer=layer,
            fleets=[
                ControlledFleet(
                    pool=pool,
                    launch_template_id=fleet.template.id,
                    agent_role=fleet.role,
                    subnet_ids=[subnet.subnet_id for subnet in network.private_subnets.subnets or ()],
                    security_group_id=network.agents.security_group_id,
                )
                for pool, fleet in self.fleets.items()
            ],
        )


_FLEET_IDS = {Pool.WINDOWS_GPU: "WindowsGpuFleet"}
"""Written out, because construct IDs are permanent."""
