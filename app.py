"""The CDK app: context -> DeploymentConfig -> stacks. Needs no AWS account, no network and no look-ups."""

import sys

from aws_cdk import App, Tags, Validations
from cdk_nag import AwsSolutionsChecks

from cdk.config import ConfigError, DeploymentConfig, read_config
from scanfleet.contract import PRODUCT
from stacks.data import DataStack


def build(app: App) -> DeploymentConfig:
    """Add every stack of the stage that the context names; return its configuration. Raises ConfigError."""
    config = read_config(stage=app.node.try_get_context("stage"), context=app.node.try_get_context(PRODUCT))
    DataStack(app, "Data", config=config)
    for name, value in {**config.tags, f"{PRODUCT}:stage": config.stage}.items():
        Tags.of(app).add(name, value)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    return config


def main() -> None:
    """Synthesize the app; a wrong context ends with one line on standard error."""
    app = App()
    try:
        build(app)
    except ConfigError as error:
        sys.exit(f"{PRODUCT}: {error}")
    app.synth()


if __name__ == "__main__":
    main()
