"""The image pipeline: what is built, where, when, and what happens to the result and to old results.

component documents -> recipe -> build machine -> validate -> snapshot -> test machine -> distribution
                                                                          AMI, its SSM parameter, Fast Launch
"""

from datetime import timedelta
from typing import Any

from aws_cdk import RemovalPolicy, Stack
from aws_cdk.aws_events import CfnRule
from aws_cdk.aws_iam import CfnInstanceProfile
from aws_cdk.aws_imagebuilder import (
    CfnImagePipeline,
    CfnImageRecipe,
    CfnInfrastructureConfiguration,
)
from aws_cdk.aws_logs import LogGroup
from constructs import Construct

from cdk.agent_bundle import AgentBundle, BundlePart
from cdk.config import DeploymentConfig, PoolConfig
from cdk.image_components import (
    Part,
    component_configuration,
    content_version,
    image_parts,
    make_component,
    recipe_content,
)
from cdk.image_delivery import ImageCleanUp, ImageDelivery, Place
from cdk.image_execution_role import ExecutionRole
from cdk.image_roles import build_role, starter_role
from cdk.image_versions import ImageVersions
from cdk.launch_template import gp3_iops
from cdk.logs import RETENTION
from cdk.network import Network
from scanfleet.contract import PRODUCT, Pool, fleet_name

ROOT_DEVICE = "/dev/sda1"
TEST_LIMIT = timedelta(hours=6)
"""The whole test stage. Image Builder takes 60 to 1440 minutes."""
FAILURES_UNTIL_DISABLED = 5
"""A schedule that fails this often in a row stops: each failure costs hours of a GPU machine."""


