"""The API's function and its two doors: the load balancer, and the HTTP API."""

from aws_cdk import CfnOutput
from constructs import Construct

from cdk.api_doors import Doors
from cdk.api_function import ApiFunction
from cdk.api_web_acl import ApiWebAcl
from cdk.base_stack import BaseStack
from cdk.config import DeploymentConfig
from cdk.events_function import EventsFunction
from cdk.http_api import HttpDoor
from cdk.lambda_function import DependenciesLayer
from cdk.load_balancer import LoadBalancer
from cdk.network import Network
from cdk.system import System
from cdk.websocket_api import WebSocketDoor
from scanfleet.contract import Env


class ApiStack(BaseStack):
    """Every request to the deployment comes in here. It holds no state: it can be replaced at any time."""

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
        layer = DependenciesLayer(self, "Dependencies", config=config)
        function = ApiFunction(self, "Api", system=system, layer=layer).function
        if config.api.live_events:
            events = EventsFunction(self, "Events", system=system, layer=layer)
            websocket = WebSocketDoor(self, "WebSocket", config=config, events=events)
            function.add_environment(Env.EVENTS_URL, websocket.url)
            CfnOutput(self, "WebSocketUrl", value=websocket.url)
        door = HttpDoor(self, "HttpApi", config=config, function=function)
        balancer = LoadBalancer(self, "LoadBalancer", config=config, network=network, function=function)
        if config.api.web_acl:
            arn = balancer.balancer.load_balancer_arn
            ApiWebAcl(self, "WebAcl", config=config, load_balancer_arn=arn)
        self.agents_target_group = balancer.agents
        """Instances of the fleets; the load balancer asks their agents for health and nothing else."""
        self.doors = Doors(load_balancer=balancer.balancer.load_balancer_full_name, http_api=door.api.api_id)
        CfnOutput(self, "HttpApiUrl", value=door.url)
        CfnOutput(self, "LoadBalancerUrl", value=balancer.url)
