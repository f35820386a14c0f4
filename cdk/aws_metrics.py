"""AWS's own metrics that dashboards and alarms use: each spelled once, with the page that documents it.

tests/synth/test_monitoring_stack.py holds the documented names and dimensions against them.
"""

from aws_cdk import Duration
from aws_cdk.aws_cloudwatch import Metric
from aws_cdk.aws_sqs import IQueue

from cdk.metrics import FIVE_MINUTES


def group_metric(fleet: str, name: str, *, period: Duration = FIVE_MINUTES, label: str) -> Metric:
    """Return a metric of an Auto Scaling group, which has to collect group metrics.

    Source: EC2 Auto Scaling user guide, "CloudWatch metrics for Amazon EC2 Auto Scaling".
    """
    return Metric(
        namespace="AWS/AutoScaling",
        metric_name=name,
        dimensions_map={"AutoScalingGroupName": fleet},
        statistic="Average",
        period=period,
        label=label,
    )


def function_metric(
    function: str, name: str, *, statistic: str, period: Duration = FIVE_MINUTES, label: str | None = None
) -> Metric:
    """Return a metric of a Lambda function. Source: Lambda developer guide, "Types of metrics for Lambda"."""
    return Metric(
        namespace="AWS/Lambda",
        metric_name=name,
        dimensions_map={"FunctionName": function},
        statistic=statistic,
        period=period,
        label=label,
    )


def rule_metric(rule: str, *, period: Duration = FIVE_MINUTES, label: str | None = None) -> Metric:
    """Return how often an EventBridge rule matched. Source: EventBridge user guide, "EventBridge metrics"."""
    return Metric(
        namespace="AWS/Events",
        metric_name="TriggeredRules",
        dimensions_map={"RuleName": rule},
        statistic="Sum",
        period=period,
        label=label,
    )


def table_metric(table: str, name: str, *, statistic: str, label: str) -> Metric:
    """Return a metric of a DynamoDB table.

    Source: DynamoDB developer guide, "DynamoDB metrics and dimensions".
    """
    return Metric(
        namespace="AWS/DynamoDB",
        metric_name=name,
        dimensions_map={"TableName": table},
        statistic=statistic,
        period=FIVE_MINUTES,
        label=label,
    )


def load_balancer_metric(full_name: str, name: str, *, statistic: str, label: str) -> Metric:
    """Return a metric of an Application Load Balancer.

    Source: Application Load Balancer guide, "CloudWatch metrics for your Application Load Balancer".
    """
    return Metric(
        namespace="AWS/ApplicationELB",
        metric_name=name,
        dimensions_map={"LoadBalancer": full_name},
        statistic=statistic,
        period=FIVE_MINUTES,
        label=label,
    )


def http_api_metric(api_id: str, name: str, *, statistic: str, label: str) -> Metric:
    """Return a metric of an HTTP API.

    Source: API Gateway developer guide, "Monitor CloudWatch metrics for HTTP APIs".
    """
    return Metric(
        namespace="AWS/ApiGateway",
        metric_name=name,
        dimensions_map={"ApiId": api_id},
        statistic=statistic,
        period=FIVE_MINUTES,
        label=label,
    )


def oldest_message(queue: IQueue, *, period: Duration = FIVE_MINUTES, label: str | None = None) -> Metric:
    """Return the age in seconds of the queue's oldest message that is not deleted: those in flight count.

    Source: SQS developer guide, "Available CloudWatch metrics for Amazon SQS".
    """
    return queue.metric_approximate_age_of_oldest_message(statistic="Maximum", period=period, label=label)


def visible_messages(queue: IQueue, *, period: Duration = FIVE_MINUTES, label: str | None = None) -> Metric:
    """Return how many messages of the queue can be received. Source: as above."""
    return queue.metric_approximate_number_of_messages_visible(
        statistic="Maximum", period=period, label=label
    )