class ImagePipeline(Construct):
    """Builds the pool's image on a schedule, and whenever the active release's parameter is written."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: DeploymentConfig,
        pool: Pool,
        network: Network,
        versions: ImageVersions,
        release_parameter_name: str,
    ) -> None:
        super().__init__(scope, construct_id)
        self._config, self._pool, self._network, self._versions = config, pool, network, versions
        self._stack = Stack.of(self)
        self.name = fleet_name(config.stage, pool)
        """Of pipeline, recipe and images: EventBridge rules and people find a fleet's images by it."""
        self._release_parameter = release_parameter_name
        bundle = AgentBundle(self, "AgentBundle")
        self.log_group = self._make_log_group()
        role = build_role(
            self,
            "MachineRole",
            config=config,
            log_group_arn=self.log_group.log_group_arn,
            files=[self._arn_of(part) for part in (bundle.wheelhouse, bundle.source)],
        )
        profile = CfnInstanceProfile(self, "MachineProfile", roles=[role.role_name])
        place = Place(subnet_id=self._subnet_id, security_group_id=network.builders.security_group_id)
        delivery = ImageDelivery(
            self, "Delivery", config=config, pool=pool, name=self.name, tags=self._own_tags, place=place
        )
        self.recipe = self._make_recipe(
            image_parts(self._stack, config=config, versions=versions, bundle=bundle)
        )
        infrastructure = self._make_infrastructure(profile, place)
        execution = ExecutionRole(
            self,
            "Execution",
            config=config,
            machine_role_arn=role.role_arn,
            place=place,
            log_group_arn=self.log_group.log_group_arn,
            launch_template_id=delivery.fast_launch_template_id,
        )
        self.pipeline = self._make_pipeline(infrastructure, delivery, execution)
        # The role's policy is a resource of its own, and a build may start at once.
        self.pipeline.node.add_dependency(execution, role)
        ImageCleanUp(
            self,
            "CleanUp",
            name=self.name,
            tags=self._own_tags,
            recipe=self.recipe,
            kept_images=config.image.kept_images,
        )
        self.release_rule = self._start_on_release()

    def _make_pipeline(
        self,
        infrastructure: CfnInfrastructureConfiguration,
        delivery: ImageDelivery,
        execution: ExecutionRole,
    ) -> CfnImagePipeline:
        return CfnImagePipeline(
            self,
            "Pipeline",
            name=self.name,
            description=f"Scanfleet {self._config.stage}: the image of {self._pool}",
            image_recipe_arn=self.recipe.attr_arn,
            infrastructure_configuration_arn=infrastructure.attr_arn,
            distribution_configuration_arn=delivery.configuration.attr_arn,
            execution_role=execution.role.role_arn,
            image_tests_configuration=CfnImagePipeline.ImageTestsConfigurationProperty(
                image_tests_enabled=True, timeout_minutes=int(TEST_LIMIT.total_seconds() // 60)
            ),
            enhanced_image_metadata_enabled=True,
            image_tags=self._own_tags,
            schedule=CfnImagePipeline.ScheduleProperty(
                schedule_expression=self._config.image.schedule,
                # Not at each match: AWS publishes the base image anew with each month's updates.
                pipeline_execution_start_condition="EXPRESSION_MATCH_AND_DEPENDENCY_UPDATES_AVAILABLE",
                auto_disable_policy=CfnImagePipeline.AutoDisablePolicyProperty(
                    failure_count=FAILURES_UNTIL_DISABLED
                ),
            ),
            status="ENABLED",
        )

    @property
    def _pool_config(self) -> PoolConfig:
        return self._config.pools[self._pool]

    @property
    def _own_tags(self) -> dict[str, str]:
        return {f"{PRODUCT}:stage": self._config.stage, f"{PRODUCT}:pool": self._pool.value}

    @property
    def _subnet_id(self) -> str:
        subnets = self._network.vpc.select_subnets(subnets=self._network.private_subnets.subnets)
        return subnets.subnet_ids[0]

    def _arn_of(self, part: BundlePart) -> str:
        return f"arn:{self._stack.partition}:s3:::{part.bucket_name}/{part.object_key}"

    def _make_log_group(self) -> LogGroup:
        """Image Builder writes to this name; it exists before, so that it has a retention."""
        return LogGroup(
            self,
            "Log",
            log_group_name=f"/aws/imagebuilder/{self.name}",
            retention=RETENTION[self._config.log_retention_days],
            # A first deployment that fails leaves no group of this name in the next one's way.
            removal_policy=(
                RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
                if self._config.retain_data
                else RemovalPolicy.DESTROY
            ),
        )

    def _make_recipe(self, parts: list[Part]) -> CfnImageRecipe:
        base = self._versions
        parent = (
            f"arn:{self._stack.partition}:imagebuilder:{self._stack.region}:aws:image/"
            f"{base.base_image}/{base.base_image_version}"
        )
        components = {
            part.name: make_component(self, part.name, stage=self._config.stage, versions=base)
            for part in parts
        }
        volume: dict[str, Any] = {
            "encrypted": True,
            "volume_type": "gp3",
            "volume_size": self._pool_config.root_volume_gib,
            "throughput": self._pool_config.root_volume_throughput_mibps,
            "iops": gp3_iops(self._pool_config.root_volume_throughput_mibps),
            "delete_on_termination": True,
        }
        content = recipe_content(
            self._stack,
            {
                "parent": parent,
                "volume": volume,
                "components": [[part.name, components[part.name].version, part.values] for part in parts],
            },
        )
        return CfnImageRecipe(
            self,
            "Recipe",
            name=self.name,
            version=content_version(base.recipe, content),
            parent_image=parent,
            components=[component_configuration(components[part.name], part.values) for part in parts],
            block_device_mappings=[
                CfnImageRecipe.InstanceBlockDeviceMappingProperty(
                    device_name=ROOT_DEVICE,
                    ebs=CfnImageRecipe.EbsInstanceBlockDeviceSpecificationProperty(**volume),
                )
            ],
        )

    def _make_infrastructure(
        self, profile: CfnInstanceProfile, place: Place
    ) -> CfnInfrastructureConfiguration:
        return CfnInfrastructureConfiguration(
            self,
            "Infrastructure",
            name=self.name,
            instance_profile_name=profile.ref,
            # Built and tested on the type that the fleet prefers: the driver needs its GPU.
            instance_types=[self._pool_config.instance_types[0]],
            subnet_id=place.subnet_id,
            security_group_ids=[place.security_group_id],
            instance_metadata_options=CfnInfrastructureConfiguration.InstanceMetadataOptionsProperty(
                http_tokens="required", http_put_response_hop_limit=1
            ),
            terminate_instance_on_failure=True,
            resource_tags=self._own_tags,
        )

    def _start_on_release(self) -> CfnRule:
        """Start the pipeline when the active release changes; when the stack is new, that is its first image.

        Sources: Image Builder user guide, "Use EventBridge rules with Image Builder pipelines"; Systems
        Manager user guide, "Parameter Store events".
        """
        starter = starter_role(self, "StarterRole", pipeline_arn=self.pipeline.attr_arn)
        rule = CfnRule(
            self,
            "OnRelease",
            name=f"{self.name}-release",
            description=f"A release was activated: build the image of {self._pool}",
            event_pattern={
                "source": ["aws.ssm"],
                "detail-type": ["Parameter Store Change"],
                "detail": {"name": [self._release_parameter], "operation": ["Create", "Update"]},
            },
            state="ENABLED",
            targets=[
                CfnRule.TargetProperty(
                    id="Pipeline",
                    arn=self.pipeline.attr_arn,
                    role_arn=starter.role_arn,
                )
            ],
        )
        rule.node.add_dependency(starter)  # its policy is a resource of its own
        return rule
