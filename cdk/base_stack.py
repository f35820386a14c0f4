"""What every stack of a deployment has in common: its name, its environment, its description."""

from aws_cdk import Environment, IStackSynthesizer, Stack
from constructs import Construct

from cdk.config import DeploymentConfig
from scanfleet.contract import PRODUCT


class BaseStack(Stack):
    """A stack named `scanfleet-<stage>-<id in lower case>`, in the deployment's account and region."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: DeploymentConfig,
        contains: str,
        termination_protection: bool = False,
        synthesizer: IStackSynthesizer | None = None,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            stack_name=f"{PRODUCT}-{config.stage}-{construct_id.lower()}",
            description=f"Scanfleet {config.stage}: {contains}",
            env=Environment(account=config.account, region=config.region),
            termination_protection=termination_protection,
            synthesizer=synthesizer,
            analytics_reporting=False,
        )
