"""Where a finished image goes: its AMI, its SSM parameter, Fast Launch; and how old ones go away."""

from collections.abc import Mapping
from dataclasses import dataclass

from aws_cdk import Stack
from aws_cdk.aws_ec2 import CfnLaunchTemplate
from aws_cdk.aws_imagebuilder import CfnDistributionConfiguration, CfnImageRecipe, CfnLifecyclePolicy
from constructs import Construct

from cdk.config import DeploymentConfig
from cdk.image_roles import cleaning_role
from scanfleet.contract import Parameter, Pool, parameter_name

BUILDER = "EC2 Image Builder"
"""Image Builder tags everything that it makes with CreatedBy and this."""
LAUNCHED_KEPT_DAYS = 30
"""An image that a machine booted from so lately stays, however many are newer: after failed rollouts the
fleet still launches an old one. Source: Image Builder user guide, "Exclusion rules"."""
FAST_LAUNCH_SNAPSHOTS = 5
"""Prepared snapshots at most; each start uses one, and it is replaced."""
FAST_LAUNCH_PARALLEL = 6
"""The least that EC2 takes. Source: EC2 API reference, EnableFastLaunch: MaxParallelLaunches."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where machines run while an image is made."""

    subnet_id: str
    security_group_id: str


class ImageDelivery(Construct):
    """The AMI in the deployment's own account and region, named in the parameter that the fleet reads."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: DeploymentConfig,
        pool: Pool,
        name: str,
        tags: Mapping[str, str],
        place: Place,
    ) -> None:
        super().__init__(scope, construct_id)
        self._pool_config, self._place = config.pools[pool], place
        template = self._make_fast_launch_template() if config.image.fast_launch else None
        self.fast_launch_template_id = template.ref if template is not None else None
        distribution = CfnDistributionConfiguration.DistributionProperty(
            region=config.region,
            # The CDK takes this one as CloudFormation spells it.
            ami_distribution_configuration={
                "Name": f"{name}-{{{{ imagebuilder:buildDate }}}}",
                "Description": f"Scanfleet {config.stage}: machines of {pool}",
                "AmiTags": tags,
            },
            ssm_parameter_configurations=[
                CfnDistributionConfiguration.SsmParameterConfigurationProperty(
                    parameter_name=parameter_name(config.stage, Parameter.AMI_WINDOWS_GPU),
                    data_type="aws:ec2:image",
                )
            ],
            fast_launch_configurations=[self._fast_launch(template)] if template is not None else None,
        )
        self.configuration = CfnDistributionConfiguration(
            self, "Configuration", name=name, distributions=[distribution]
        )

    def _fast_launch(
        self, template: CfnLaunchTemplate
    ) -> CfnDistributionConfiguration.FastLaunchConfigurationProperty:
        made = CfnDistributionConfiguration
        return made.FastLaunchConfigurationProperty(
            account_id=Stack.of(self).account,
            enabled=True,
            max_parallel_launches=FAST_LAUNCH_PARALLEL,
            snapshot_configuration=made.FastLaunchSnapshotConfigurationProperty(
                target_resource_count=min(self._pool_config.max_instances, FAST_LAUNCH_SNAPSHOTS)
            ),
            launch_template=made.FastLaunchLaunchTemplateSpecificationProperty(
                launch_template_id=template.ref,
                launch_template_version=template.attr_latest_version_number,
            ),
        )

    def _make_fast_launch_template(self) -> CfnLaunchTemplate:
        """Fast Launch prepares its snapshots on machines, and without this they would need a default VPC.

        Source: EC2 user guide, "Use a launch template when you set up EC2 Fast Launch".
        """
        return CfnLaunchTemplate(
            self,
            "FastLaunchTemplate",
            launch_template_data=CfnLaunchTemplate.LaunchTemplateDataProperty(
                instance_type=self._pool_config.instance_types[0],
                metadata_options=CfnLaunchTemplate.MetadataOptionsProperty(
                    http_tokens="required", http_put_response_hop_limit=1
                ),
                network_interfaces=[
                    CfnLaunchTemplate.NetworkInterfaceProperty(
                        device_index=0,
                        subnet_id=self._place.subnet_id,
                        groups=[self._place.security_group_id],
                        associate_public_ip_address=False,
                    )
                ],
            ),
            tag_specifications=[
                CfnLaunchTemplate.LaunchTemplateTagSpecificationProperty(
                    resource_type="launch-template", tags=[{"key": "CreatedBy", "value": BUILDER}]
                )
            ],
        )


class ImageCleanUp(Construct):
    """Removes all images but the newest, with AMIs and snapshots.

    By tags, because a recipe's version changes with its content; and by the present recipe, because only
    images of scheduled builds are sure to have the tags.
    Source: Image Builder API reference, CreateImagePipeline: imageTags.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        tags: Mapping[str, str],
        recipe: CfnImageRecipe,
        kept_images: int,
    ) -> None:
        super().__init__(scope, construct_id)
        made = CfnLifecyclePolicy
        present = made.RecipeSelectionProperty(name=name, semantic_version=recipe.version)
        role_arn = cleaning_role(self, "Role").role_arn
        for policy_id, policy_name, selection in (
            ("Tagged", name, made.ResourceSelectionProperty(tag_map=tags)),
            ("PresentRecipe", f"{name}-present-recipe", made.ResourceSelectionProperty(recipes=[present])),
        ):
            CfnLifecyclePolicy(
                self,
                policy_id,
                name=policy_name,
                execution_role=role_arn,
                resource_type="AMI_IMAGE",
                resource_selection=selection,
                policy_details=[_all_but_the_newest(kept_images)],
                status="ENABLED",
            )


def _all_but_the_newest(kept_images: int) -> CfnLifecyclePolicy.PolicyDetailProperty:
    made = CfnLifecyclePolicy
    return made.PolicyDetailProperty(
        action=made.ActionProperty(
            type="DELETE", include_resources=made.IncludeResourcesProperty(amis=True, snapshots=True)
        ),
        filter=made.FilterProperty(type="COUNT", value=kept_images),
        exclusion_rules=made.ExclusionRulesProperty(
            amis=made.AmiExclusionRulesProperty(
                last_launched=made.LastLaunchedProperty(unit="DAYS", value=LAUNCHED_KEPT_DAYS)
            )
        ),
    )
