"""AWS WAF in front of the load balancer, for those who switch it on."""

from aws_cdk import RemovalPolicy
from aws_cdk.aws_logs import LogGroup
from aws_cdk.aws_wafv2 import CfnLoggingConfiguration, CfnWebACL, CfnWebACLAssociation
from constructs import Construct

from cdk.config import DeploymentConfig
from cdk.logs import RETENTION
from scanfleet.contract import PRODUCT

REQUESTS_PER_FIVE_MINUTES = 10_000
"""From one address, on average 33 a second: far more than a client that waits for its jobs needs."""
COUNTED_ONLY = ("SizeRestrictions_BODY",)
"""Refuses bodies above 8 KB; a job's settings and tags may be larger, and the app has its own limit."""
LOG_GROUP_PREFIX = "aws-waf-logs-"
"""WAF writes to groups of this name only. Source: WAF developer guide, "Sending protection pack (web ACL)
traffic logs to an Amazon CloudWatch Logs log group"."""


class ApiWebAcl(Construct):
    """AWS's common rules and list of bad addresses, and a limit for each address. It logs what it refuses.

    Tokens stay out of its log.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, config: DeploymentConfig, load_balancer_arn: str
    ) -> None:
        super().__init__(scope, construct_id)
        acl = CfnWebACL(
            self,
            "Acl",
            scope="REGIONAL",
            default_action=CfnWebACL.DefaultActionProperty(allow=CfnWebACL.AllowActionProperty()),
            visibility_config=_visible("Api"),
            rules=[
                _managed(0, "AWSManagedRulesAmazonIpReputationList"),
                _managed(1, "AWSManagedRulesCommonRuleSet", counted_only=COUNTED_ONLY),
                CfnWebACL.RuleProperty(
                    name="TooManyRequests",
                    priority=2,
                    action=CfnWebACL.RuleActionProperty(block=CfnWebACL.BlockActionProperty()),
                    visibility_config=_visible("TooManyRequests"),
                    statement=CfnWebACL.StatementProperty(
                        rate_based_statement=CfnWebACL.RateBasedStatementProperty(
                            aggregate_key_type="IP",
                            limit=REQUESTS_PER_FIVE_MINUTES,
                            evaluation_window_sec=300,
                        )
                    ),
                ),
            ],
        )
        CfnWebACLAssociation(self, "Association", resource_arn=load_balancer_arn, web_acl_arn=acl.attr_arn)
        self._log_refusals(config, acl)

    def _log_refusals(self, config: DeploymentConfig, acl: CfnWebACL) -> None:
        group = LogGroup(
            self,
            "Log",
            log_group_name=f"{LOG_GROUP_PREFIX}{PRODUCT}-{config.stage}",
            retention=RETENTION[config.log_retention_days],
            removal_policy=RemovalPolicy.RETAIN if config.retain_data else RemovalPolicy.DESTROY,
        )
        refused = {"ActionCondition": {"Action": "BLOCK"}}
        CfnLoggingConfiguration(
            self,
            "Logging",
            resource_arn=acl.attr_arn,
            log_destination_configs=[group.log_group_arn],
            redacted_fields=[
                CfnLoggingConfiguration.FieldToMatchProperty(single_header={"Name": "authorization"})
            ],
            logging_filter={
                "DefaultBehavior": "DROP",
                "Filters": [{"Behavior": "KEEP", "Conditions": [refused], "Requirement": "MEETS_ANY"}],
            },
        )


def _managed(priority: int, name: str, *, counted_only: tuple[str, ...] = ()) -> CfnWebACL.RuleProperty:
    counted = CfnWebACL.RuleActionProperty(count=CfnWebACL.CountActionProperty())
    return CfnWebACL.RuleProperty(
        name=name,
        priority=priority,
        override_action=CfnWebACL.OverrideActionProperty(none={}),
        visibility_config=_visible(name),
        statement=CfnWebACL.StatementProperty(
            managed_rule_group_statement=CfnWebACL.ManagedRuleGroupStatementProperty(
                vendor_name="AWS",
                name=name,
                rule_action_overrides=[
                    CfnWebACL.RuleActionOverrideProperty(name=rule, action_to_use=counted)
                    for rule in counted_only
                ],
            )
        ),
    )


def _visible(name: str) -> CfnWebACL.VisibilityConfigProperty:
    return CfnWebACL.VisibilityConfigProperty(
        cloud_watch_metrics_enabled=True, metric_name=name, sampled_requests_enabled=False
    )
