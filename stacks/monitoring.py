"""Dashboards, alarms and saved queries."""

from constructs import Construct

from cdk.base_stack import BaseStack
from cdk.config import DeploymentConfig
from cdk.system import System


class MonitoringStack(BaseStack):
    """Dashboards, alarms and saved queries."""

    def __init__(
        self, scope: Construct, construct_id: str, *, config: DeploymentConfig, system: System
    ) -> None:
        super().__init__(scope, construct_id, config=config, contains="dashboards and alarms")
