"""The fleet of one pool: its role, its launch template, its Auto Scaling group, and what scales the group."""

from collections.abc import Sequence

from aws_cdk import Acknowledgment, CfnAutoScalingScheduledAction, CfnUpdatePolicy, Tags, Validations
from aws_cdk.aws_autoscaling import CfnAutoScalingGroup, CfnScheduledAction, CfnWarmPool
from constructs import Construct

from cdk.agent_bundle import AgentBundle
from cdk.config import DeploymentConfig, PoolConfig
from cdk.config_sections import ScheduleConfig
from cdk.fleet_role import AgentRole
from cdk.launch_template import AgentLaunchTemplate
from cdk.network import Network
from cdk.scaling import StepScaling
from cdk.system import System
from cdk.user_data import windows_user_data
from scanfleet.contract import (
    FIRST_TEMPLATE_VERSION,
    HEALTH_CHECK_GRACE,
    INSTANCE_WARM_UP,
    LAUNCH_HOOK,
    LAUNCH_HOOK_TIMEOUT,
    PRODUCT,
    TERMINATE_HOOK,
    TERMINATE_HOOK_TIMEOUT,
    Component,
    Env,
    Parameter,
    Pool,
    WindowsPath,
    fleet_name,
    log_group_name,
)

IMAGES = {Pool.WINDOWS_GPU: Parameter.AMI_WINDOWS_GPU}
"""The pools that have machines on AWS, and where their image's id is."""
GPU_POOLS = frozenset({Pool.WINDOWS_GPU})
"""Their machines have a GPU, and run the closed program."""


class Fleet(Construct):
    """Machines that come when jobs wait and go when they are idle.

    By default no machine until the first job. A deploy never sets the desired capacity, which scaling owns,
    nor the group's launch template version, which rollouts own (docs/decisions/0034-*.md). A machine serves
    once its agent says so, drains before it ends, and is protected from scale-in while its agent is busy.
    `target_group` is the ARN of the load balancer's group that checks the agents' health.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: DeploymentConfig,
        pool: Pool,
        network: Network,
        system: System,
        bundle: AgentBundle,
        target_group: str,
    ) -> None:
        super().__init__(scope, construct_id)
        self.pool = pool
        self.name = fleet_name(config.stage, pool)
        self._config = config.pools[pool]
        self._schedules = [schedule for schedule in config.schedules if schedule.pool is pool]
        agent = AgentRole(self, "Agent", system=system, pool=pool, bundle=bundle)
        self.role = agent.role
        self.template = AgentLaunchTemplate(
            self,
            "LaunchTemplate",
            name=self.name,
            stage=config.stage,
            pool=self._config,
            image=IMAGES[pool],
            profile=agent.profile,
            security_group=network.agents,
            user_data=windows_user_data(
                config=config,
                pool=pool,
                pool_config=self._config,
                bundle=bundle,
                environment=self._environment(system),
            ).render(),
            tags={**config.tags, f"{PRODUCT}:stage": config.stage},
        )
        self.group = self._make_group(
            subnets=[subnet.subnet_id for subnet in network.private_subnets.subnets or ()],
            target_group=target_group,
        )
        # A machine's first call is allowed: its role has its policy before the group can launch one.
        self.group.node.add_dependency(agent)
        self._add_warm_pool()
        self._add_schedules(self._schedules)
        StepScaling(
            self,
            "Scaling",
            config=config,
            pool=pool,
            queue=system.queues[pool],
            group=self.group.ref,
            most_instances=self.most_instances,
        )

    @property
    def most_instances(self) -> int:
        """Return the most machines that the pool may ever have, in any schedule."""
        return max(self._config.max_instances, *(s.max_instances for s in self._schedules), 0)

    def _environment(self, system: System) -> dict[str, str]:
        return {
            **system.environment(self),
            Env.POOL: self.pool,
            Env.SLOTS: str(self._config.slots_per_instance or "auto"),
            Env.FLEET: self.name,
            Env.PROCESSOR_LOG_GROUP: log_group_name(system.config.stage, Component.PROCESSOR),
            **({Env.IDLE_MINUTES: str(idle)} if (idle := self._config.idle_minutes) else {}),
            **({Env.NEEDS_GPU: "true"} if self.pool in GPU_POOLS else {}),
            **self._releases(system),
        }

    def _releases(self, system: System) -> dict[str, str]:
        """Where the closed program's releases come from; nothing without a release bucket."""
        bucket = system.config.medit.release_bucket
        if bucket is None or self.pool not in GPU_POOLS:
            return {}
        return {Env.MEDIT_RELEASES: WindowsPath.MEDIT_RELEASES, Env.RELEASE_BUCKET: bucket}

    # --- The group -----------------------------------------------------------------------------------------

    def _make_group(self, *, subnets: Sequence[str], target_group: str) -> CfnAutoScalingGroup:
        pool = self._config
        is_mixed = pool.spot_percent > 0 or len(pool.instance_types) > 1
        launches = CfnAutoScalingGroup.LaunchTemplateSpecificationProperty(
            launch_template_id=self.template.id, version=FIRST_TEMPLATE_VERSION
        )
        group = CfnAutoScalingGroup(
            self,
            "Group",
            auto_scaling_group_name=self.name,
            min_size=str(pool.min_instances),
            max_size=str(pool.max_instances),
            vpc_zone_identifier=list(subnets),
            launch_template=None if is_mixed else launches,
            mixed_instances_policy=_mixed(pool, launches) if is_mixed else None,
            capacity_rebalance=pool.spot_percent > 0,
            health_check_type="ELB",  # and EC2's own, always
            health_check_grace_period=HEALTH_CHECK_GRACE.total_seconds(),
            target_group_arns=[target_group],
            default_instance_warmup=INSTANCE_WARM_UP.total_seconds(),
            # Part of the group, so that the very first machine meets them, too.
            lifecycle_hook_specification_list=_hooks(),
            new_instances_protected_from_scale_in=False,
            # Of the machines that may go: those of an older version first, then those that ran longest.
            termination_policies=["OldestLaunchTemplate", "OldestInstance"],
            metrics_collection=[CfnAutoScalingGroup.MetricsCollectionProperty(granularity="1Minute")],
        )
        # Bounds that a schedule or an operator has set stay until the template's own change: else any other
        # change of the group would start a stopped fleet again, or undo a schedule in the middle of its day.
        group.cfn_options.update_policy = CfnUpdatePolicy(
            auto_scaling_scheduled_action=CfnAutoScalingScheduledAction(
                ignore_unmodified_group_size_properties=True
            )
        )
        Tags.of(group).add("Name", self.name)
        Validations.of(group).acknowledge(
            Acknowledgment(
                id="AwsSolutions-AS3",
                reason=(
                    "Each launch and end is an event on EventBridge and counted by the group's own metrics;"
                    " alarms tell of failed launches and boots. A mail for each would bury those."
                ),
            )
        )
        if is_mixed:
            Validations.of(group).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-EC26",
                    reason=(
                        "The rule throws at a mixed instances policy. Every volume of the launch"
                        " template is encrypted; tests/support/guard_rules.py checks that."
                    ),
                )
            )
        return group

    def _add_warm_pool(self) -> None:
        """Keep stopped machines that were prepared once, whatever the number of running ones.

        A machine that scale-in takes is not put back: it has run jobs, and perhaps an older version.
        """
        warm = self._config.warm_instances
        if warm:
            CfnWarmPool(
                self,
                "WarmPool",
                auto_scaling_group_name=self.group.ref,
                pool_state="Stopped",
                min_size=warm,
                # Without it, the pool would fill up to the group's maximum.
                max_group_prepared_capacity=warm,
                instance_reuse_policy=CfnWarmPool.InstanceReusePolicyProperty(reuse_on_scale_in=False),
            )

    def _add_schedules(self, schedules: Sequence[ScheduleConfig]) -> None:
        for number, schedule in enumerate(schedules):
            CfnScheduledAction(
                self,
                f"Schedule{number}",
                auto_scaling_group_name=self.group.ref,
                recurrence=schedule.at,
                time_zone=schedule.time_zone,
                min_size=schedule.min_instances,
                max_size=schedule.max_instances,
            )


