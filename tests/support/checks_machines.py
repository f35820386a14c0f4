"""Checks of the machines of a pool: launch template and Auto Scaling group, besides `scaling_rules`."""

from collections.abc import Iterator

from scanfleet import contract
from tests.support.checks_policies import disagreed
from tests.support.deployment import LAUNCH_TEMPLATE, Deployment
from tests.support.findings import Finding
from tests.support.guard_rules import guard_template

GROUP = "AWS::AutoScaling::AutoScalingGroup"


def _found(rule: str, where: str, detail: str = "") -> Finding:
    return Finding(tool="machines", rule=rule, where=where, detail=detail)


def guard_rules(deployment: Deployment) -> Iterator[Finding]:
    """No port open to everyone, no public address, no IMDSv1, no key pair, no plain volume."""
    found = [f for stack, body in deployment.templates.items() for f in guard_template(stack, body)]
    yield from disagreed(deployment, found)


def machine_images(deployment: Deployment) -> Iterator[Finding]:
    """Machines boot the image of their own stage and pool, by the contract's parameter."""
    wanted = contract.parameter_name(deployment.config.stage, contract.Parameter.AMI_WINDOWS_GPU)
    for where, template in deployment.everywhere(LAUNCH_TEMPLATE):
        image = template.properties["LaunchTemplateData"].get("ImageId")
        if where.startswith("fleet/") and image != f"resolve:ssm:{wanted}":
            yield _found("IMAGE", where, str(image))


def groups(deployment: Deployment) -> Iterator[Finding]:
    """A group has its pool's name and bounds, is seen by the load balancer, and gives machines their time."""
    stage = deployment.config.stage
    pools = {contract.fleet_name(stage, pool): config for pool, config in deployment.config.pools.items()}
    for where, group in deployment.everywhere(GROUP):
        properties = group.properties
        pool = pools.get(str(properties.get("AutoScalingGroupName")))
        if pool is None:
            yield _found("NAME", where, str(properties.get("AutoScalingGroupName")))
            continue
        for name, wanted in (
            ("HealthCheckGracePeriod", contract.HEALTH_CHECK_GRACE.total_seconds()),
            ("DefaultInstanceWarmup", contract.INSTANCE_WARM_UP.total_seconds()),
            ("MinSize", str(pool.min_instances)),
            ("MaxSize", str(pool.max_instances)),
        ):
            if properties.get(name) != wanted:
                yield _found("VALUE", where, f"{name} {properties.get(name)}, not {wanted}")
        if len(properties.get("TargetGroupARNs", [])) != 1:
            yield _found("TARGETS", where, "the load balancer does not see these machines")
        if not properties.get("MetricsCollection"):
            yield _found("NO_METRICS", where)
