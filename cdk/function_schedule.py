"""What starts a function again and again: a schedule, and the role that may call this one function."""

from datetime import timedelta

from aws_cdk import Duration, Stack
from aws_cdk.aws_iam import PolicyStatement, Role, ServicePrincipal
from aws_cdk.aws_lambda import Function
from aws_cdk.aws_scheduler import CfnSchedule
from constructs import Construct

from scanfleet.contract import PRODUCT, Component, function_name

EVENT_AGE = Duration.minutes(1)
"""A start that comes later than this is the next minute's: also the least that both services allow."""


def start_every(
    scope: Construct, period: timedelta, *, function: Function, stage: str, component: Component, what: str
) -> None:
    """Have the component's function started every `period` (whole minutes), and one start never tried again.

    The next start comes soon, and silence has an alarm. what: the component, for people.
    """
    function.configure_async_invoke(max_event_age=EVENT_AGE, retry_attempts=0)
    stack = Stack.of(scope)
    role = Role(
        scope,
        "SchedulerRole",
        assumed_by=ServicePrincipal(
            "scheduler.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": stack.account}}
        ),
    )
    role.add_to_policy(PolicyStatement(actions=["lambda:InvokeFunction"], resources=[function.function_arn]))
    minutes = int(period.total_seconds() // 60)
    CfnSchedule(
        scope,
        "Schedule",
        name=function_name(stage, component),
        description=f"{PRODUCT} {stage}: starts {what}",
        schedule_expression=f"rate({minutes} minute{'s' if minutes > 1 else ''})",
        flexible_time_window=CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
        target=CfnSchedule.TargetProperty(
            arn=function.function_arn,
            role_arn=role.role_arn,
            retry_policy=CfnSchedule.RetryPolicyProperty(
                maximum_event_age_in_seconds=int(EVENT_AGE.to_seconds()), maximum_retry_attempts=0
            ),
        ),
    )
