"""Check that nothing is missing as a whole: the other checks look at what is there."""

from collections.abc import Iterator

from scanfleet.contract import Pool
from tests.support.deployment import COMPONENT, LAUNCH_TEMPLATE, Deployment
from tests.support.findings import Finding

OF_EVERY_STAGE = {
    "network": ("AWS::EC2::SecurityGroup",),
    "data": ("AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SQS::Queue", "AWS::Logs::LogGroup"),
    "api": (
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "AWS::ElasticLoadBalancingV2::Listener",
        "AWS::ApiGatewayV2::Route",
        "AWS::ApiGatewayV2::Stage",
    ),
    "fleet": ("AWS::Lambda::Function", "AWS::Scheduler::Schedule"),
    "monitoring": ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard", "AWS::SNS::Topic"),
}
OF_MACHINES = {
    "image": (
        COMPONENT,
        "AWS::ImageBuilder::ImageRecipe",
        "AWS::ImageBuilder::ImagePipeline",
        "AWS::ImageBuilder::DistributionConfiguration",
        "AWS::ImageBuilder::InfrastructureConfiguration",
        "AWS::ImageBuilder::LifecyclePolicy",
    ),
    "fleet": (LAUNCH_TEMPLATE, "AWS::AutoScaling::AutoScalingGroup", "AWS::AutoScaling::ScalingPolicy"),
}
"""Where the pool windows-gpu is configured."""


def parts(deployment: Deployment) -> Iterator[Finding]:
    """Every stack has what it is for, and there are boot scripts, components and workflows to look at."""
    has_machines = Pool.WINDOWS_GPU in deployment.config.pools
    for wanted in (OF_EVERY_STAGE, OF_MACHINES if has_machines else {}):
        for stack, kinds in wanted.items():
            for kind in kinds:
                if not deployment.stack(stack).all(kind):
                    yield Finding(tool="parts", rule="MISSING", where=stack, detail=kind)
    documents = {"user-data": deployment.user_data, "component": deployment.components}
    for name, found in {**(documents if has_machines else {}), "workflow": deployment.workflows}.items():
        if not found:
            yield Finding(tool="parts", rule="MISSING", where=name)
