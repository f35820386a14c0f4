"""The role in which Image Builder makes an image: launch, prepare, snapshot, distribute.

Its service-linked role would do, but for one thing: that role may write only SSM parameters under
/imagebuilder/. A pipeline has one role for everything, so this one has what the service-linked role has,
narrowed to this account and region and to what this pipeline does: no containers, exports, other accounts.
Sources: AWS managed policy reference, AWSServiceRoleForImageBuilder; Image Builder user guide, "Create and
update AMI distribution configurations": prerequisites for SSM output parameters.
"""

from collections.abc import Sequence

from aws_cdk import Stack
from aws_cdk.aws_iam import Role, ServicePrincipal
from constructs import Construct

from cdk.config import DeploymentConfig
from cdk.grants import allow
from cdk.image_delivery import BUILDER, Place
from scanfleet.contract import Parameter, parameter_name

FAST_LAUNCH = "EC2 Fast Launch"
_NEW = "what a build makes has no name before"
_DESCRIBE = "describing takes no resource"


class ExecutionRole(Construct):
    """Image Builder's own role for one pipeline."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: DeploymentConfig,
        machine_role_arn: str,
        place: Place,
        log_group_arn: str,
        launch_template_id: str | None,
    ) -> None:
        super().__init__(scope, construct_id)
        self._stack, self._config = Stack.of(self), config
        self.role = Role(
            self,
            "Role",
            assumed_by=ServicePrincipal("imagebuilder.amazonaws.com"),
            description=f"Scanfleet {config.stage}: Image Builder makes images in it",
        )
        templates = [self._ec2(f"launch-template/{launch_template_id}")] if launch_template_id else []
        places = [f"subnet/{place.subnet_id}", f"security-group/{place.security_group_id}"]
        self._launch(machine_role_arn, [*map(self._ec2, places), *templates])
        self._prepare()
        self._snapshot()
        self._fast_launch(templates)
        self._publish(log_group_arn)

    def _launch(self, machine_role_arn: str, places: Sequence[str]) -> None:
        images = [f"arn:{self._stack.partition}:ec2:{self._stack.region}::{kind}/*" for kind in _IMAGES]
        allow(
            self.role,
            "LaunchInItsPlace",
            ["ec2:RunInstances"],
            [*places, *images, self._ec2("network-interface/*")],
            wildcard=_NEW,
        )
        allow(
            self.role,
            "LaunchWithItsTag",
            ["ec2:RunInstances"],
            [self._ec2("instance/*"), self._ec2("volume/*")],
            conditions={"StringEquals": {"aws:RequestTag/CreatedBy": [BUILDER, FAST_LAUNCH]}},
            wildcard=_NEW,
        )
        allow(
            self.role,
            "PassTheMachinesRole",
            ["iam:PassRole"],
            [machine_role_arn],
            conditions={
                "StringEquals": {"iam:PassedToService": ["ec2.amazonaws.com", "ec2.amazonaws.com.cn"]}
            },
        )
        allow(
            self.role,
            "EndItsOwnMachines",
            ["ec2:StopInstances", "ec2:StartInstances", "ec2:TerminateInstances"],
            [self._ec2("instance/*")],
            conditions={"StringEquals": {"ec2:ResourceTag/CreatedBy": BUILDER}},
            wildcard=_NEW,
        )

    def _prepare(self) -> None:
        documents = ("AWS-RunPowerShellScript", "AWSEC2-RunSysprep")
        allow(
            self.role,
            "RunItsDocuments",
            ["ssm:SendCommand"],
            [
                f"arn:{self._stack.partition}:ssm:{self._stack.region}::document/{document}"
                for document in documents
            ],
        )
        allow(
            self.role,
            "RunThemOnItsOwnMachines",
            ["ssm:SendCommand"],
            [self._ec2("instance/*")],
            conditions={"StringEquals": {"ssm:resourceTag/CreatedBy": BUILDER}},
            wildcard=_NEW,
        )
        allow(
            self.role,
            "TakeStock",
            ["ssm:CreateAssociation", "ssm:DeleteAssociation"],
            [
                f"arn:{self._stack.partition}:ssm:{self._stack.region}::document/AWS-GatherSoftwareInventory",
                self._stack.format_arn(service="ssm", resource="association", resource_name="*"),
                self._ec2("instance/*"),
            ],
            wildcard=_NEW,
        )
        allow(
            self.role,
            "WatchItsMachines",
            [
                "ssm:DescribeAssociationExecutions",
                "ssm:DescribeInstanceAssociationsStatus",
                "ssm:DescribeInstanceInformation",
                "ssm:GetCommandInvocation",
                "ssm:ListCommandInvocations",
                "ssm:ListCommands",
                "ssm:ListInventoryEntries",
                "ec2:DescribeImages",
                "ec2:DescribeInstanceAttribute",
                "ec2:DescribeInstanceStatus",
                "ec2:DescribeInstanceTypeOfferings",
                "ec2:DescribeInstanceTypes",
                "ec2:DescribeInstances",
                "ec2:DescribeLaunchTemplateVersions",
                "ec2:DescribeLaunchTemplates",
                "ec2:DescribeSnapshots",
                "ec2:DescribeSubnets",
                "ec2:DescribeTags",
            ],
            ["*"],
            wildcard=_DESCRIBE,
        )

        allow(
            self.role,
            "WaitByRulesOfItsOwn",
            [
                "events:DeleteRule",
                "events:DescribeRule",
                "events:PutRule",
                "events:PutTargets",
                "events:RemoveTargets",
            ],
            [self._stack.format_arn(service="events", resource="rule", resource_name="ImageBuilder-*")],
            wildcard="Image Builder names them",
        )

    def _snapshot(self) -> None:
        images = [f"arn:{self._stack.partition}:ec2:{self._stack.region}::{kind}/*" for kind in _IMAGES]
        allow(
            self.role,
            "MakeImages",
            ["ec2:CreateImage", "ec2:CopyImage", "ec2:RegisterImage"],
            [*images, self._ec2("instance/*")],
            wildcard=_NEW,
        )
        allow(
            self.role,
            "ChangeItsOwnImages",
            ["ec2:DeregisterImage", "ec2:ModifyImageAttribute", "ec2:ModifySnapshotAttribute"],
            images,
            conditions={"StringEquals": {"ec2:ResourceTag/CreatedBy": BUILDER}},
            wildcard=_NEW,
        )
        self._tag(images)
        self._use_the_key_of_volumes()

    def _tag(self, images: Sequence[str]) -> None:
        """Machines and volumes only as they are made: the tag is what lets this role command a machine.

        Of images any, of snapshots those that get the builder's tag, as in AWSServiceRoleForImageBuilder.
        """
        image, snapshot = images
        mark = {"aws:RequestTag/CreatedBy": [BUILDER, FAST_LAUNCH]}
        allow(
            self.role,
            "TagWhatItMakes",
            ["ec2:CreateTags"],
            [
                *images,
                *(self._ec2(f"{kind}/*") for kind in ("instance", "volume", "network-interface")),
            ],
            conditions={"StringEquals": {"ec2:CreateAction": ["RunInstances", "CreateImage"], **mark}},
            wildcard=_NEW,
        )
        allow(self.role, "TagImages", ["ec2:CreateTags"], [image], wildcard=_NEW)
        allow(
            self.role,
            "TagSnapshots",
            ["ec2:CreateTags"],
            [snapshot],
            conditions={"StringEquals": mark},
            wildcard=_NEW,
        )

    def _use_the_key_of_volumes(self) -> None:
        """Only with the account's own key for EBS; AWS's key allows the account by itself."""
        keys = [self._stack.format_arn(service="kms", resource="key", resource_name="*")]
        via = {"StringEquals": {"kms:ViaService": f"ec2.{self._stack.region}.amazonaws.com"}}
        why = "the account's key for EBS is not known here"
        allow(
            self.role,
            "UseTheKeyOfVolumes",
            [
                "kms:Decrypt",
                "kms:DescribeKey",
                "kms:Encrypt",
                "kms:GenerateDataKeyWithoutPlaintext",
                "kms:ReEncryptFrom",
                "kms:ReEncryptTo",
            ],
            keys,
            conditions=via,
            wildcard=why,
        )
        allow(
            self.role,
            "LetVolumesUseTheirKey",
            ["kms:CreateGrant"],
            keys,
            conditions={**via, "Bool": {"kms:GrantIsForAWSResource": "true"}},
            wildcard=why,
        )

    def _fast_launch(self, templates: Sequence[str]) -> None:
        if not templates:
            return
        allow(
            self.role,
            "PrepareFastLaunch",
            ["ec2:EnableFastLaunch"],
            [f"arn:{self._stack.partition}:ec2:{self._stack.region}::image/*", *templates],
            wildcard=_NEW,
        )
        allow(
            self.role,
            "LetFastLaunchHaveItsRole",
            ["iam:CreateServiceLinkedRole"],
            [
                f"arn:{self._stack.partition}:iam::{self._stack.account}:role/aws-service-role/"
                "ec2fastlaunch.amazonaws.com/AWSServiceRoleForEC2FastLaunch"
            ],
        )

    def _publish(self, log_group_arn: str) -> None:
        name = parameter_name(self._config.stage, Parameter.AMI_WINDOWS_GPU)
        allow(
            self.role,
            "WriteTheImagesParameter",
            ["ssm:GetParameter", "ssm:PutParameter", "ssm:AddTagsToResource"],
            [self._stack.format_arn(service="ssm", resource="parameter", resource_name=name[1:])],
        )
        allow(
            self.role,
            "WriteItsLog",
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            [f"{log_group_arn}:*"],
            wildcard="each build has streams of its own",
        )

    def _ec2(self, name: str) -> str:
        kind, _, identity = name.partition("/")
        return self._stack.format_arn(service="ec2", resource=kind, resource_name=identity)


_IMAGES = ("image", "snapshot")