def _hooks() -> list[CfnAutoScalingGroup.LifecycleHookSpecificationProperty]:
    """Return the hooks: no machine serves before its agent does, none ends before its agent has drained.

    A launch that nobody completes is abandoned, so that another is tried; an end goes on.
    """
    return [
        CfnAutoScalingGroup.LifecycleHookSpecificationProperty(
            lifecycle_hook_name=LAUNCH_HOOK,
            lifecycle_transition="autoscaling:EC2_INSTANCE_LAUNCHING",
            heartbeat_timeout=LAUNCH_HOOK_TIMEOUT.total_seconds(),
            default_result="ABANDON",
        ),
        CfnAutoScalingGroup.LifecycleHookSpecificationProperty(
            lifecycle_hook_name=TERMINATE_HOOK,
            lifecycle_transition="autoscaling:EC2_INSTANCE_TERMINATING",
            heartbeat_timeout=TERMINATE_HOOK_TIMEOUT.total_seconds(),
            default_result="CONTINUE",
        ),
    ]


def _mixed(
    pool: PoolConfig, launches: CfnAutoScalingGroup.LaunchTemplateSpecificationProperty
) -> CfnAutoScalingGroup.MixedInstancesPolicyProperty:
    """Return the policy for several instance types, spot above the pool's minimum.

    On-demand types in the configuration's order; spot where it is cheap and lasts.
    """
    return CfnAutoScalingGroup.MixedInstancesPolicyProperty(
        launch_template=CfnAutoScalingGroup.LaunchTemplateProperty(
            launch_template_specification=launches,
            overrides=[
                CfnAutoScalingGroup.LaunchTemplateOverridesProperty(instance_type=kind)
                for kind in pool.instance_types
            ],
        ),
        instances_distribution=CfnAutoScalingGroup.InstancesDistributionProperty(
            on_demand_base_capacity=pool.min_instances,
            on_demand_percentage_above_base_capacity=100 - pool.spot_percent,
            on_demand_allocation_strategy="prioritized",
            spot_allocation_strategy="price-capacity-optimized",
        ),
    )
