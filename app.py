"""The CDK app: context -> DeploymentConfig -> stacks. Needs no AWS account, no network and no look-ups."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from aws_cdk import App, Tags, Validations

from cdk.config import ConfigError, DeploymentConfig, read_config
from scanfleet.contract import PRODUCT
from stacks.api import ApiStack
from stacks.data import DataStack
from stacks.first_image import FirstImageStack
from stacks.fleet import FleetStack
from stacks.image import ImageStack
from stacks.monitoring import MonitoringStack
from stacks.network import NetworkStack


def build(app: App) -> DeploymentConfig:
    """Add the stacks of the stage that the context names; return its configuration. Raises ConfigError.

    With `data_only` in the context, as the local mode sets it, the data stack alone: the others' packages are
    then not built.
    """
    config = read_config(stage=app.node.try_get_context("stage"), context=app.node.try_get_context(PRODUCT))
    system = DataStack(app, "Data", config=config).system
    if not app.node.try_get_context("data_only"):
        network = NetworkStack(app, "Network", config=config).network
        first_image = FirstImageStack(app, "FirstImage", config=config)
        image = ImageStack(app, "Image", config=config, network=network, system=system)
        image.add_stack_dependency(first_image)  # builds write the parameter that it seeds
        api = ApiStack(app, "Api", config=config, network=network, system=system)
        agents = api.agents_target_group
        fleet = FleetStack(app, "Fleet", config=config, network=network, system=system, agents=agents)
        # By name only: machines boot the image that this parameter holds, so it has to be there before them.
        fleet.add_stack_dependency(first_image)
        MonitoringStack(app, "Monitoring", config=config, system=system, doors=api.doors)
    for name, value in {**config.tags, f"{PRODUCT}:stage": config.stage}.items():
        Tags.of(app).add(name, value)
    if os.environ.get("CDK_VALIDATION") != "false":  # the CDK's own switch for its own rules
        from cdk_nag import AwsSolutionsChecks  # noqa: PLC0415 - a fifth of a second, for those who want it

        Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    return config


def _own_context() -> dict[str, Any]:
    """Return the context of cdk.json, which the CDK command line would have handed over."""
    context: dict[str, Any] = json.loads(Path(__file__).with_name("cdk.json").read_text())["context"]
    return context


def main() -> None:
    """Synthesize the app; a wrong context ends with one line on standard error."""
    app = App(context=None if "CDK_CONTEXT_JSON" in os.environ else _own_context())
    try:
        build(app)
    except ConfigError as error:
        sys.exit(f"{PRODUCT}: {error}")
    app.synth()


if __name__ == "__main__":
    main()
