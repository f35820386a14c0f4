"""The load balancer: the API's door inside the network, and who asks agents for their health."""

from aws_cdk import Acknowledgment, Duration, RemovalPolicy, Stack, Validations
from aws_cdk.aws_elasticloadbalancingv2 import (
    ApplicationLoadBalancer,
    ApplicationProtocol,
    ApplicationTargetGroup,
    CfnListener,
    CfnListenerRule,
    CfnTargetGroup,
    DesyncMitigationMode,
    HealthCheck,
    TargetType,
)
from aws_cdk.aws_lambda import CfnPermission, Function
from aws_cdk.aws_s3 import BlockPublicAccess, Bucket, BucketEncryption, LifecycleRule, ObjectOwnership
from constructs import Construct

from cdk.buckets import ACCESS_LOGS_KEPT
from cdk.config import AuthMode, DeploymentConfig, Scheme
from cdk.network import Network
from scanfleet.contract import AGENT_STATUS_PORT, PRODUCT, Component, Route

NOBODY = "192.0.2.1/32"
"""An address for documentation, which no client has (RFC 5737)."""
NO_HOST = "agents.invalid"
"""A name that can never be looked up (RFC 2606)."""
IDLE_TIMEOUT = Duration.seconds(60)
TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09"
"""TLS 1.3 and 1.2 with forward secrecy, and post-quantum key exchange for clients that know it. Source: ELB
guide, "Security policies for your Application Load Balancer"."""
ACCESS_LOGS_PREFIX = "load-balancer"
HEALTH_CHECK = HealthCheck(
    path=Route.HEALTH,
    port=str(AGENT_STATUS_PORT),
    interval=Duration.seconds(15),
    timeout=Duration.seconds(5),
    healthy_threshold_count=2,
    unhealthy_threshold_count=4,
    healthy_http_codes="200",
)
"""An agent that does not answer for a minute is taken for dead, and its machine is replaced."""


