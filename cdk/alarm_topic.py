"""Where alarms go: one encrypted topic, with an e-mail subscription if one is configured."""

from aws_cdk import Aws, RemovalPolicy
from aws_cdk.aws_iam import IPrincipal, PolicyStatement, ServicePrincipal
from aws_cdk.aws_kms import Key
from aws_cdk.aws_sns import Topic
from aws_cdk.aws_sns_subscriptions import EmailSubscription
from constructs import Construct

_OWN_ACCOUNT = {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}}


class AlarmTopic(Construct):
    """A topic that CloudWatch, EventBridge and AWS Budgets of this account may publish to, over TLS only.

    It has a key of its own, because the key that AWS manages for SNS lets no other service publish.
    Source: SNS developer guide, "Encrypting an SNS topic": compatibility with event sources.
    """

    def __init__(self, scope: Construct, construct_id: str, *, name: str, email: str | None) -> None:
        super().__init__(scope, construct_id)
        key = Key(
            self,
            "Key",
            description=f"Messages of {name}",
            enable_key_rotation=True,
            # Nothing that it encrypts is kept: without its topic it would only cost a dollar a month.
            removal_policy=RemovalPolicy.DESTROY,
        )
        self.topic = Topic(
            self, "Topic", topic_name=name, display_name=name, master_key=key, enforce_ssl=True
        )
        for publisher in _publishers():
            self.topic.add_to_resource_policy(
                PolicyStatement(
                    actions=["sns:Publish"], principals=[publisher], resources=[self.topic.topic_arn]
                )
            )
            key.add_to_resource_policy(
                PolicyStatement(
                    actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                    principals=[publisher],
                    resources=["*"],  # in a key's policy, "*" is this key
                )
            )
        if email is not None:
            self.topic.add_subscription(EmailSubscription(email))


def _publishers() -> list[IPrincipal]:
    """Return who publishes. EventBridge takes no conditions in topic policies, the others are held to it.

    Source: EventBridge user guide, "Using resource-based policies": Amazon SNS permissions.
    """
    return [
        ServicePrincipal("events.amazonaws.com"),
        *(
            ServicePrincipal(f"{service}.amazonaws.com", conditions=_OWN_ACCOUNT)
            for service in ("cloudwatch", "budgets")
        ),
    ]
