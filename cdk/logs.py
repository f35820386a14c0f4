"""The log groups, one for each component that the contract names."""

from aws_cdk import RemovalPolicy
from aws_cdk.aws_iam import IGrantable
from aws_cdk.aws_kms import IKey
from aws_cdk.aws_logs import LogGroup, RetentionDays
from constructs import Construct

from scanfleet.contract import Component, log_group_name


class LogGroups(Construct):
    """They exist before anything writes to them: retention and encryption hold from the first line.

    They are kept when their stack goes, but not when its very first deployment fails: their names are fixed,
    and the next attempt would find them taken. docs/deploy.md tells how a later stack takes kept ones over.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: str,
        retention_days: int,
        retain: bool = True,
        key: IKey | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self.groups = {
            component: LogGroup(
                self,
                component.title(),
                log_group_name=log_group_name(stage, component),
                retention=RETENTION[retention_days],
                encryption_key=key,
                removal_policy=(
                    RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE if retain else RemovalPolicy.DESTROY
                ),
            )
            for component in Component
        }

    def grant_write(self, grantee: IGrantable, *components: Component) -> None:
        """Let the grantee write to these components' groups; it cannot read or delete them."""
        for component in components:
            self.groups[component].grant_write(grantee)


RETENTION = {
    1: RetentionDays.ONE_DAY,
    3: RetentionDays.THREE_DAYS,
    5: RetentionDays.FIVE_DAYS,
    7: RetentionDays.ONE_WEEK,
    14: RetentionDays.TWO_WEEKS,
    30: RetentionDays.ONE_MONTH,
    60: RetentionDays.TWO_MONTHS,
    90: RetentionDays.THREE_MONTHS,
    120: RetentionDays.FOUR_MONTHS,
    150: RetentionDays.FIVE_MONTHS,
    180: RetentionDays.SIX_MONTHS,
    365: RetentionDays.ONE_YEAR,
    400: RetentionDays.THIRTEEN_MONTHS,
    545: RetentionDays.EIGHTEEN_MONTHS,
    731: RetentionDays.TWO_YEARS,
    1096: RetentionDays.THREE_YEARS,
    1827: RetentionDays.FIVE_YEARS,
    2192: RetentionDays.SIX_YEARS,
    2557: RetentionDays.SEVEN_YEARS,
}
"""Every one of `config.LOG_RETENTION_DAYS`."""
