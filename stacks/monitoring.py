"""What operators look at and what calls them: dashboards, alarms, saved queries, the budget."""

from constructs import Construct

from cdk.alarm_topic import AlarmTopic
from cdk.alarms import Alarms
from cdk.api_doors import Doors
from cdk.aws_events import AwsEvents
from cdk.base_stack import BaseStack
from cdk.budget import Budget
from cdk.config import DeploymentConfig
from cdk.dashboards import Dashboards
from cdk.queries import SavedQueries
from cdk.system import System
from scanfleet.contract import PRODUCT


class MonitoringStack(BaseStack):
    """Reads other stacks' metrics by the names of the contract; it can be thrown away and made again.

    The local stage leaves out what its emulator (MiniStack 1.5.33) refuses to deploy: saved queries, the
    budget, and alarms on metric math (cdk/alarms.py).
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: DeploymentConfig,
        system: System,
        doors: Doors,
    ) -> None:
        super().__init__(scope, construct_id, config=config, contains="dashboards and alarms")
        topic = AlarmTopic(
            self, "AlarmTopic", name=f"{PRODUCT}-{config.stage}-alarms", email=config.alarm_email
        ).topic
        alarms = Alarms(self, "Alarms", system=system, topic=topic)
        AwsEvents(self, "AwsEvents", config=config, topic=topic)
        Dashboards(self, "Dashboards", system=system, alarms=alarms, doors=doors)
        if config.is_local:
            return
        SavedQueries(self, "SavedQueries", config=config)
        if config.monthly_budget_usd is not None:
            Budget(self, "Budget", config=config, monthly_usd=config.monthly_budget_usd, topic=topic)
