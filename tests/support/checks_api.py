"""Checks of the two ways in: the load balancer and the HTTP API."""

from collections.abc import Iterator

from cdk.config import AuthMode, Scheme
from scanfleet import contract
from tests.support.deployment import Deployment
from tests.support.findings import Finding

BALANCER, LISTENER = "AWS::ElasticLoadBalancingV2::LoadBalancer", "AWS::ElasticLoadBalancingV2::Listener"
TARGETS, ROUTE = "AWS::ElasticLoadBalancingV2::TargetGroup", "AWS::ApiGatewayV2::Route"
STAGE = "AWS::ApiGatewayV2::Stage"
AUTHORIZATION = {AuthMode.IAM: "AWS_IAM", AuthMode.JWT: "JWT"}


def _found(rule: str, where: str, detail: str = "") -> Finding:
    return Finding(tool="doors", rule=rule, where=where, detail=detail)


def load_balancer(deployment: Deployment) -> Iterator[Finding]:
    """The load balancer faces whom the configuration says, speaks TLS where it can, and logs requests."""
    api = deployment.config.api
    for where, balancer in deployment.everywhere(BALANCER):
        scheme = balancer.properties.get("Scheme")
        if scheme != api.load_balancer:
            yield _found("SCHEME", where, f"{scheme}, not {api.load_balancer}")
        attributes = {a["Key"]: a["Value"] for a in balancer.properties.get("LoadBalancerAttributes", [])}
        for name in ("access_logs.s3.enabled", "routing.http.drop_invalid_header_fields.enabled"):
            if attributes.get(name) != "true":
                yield _found("ATTRIBUTE", where, f"{name} {attributes.get(name)}")
    for where, listener in deployment.everywhere(LISTENER):
        is_tls = listener.properties.get("Protocol") == "HTTPS"
        if is_tls is not bool(api.certificate_arn) or (
            not is_tls and api.load_balancer is not Scheme.INTERNAL
        ):
            yield _found("PROTOCOL", where, str(listener.properties.get("Protocol")))


def agents_health(deployment: Deployment) -> Iterator[Finding]:
    """The load balancer asks agents on the contract's port and path, over the rule that uses their group."""
    agents = {
        where: group
        for where, group in deployment.everywhere(TARGETS)
        if group.properties.get("TargetType") == "instance"
    }
    if len(agents) != 1:
        yield _found("NO_AGENTS", "api", f"{len(agents)} target groups of machines")
    for where, group in agents.items():
        properties = group.properties
        for name, wanted in (
            ("HealthCheckPath", contract.Route.HEALTH),
            ("HealthCheckPort", str(contract.AGENT_STATUS_PORT)),
            ("Port", contract.AGENT_STATUS_PORT),
        ):
            if properties.get(name) != wanted:
                yield _found("HEALTH_CHECK", where, f"{name} {properties.get(name)}, not {wanted}")
        used = [
            rule
            for _, rule in deployment.everywhere("AWS::ElasticLoadBalancingV2::ListenerRule")
            if {"Ref": group.logical_id} in [a.get("TargetGroupArn") for a in rule.properties["Actions"]]
        ]
        if not used:
            yield _found("UNUSED", where, "a target group that no listener uses is not checked")


def http_api(deployment: Deployment) -> Iterator[Finding]:
    """The HTTP API has routes, each asks who calls; stages limit requests and log them."""
    wanted = AUTHORIZATION.get(deployment.config.api.auth)
    by_ticket = [
        {"Ref": api.logical_id}
        for _, api in deployment.everywhere("AWS::ApiGatewayV2::Api")
        if api.properties["ProtocolType"] == "WEBSOCKET"
    ]
    # The WebSocket API's function asks for a ticket itself.
    routes = [
        (where, route)
        for where, route in deployment.everywhere(ROUTE)
        if route.properties["ApiId"] not in by_ticket
    ]
    if not routes:
        yield _found("NO_ROUTE", "api")
    for where, route in routes:
        asked = route.properties.get("AuthorizationType", "NONE")
        if asked != wanted:
            yield _found("ANYONE", where, f"{route.properties.get('RouteKey')}: {asked}, not {wanted}")
    for where, stage in deployment.everywhere(STAGE):
        limits = stage.properties.get("DefaultRouteSettings", {})
        if not limits.get("ThrottlingRateLimit") or not limits.get("ThrottlingBurstLimit"):
            yield _found("UNLIMITED", where)
        if not stage.properties.get("AccessLogSettings"):
            yield _found("NO_LOG", where)
