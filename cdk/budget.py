"""The monthly budget: told at 80 %, at 100 %, and when the forecast exceeds it."""

from aws_cdk.aws_budgets import CfnBudget
from aws_cdk.aws_sns import ITopic
from constructs import Construct

from cdk.config import DeploymentConfig
from scanfleet.contract import PRODUCT, Alarm, alarm_name

STAGE_TAG = f"{PRODUCT}:stage"


class Budget(Construct):
    """Counts the cost of everything that carries the stage's tag.

    The account's owner has to activate the tag as a cost allocation tag once; until then it counts nothing.
    Source: Cost Management user guide, "Activating user-defined cost allocation tags".
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: DeploymentConfig,
        monthly_usd: int,
        topic: ITopic,
    ) -> None:
        super().__init__(scope, construct_id)
        subscriber = CfnBudget.SubscriberProperty(subscription_type="SNS", address=topic.topic_arn)
        CfnBudget(
            self,
            "Monthly",
            budget=CfnBudget.BudgetDataProperty(
                budget_name=alarm_name(config.stage, Alarm.BUDGET),
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=CfnBudget.SpendProperty(amount=monthly_usd, unit="USD"),
                # Source: Budgets API reference, Budget: tags are "user:<key>$<value>".
                cost_filters={"TagKeyValue": [f"user:{STAGE_TAG}${config.stage}"]},
            ),
            notifications_with_subscribers=[
                CfnBudget.NotificationWithSubscribersProperty(
                    notification=CfnBudget.NotificationProperty(
                        notification_type=kind,
                        comparison_operator="GREATER_THAN",
                        threshold=percent,
                        threshold_type="PERCENTAGE",
                    ),
                    subscribers=[subscriber],
                )
                for kind, percent in (("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100))
            ],
        )
