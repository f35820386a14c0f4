"""The WebSocket API of live events: API Gateway holds the connections, because Lambda cannot."""

import json

from aws_cdk import RemovalPolicy, Stack
from aws_cdk.aws_apigatewayv2 import (
    CfnStage,
    ThrottleSettings,
    WebSocketApi,
    WebSocketStage,
)
from aws_cdk.aws_apigatewayv2_integrations import WebSocketLambdaIntegration
from aws_cdk.aws_logs import LogGroup
from constructs import Construct

from cdk.config import DeploymentConfig
from cdk.events_function import EventsFunction
from cdk.lambda_function import acknowledge
from cdk.logs import RETENTION
from scanfleet.contract import PRODUCT, Component

STAGE_NAME = "live"
ACCESS_LOG = {
    "requestId": "$context.requestId",
    "ip": "$context.identity.sourceIp",
    "time": "$context.requestTimeEpoch",
    "event": "$context.eventType",
    "route": "$context.routeKey",
    "connection": "$context.connectionId",
    "status": "$context.status",
    "error": "$context.error.message",
    "functionError": "$context.integrationErrorMessage",
}
"""One line for each event; no query string, which holds the ticket. Source: API Gateway developer guide,
"Monitor WebSocket API execution with CloudWatch metrics"."""


class WebSocketDoor(Construct):
    """A WebSocket API whose every event calls the function, which lets nobody in without a ticket.

    It is throttled to the configuration's rate, and logs each event.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, config: DeploymentConfig, events: EventsFunction
    ) -> None:
        super().__init__(scope, construct_id)
        self._config = config
        self._api = WebSocketApi(
            self,
            "Api",
            api_name=f"{PRODUCT}-{config.stage}-{Component.EVENTS}",
            description=f"Scanfleet {config.stage}: live events",
            # No message names a route: all go to $default.
            route_selection_expression="$request.body.action",
        )
        for route in ("$connect", "$disconnect", "$default"):
            self._api.add_route(route, integration=WebSocketLambdaIntegration("Function", events.function))
        reason = "$connect takes a one-time ticket, which the authenticated API gives out (docs/events.md)."
        acknowledge(self._api, "AwsSolutions-APIG4", reason)
        rate = config.api.requests_per_second
        self._stage = WebSocketStage(
            self,
            "Stage",
            web_socket_api=self._api,
            stage_name=STAGE_NAME,
            auto_deploy=True,
            detailed_metrics_enabled=True,
            throttle=ThrottleSettings(rate_limit=rate, burst_limit=2 * rate),
        )
        self._log_events()
        connections = f"{self._api.api_id}/{STAGE_NAME}/*/@connections/*"
        events.serve(
            connections_url=self._stage.callback_url,
            connections_arn=Stack.of(self).format_arn(service="execute-api", resource=connections),
        )

    @property
    def url(self) -> str:
        """Return the wss:// address; a client adds its ticket."""
        return self._stage.url

    def _log_events(self) -> None:
        group = LogGroup(
            self,
            "AccessLogs",
            retention=RETENTION[self._config.log_retention_days],
            removal_policy=RemovalPolicy.RETAIN if self._config.retain_data else RemovalPolicy.DESTROY,
        )
        stage = self._stage.node.default_child
        assert isinstance(stage, CfnStage)
        stage.access_log_settings = CfnStage.AccessLogSettingsProperty(
            destination_arn=group.log_group_arn, format=json.dumps(ACCESS_LOG)
        )