class LoadBalancer(Construct):
    """An application load balancer whose one listener answers with the API's function.

    It is internal unless the configuration says otherwise, and speaks TLS 1.2 and 1.3 when it has a
    certificate, else HTTP. With auth jwt it refuses requests without a valid token before the function sees
    them. Who may reach it is up to the network's security group. It keeps a log of every request, and refuses
    deletion as the data does.

    `agents` is the target group of the fleets' machines. A target group is checked only while a listener
    uses it; the rule that does so here wants a source address and a host name that nobody has: clients never
    reach agents through it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: DeploymentConfig,
        network: Network,
        function: Function,
    ) -> None:
        super().__init__(scope, construct_id)
        self._config = config
        self.balancer = ApplicationLoadBalancer(
            self,
            "Balancer",
            vpc=network.vpc,
            vpc_subnets=network.load_balancer_subnets,
            internet_facing=config.api.load_balancer is Scheme.INTERNET_FACING,
            security_group=network.load_balancer,
            deletion_protection=config.retain_data,
            drop_invalid_header_fields=True,
            desync_mitigation_mode=DesyncMitigationMode.DEFENSIVE,
            idle_timeout=IDLE_TIMEOUT,
        )
        self.balancer.log_access_logs(self._make_access_logs(), ACCESS_LOGS_PREFIX)
        self.agents = self._make_agents(network)
        self._have_agents_checked(self._listen(self._make_api(function)))

    @property
    def url(self) -> str:
        """Return the address without a path; a certificate's own name takes the place of this one."""
        scheme = "https" if self._config.api.certificate_arn else "http"
        return f"{scheme}://{self.balancer.load_balancer_dns_name}"

    # --- Targets -------------------------------------------------------------------------------------------

    def _make_api(self, function: Function) -> CfnTargetGroup:
        """Return the function's target group, which alone of all load balancers' may call it.

        Its name is fixed, because the permission has to be there before the group is made.
        """
        name = f"{PRODUCT}-{self._config.stage}-{Component.API}"
        permission = CfnPermission(
            self,
            "MayCallFunction",
            action="lambda:InvokeFunction",
            function_name=function.function_arn,
            principal="elasticloadbalancing.amazonaws.com",
            source_account=Stack.of(self).account,
            source_arn=Stack.of(self).format_arn(
                service="elasticloadbalancing", resource="targetgroup", resource_name=f"{name}/*"
            ),
        )
        group = CfnTargetGroup(
            self,
            "Api",
            name=name,
            target_type="lambda",
            targets=[CfnTargetGroup.TargetDescriptionProperty(id=function.function_arn)],
            health_check_enabled=False,  # each check would be a paid call
            target_group_attributes=[
                CfnTargetGroup.TargetGroupAttributeProperty(
                    key="lambda.multi_value_headers.enabled", value="true"
                )
            ],
        )
        group.node.add_dependency(permission)
        return group

    def _make_agents(self, network: Network) -> ApplicationTargetGroup:
        return ApplicationTargetGroup(
            self,
            "Agents",
            vpc=network.vpc,
            target_type=TargetType.INSTANCE,
            port=AGENT_STATUS_PORT,
            protocol=ApplicationProtocol.HTTP,
            deregistration_delay=Duration.seconds(0),  # no client's connection could be cut
            health_check=HEALTH_CHECK,
        )

    # --- The listener --------------------------------------------------------------------------------------

    def _listen(self, api: CfnTargetGroup) -> CfnListener:
        certificate = self._config.api.certificate_arn
        actions = [CfnListener.ActionProperty(type="forward", target_group_arn=api.ref, order=2)]
        if self._config.api.auth is AuthMode.JWT:
            actions.insert(0, self._check_token())
        return CfnListener(
            self,
            "Listener",
            load_balancer_arn=self.balancer.load_balancer_arn,
            port=443 if certificate else 80,
            protocol="HTTPS" if certificate else "HTTP",
            ssl_policy=TLS_POLICY if certificate else None,
            certificates=(
                [CfnListener.CertificateProperty(certificate_arn=certificate)] if certificate else None
            ),
            default_actions=actions,
        )

    def _check_token(self) -> CfnListener.ActionProperty:
        """Source: ELB guide, "Verify JWTs using an Application Load Balancer": RS256 only."""
        api = self._config.api
        assert api.jwt_issuer is not None  # config_conflicts.py has looked
        return CfnListener.ActionProperty(
            type="jwt-validation",
            order=1,
            jwt_validation_config=CfnListener.JwtValidationConfigProperty(
                issuer=api.jwt_issuer,
                jwks_endpoint=api.jwt_keys_url or f"{api.jwt_issuer}/.well-known/jwks.json",
            ),
        )

    def _have_agents_checked(self, listener: CfnListener) -> None:
        CfnListenerRule(
            self,
            "AgentsHealth",
            listener_arn=listener.attr_listener_arn,
            priority=1,
            conditions=[
                CfnListenerRule.RuleConditionProperty(
                    field="source-ip",
                    source_ip_config=CfnListenerRule.SourceIpConfigProperty(values=[NOBODY]),
                ),
                CfnListenerRule.RuleConditionProperty(
                    field="host-header",
                    host_header_config=CfnListenerRule.HostHeaderConfigProperty(values=[NO_HOST]),
                ),
            ],
            actions=[
                CfnListenerRule.ActionProperty(type="forward", target_group_arn=self.agents.target_group_arn)
            ],
        )

    # --- Its log -------------------------------------------------------------------------------------------

    def _make_access_logs(self) -> Bucket:
        """Source: ELB guide, "Enable access logs": the bucket may be encrypted with S3's own keys only."""
        bucket = Bucket(
            self,
            "AccessLogs",
            encryption=BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            block_public_access=BlockPublicAccess.BLOCK_ALL,
            object_ownership=ObjectOwnership.BUCKET_OWNER_ENFORCED,
            removal_policy=RemovalPolicy.RETAIN if self._config.retain_data else RemovalPolicy.DESTROY,
            lifecycle_rules=[
                LifecycleRule(id="old-access-logs", expiration=Duration.days(ACCESS_LOGS_KEPT.days))
            ],
        )
        Validations.of(bucket).acknowledge(
            Acknowledgment(
                id="AwsSolutions-S1",
                reason="A bucket that receives access logs; logging its own would have no end.",
            )
        )
        return bucket
