"""The HTTP API: the API's door for callers with AWS or JWT identities, wherever they are."""

import json

from aws_cdk import Duration, RemovalPolicy
from aws_cdk.aws_apigatewayv2 import (
    CfnStage,
    HttpApi,
    HttpStage,
    IHttpRouteAuthorizer,
    PayloadFormatVersion,
    ThrottleSettings,
)
from aws_cdk.aws_apigatewayv2_authorizers import HttpIamAuthorizer, HttpJwtAuthorizer
from aws_cdk.aws_apigatewayv2_integrations import HttpLambdaIntegration
from aws_cdk.aws_lambda import Function
from aws_cdk.aws_logs import LogGroup
from constructs import Construct

from cdk.config import AuthMode, DeploymentConfig
from cdk.logs import RETENTION
from scanfleet.contract import PRODUCT, Component

INTEGRATION_TIMEOUT = Duration.seconds(29)
"""Above the function's own, below API Gateway's 30 s."""
ACCESS_LOG = {
    "requestId": "$context.requestId",
    "ip": "$context.identity.sourceIp",
    "caller": "$context.identity.userArn",
    "subject": "$context.authorizer.claims.sub",
    "time": "$context.requestTimeEpoch",
    "method": "$context.httpMethod",
    "path": "$context.path",
    "status": "$context.status",
    "length": "$context.responseLength",
    "latencyMs": "$context.responseLatency",
    "functionLatencyMs": "$context.integrationLatency",
    "error": "$context.error.message",
    "functionError": "$context.integrationErrorMessage",
    "authorizerError": "$context.authorizer.error",
}
"""One line for each request, refused ones too; no query string. Source: API Gateway developer guide,
"Customize HTTP API access logs"."""


class HttpDoor(Construct):
    """An HTTP API whose every route wants a signature (iam) or a token (jwt) and then calls the function.

    It is throttled to the configuration's rate, logs each request, and answers no other origin (no CORS).
    Events have the payload format 2.0.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, config: DeploymentConfig, function: Function
    ) -> None:
        super().__init__(scope, construct_id)
        self.api = HttpApi(
            self,
            "Api",
            api_name=f"{PRODUCT}-{config.stage}-{Component.API}",
            description=f"Scanfleet {config.stage}: the API",
            create_default_stage=False,
            default_authorizer=_authorizer(config),
            default_integration=HttpLambdaIntegration(
                "Function",
                function,
                payload_format_version=PayloadFormatVersion.VERSION_2_0,
                timeout=INTEGRATION_TIMEOUT,
            ),
        )
        rate = config.api.requests_per_second
        self._stage = HttpStage(
            self,
            "Stage",
            http_api=self.api,
            stage_name="$default",
            auto_deploy=True,
            detailed_metrics_enabled=True,
            throttle=ThrottleSettings(rate_limit=rate, burst_limit=2 * rate),
        )
        self._log_requests(config)

    @property
    def url(self) -> str:
        """Return the address without a path."""
        return self.api.api_endpoint

    def _log_requests(self, config: DeploymentConfig) -> None:
        group = LogGroup(
            self,
            "AccessLogs",
            retention=RETENTION[config.log_retention_days],
            removal_policy=RemovalPolicy.RETAIN if config.retain_data else RemovalPolicy.DESTROY,
        )
        stage = self._stage.node.default_child
        assert isinstance(stage, CfnStage)
        stage.access_log_settings = CfnStage.AccessLogSettingsProperty(
            destination_arn=group.log_group_arn, format=json.dumps(ACCESS_LOG)
        )


def _authorizer(config: DeploymentConfig) -> IHttpRouteAuthorizer:
    if config.api.auth is AuthMode.IAM:
        return HttpIamAuthorizer()
    assert config.api.jwt_issuer is not None  # config_conflicts.py has looked
    return HttpJwtAuthorizer(
        "Tokens", config.api.jwt_issuer, jwt_audience=list(config.api.jwt_audience), authorizer_name="tokens"
    )
