"""The launch template of a pool: what an instance is before its user-data runs."""

from collections.abc import Mapping

from aws_cdk import CfnTag, Fn
from aws_cdk.aws_ec2 import CfnLaunchTemplate, ISecurityGroup
from aws_cdk.aws_iam import InstanceProfile
from constructs import Construct

from cdk.config import PoolConfig
from scanfleet.contract import Parameter, parameter_name

ROOT_DEVICE = "/dev/sda1"
"""Source: EC2 user guide, "Device names for volumes": root of Windows and of most images."""
SCRATCH_DEVICE = "xvdb"
"""Same page: names for further volumes of Windows instances."""
BASELINE_IOPS = 3000
IOPS_PER_MIBPS = 4
"""gp3 gives at most 0.25 MiB/s for each provisioned operation per second. Source: EBS user guide,
"General Purpose SSD volumes"."""


class AgentLaunchTemplate(Construct):
    """Machines without public address, key pair or IMDSv1, whose disks are encrypted and go with them.

    The image is an SSM parameter that EC2 reads at each launch, so a fleet works before any rollout. The
    controller derives versions with a numbered image from the newest of these: docs/decisions/0034-*.md.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        stage: str,
        pool: PoolConfig,
        image: Parameter,
        profile: InstanceProfile,
        security_group: ISecurityGroup,
        user_data: str,
        tags: Mapping[str, str],
    ) -> None:
        super().__init__(scope, construct_id)
        volume_tags = [CfnTag(key=key, value=value) for key, value in {"Name": name, **tags}.items()]
        self.template = CfnLaunchTemplate(
            self,
            "Template",
            launch_template_name=name,
            version_description="as deployed",
            launch_template_data=CfnLaunchTemplate.LaunchTemplateDataProperty(
                image_id=f"resolve:ssm:{parameter_name(stage, image)}",
                instance_type=pool.instance_types[0],
                user_data=Fn.base64(user_data),
                iam_instance_profile=CfnLaunchTemplate.IamInstanceProfileProperty(
                    arn=profile.instance_profile_arn
                ),
                block_device_mappings=_volumes(pool),
                network_interfaces=[
                    CfnLaunchTemplate.NetworkInterfaceProperty(
                        device_index=0,
                        associate_public_ip_address=False,
                        delete_on_termination=True,
                        groups=[security_group.security_group_id],
                    )
                ],
                metadata_options=CfnLaunchTemplate.MetadataOptionsProperty(
                    http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
                ),
                monitoring=CfnLaunchTemplate.MonitoringProperty(enabled=True),
                ebs_optimized=True,
                # Nobody plans a shutdown from inside: the machine is replaced, so nothing may keep its disks.
                instance_initiated_shutdown_behavior="terminate",
                tag_specifications=[
                    CfnLaunchTemplate.TagSpecificationProperty(resource_type="volume", tags=volume_tags)
                ],
            ),
        )

    @property
    def id(self) -> str:
        """Return the launch template's id."""
        return self.template.ref


def _volumes(pool: PoolConfig) -> list[CfnLaunchTemplate.BlockDeviceMappingProperty]:
    """Return the root volume, and the scratch volume unless workspaces are on the instance's own NVMe disk.

    Those disks are there without a mapping. Source: EC2 user guide, "Add instance store volumes".
    """
    throughput = pool.root_volume_throughput_mibps
    volumes = [_volume(ROOT_DEVICE, size_gib=pool.root_volume_gib, throughput_mibps=throughput)]
    if pool.scratch_volume_gib:
        volumes.append(_volume(SCRATCH_DEVICE, size_gib=pool.scratch_volume_gib, throughput_mibps=throughput))
    return volumes


def _volume(
    device: str, *, size_gib: int, throughput_mibps: int
) -> CfnLaunchTemplate.BlockDeviceMappingProperty:
    return CfnLaunchTemplate.BlockDeviceMappingProperty(
        device_name=device,
        ebs=CfnLaunchTemplate.EbsProperty(
            volume_type="gp3",
            volume_size=size_gib,
            throughput=throughput_mibps,
            iops=gp3_iops(throughput_mibps),
            encrypted=True,
            delete_on_termination=True,
        ),
    )


def gp3_iops(throughput_mibps: int) -> int:
    """Return the least IOPS with which a gp3 volume may have this throughput."""
    return max(BASELINE_IOPS, throughput_mibps * IOPS_PER_MIBPS)
