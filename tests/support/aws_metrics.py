"""AWS's own metrics as AWS documents them: namespace -> name -> the dimensions that it is published with.

Only what Scanfleet may use is listed; each namespace names its page. A metric that is missing here has to be
looked up there before it is added.
"""

_GROUP = frozenset({"AutoScalingGroupName"})
_FUNCTION = frozenset({"FunctionName"})
_QUEUE = frozenset({"QueueName"})
_TABLE = frozenset({"TableName"})
_BALANCER = frozenset({"LoadBalancer"})
_API = frozenset({"ApiId"})
_RULE = frozenset({"RuleName"})

DOCUMENTED: dict[str, dict[str, frozenset[str]]] = {
    # EC2 Auto Scaling user guide, "CloudWatch metrics for Amazon EC2 Auto Scaling".
    "AWS/AutoScaling": dict.fromkeys(
        (
            "GroupMinSize",
            "GroupMaxSize",
            "GroupDesiredCapacity",
            "GroupInServiceInstances",
            "GroupPendingInstances",
            "GroupStandbyInstances",
            "GroupTerminatingInstances",
            "GroupTotalInstances",
            "WarmPoolDesiredCapacity",
            "WarmPoolWarmedCapacity",
            "WarmPoolPendingCapacity",
            "WarmPoolTerminatingCapacity",
            "WarmPoolTotalCapacity",
        ),
        _GROUP,
    ),
    # Lambda developer guide, "Types of metrics for Lambda functions".
    "AWS/Lambda": dict.fromkeys(
        ("Invocations", "Errors", "Throttles", "Duration", "ConcurrentExecutions", "IteratorAge"), _FUNCTION
    ),
    # SQS developer guide, "Available CloudWatch metrics for Amazon SQS".
    "AWS/SQS": dict.fromkeys(
        (
            "ApproximateAgeOfOldestMessage",
            "ApproximateNumberOfMessagesVisible",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ),
        _QUEUE,
    ),
    # DynamoDB developer guide, "DynamoDB metrics and dimensions".
    "AWS/DynamoDB": dict.fromkeys(
        (
            "ConsumedReadCapacityUnits",
            "ConsumedWriteCapacityUnits",
            "ReadThrottleEvents",
            "WriteThrottleEvents",
        ),
        _TABLE,
    ),
    # User guide for Application Load Balancers, "CloudWatch metrics for your Application Load Balancer".
    "AWS/ApplicationELB": dict.fromkeys(
        (
            "RequestCount",
            "TargetResponseTime",
            "HTTPCode_Target_4XX_Count",
            "HTTPCode_Target_5XX_Count",
            "HTTPCode_ELB_4XX_Count",
            "HTTPCode_ELB_5XX_Count",
        ),
        _BALANCER,
    ),
    # API Gateway developer guide, "Monitor CloudWatch metrics for HTTP APIs".
    "AWS/ApiGateway": dict.fromkeys(("Count", "4xx", "5xx", "Latency", "IntegrationLatency"), _API),
    # EventBridge user guide, "EventBridge metrics"; rules of the default bus have the rule's name alone.
    "AWS/Events": dict.fromkeys(("TriggeredRules", "Invocations", "FailedInvocations"), _RULE),
}
