"""A component's Lambda function: its code and libraries, its role, its log group, its name."""

import platform
import sys
from collections.abc import Mapping
from datetime import timedelta

from aws_cdk import Acknowledgment, ArnFormat, Duration, RemovalPolicy, Stack, Validations
from aws_cdk.aws_iam import Role, ServicePrincipal
from aws_cdk.aws_lambda import Architecture, Function, LayerVersion, Runtime, RuntimeFamily, Tracing
from aws_cdk.aws_logs import LogGroup
from constructs import Construct

from cdk.config import DeploymentConfig
from cdk.grants import accept_wildcards, allow
from cdk.lambda_package import dependencies, runtime_code
from cdk.lambda_zip import PYTHON
from scanfleet.contract import (
    PRODUCT,
    Component,
    Parameter,
    function_name,
    log_group_name,
    parameter_name,
)


class DependenciesLayer(Construct):
    """The packages of requirements-lambda.txt, as `make setup` built them for this stage's machines."""

    def __init__(self, scope: Construct, construct_id: str, *, config: DeploymentConfig) -> None:
        super().__init__(scope, construct_id)
        self.layer = LayerVersion(
            self,
            "Layer",
            code=dependencies(for_host=config.is_local),
            compatible_runtimes=[runtime(config)],
            compatible_architectures=[architecture(config)],
            description=f"{PRODUCT}: requirements-lambda.txt",
            removal_policy=RemovalPolicy.DESTROY,
        )


def scanfleet_function(
    scope: Construct,
    construct_id: str,
    *,
    config: DeploymentConfig,
    component: Component,
    layer: DependenciesLayer,
    handler: str,
    environment: Mapping[str, str],
    timeout: timedelta,
    memory_mib: int,
    reserved_concurrency: int | None = None,
) -> Function:
    """Return the function named `contract.function_name(stage, component)`.

    It runs `handler` (module:function, as "scanfleet.api.lambda_entry.handler") of the runtime's code over
    the layer, writes JSON lines to the component's own log group, traces with X-Ray, and may do nothing else
    until its caller allows it more.
    """
    group = LogGroup.from_log_group_name(
        scope, f"{construct_id}Logs", log_group_name(config.stage, component)
    )
    role = _role(scope, f"{construct_id}Role", config=config, component=component)
    function = Function(
        scope,
        construct_id,
        function_name=function_name(config.stage, component),
        description=f"Scanfleet {config.stage}: {component}",
        code=runtime_code(),
        layers=[layer.layer],
        handler=handler,
        runtime=runtime(config),
        architecture=architecture(config),
        role=role,
        timeout=Duration.seconds(int(timeout.total_seconds())),
        memory_size=memory_mib,
        reserved_concurrent_executions=reserved_concurrency,
        environment=dict(environment),
        tracing=Tracing.ACTIVE,
        log_group=group,
    )
    acknowledge(
        function,
        "AwsSolutions-L1",
        f"Python {'.'.join(map(str, PYTHON))} is the one that every test runs"
        " (docs/decisions/0033-doors-of-the-api.md).",
    )
    return function


def _role(scope: Construct, construct_id: str, *, config: DeploymentConfig, component: Component) -> Role:
    """Return a role that may write to the component's log group, and read which levels are set."""
    role = Role(scope, construct_id, assumed_by=ServicePrincipal("lambda.amazonaws.com"))
    group = Stack.of(scope).format_arn(
        service="logs",
        resource="log-group",
        resource_name=f"{log_group_name(config.stage, component)}:*",
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
    )
    allow(
        role,
        "WriteLogs",
        ["logs:CreateLogStream", "logs:PutLogEvents"],
        [group],
        wildcard="Lambda names a stream for each process",
    )
    levels = parameter_name(config.stage, Parameter.LOG_LEVELS)
    parameter = Stack.of(scope).format_arn(service="ssm", resource="parameter", resource_name=levels[1:])
    allow(role, "ReadLogLevels", ["ssm:GetParameter"], [parameter])
    accept_wildcards(role, ["*"], "Tracing: X-Ray's write actions take no resource.")
    return role


def runtime(config: DeploymentConfig) -> Runtime:
    """Return the pinned Python; in the local stage this process's, because the emulator runs on this host."""
    major, minor = sys.version_info[:2] if config.is_local else PYTHON
    return Runtime(f"python{major}.{minor}", RuntimeFamily.PYTHON)


def architecture(config: DeploymentConfig) -> Architecture:
    """Return arm64, which costs a fifth less for the same memory; in the local stage this host's."""
    if config.is_local and platform.machine().lower() in {"x86_64", "amd64"}:
        return Architecture.X86_64
    return Architecture.ARM_64


def acknowledge(construct: Construct, rule: str, reason: str) -> None:
    """Say why a finding of cdk-nag does not hold for this construct."""
    Validations.of(construct).acknowledge(Acknowledgment(id=rule, reason=reason))
