"""The synthesized stacks, made once for all synth tests of a process."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App

from app import build
from cdk.config import read_config
from tests.support.deployment import Deployment, read_deployment
from tests.support.template import StackTemplate

Context = dict[str, Any]
Stacks = Callable[..., StackTemplate]


@pytest.fixture(scope="session", autouse=True)
def _without_validation() -> Iterator[None]:
    """One test synthesizes with every rule of the CDK and cdk-nag on; the others need the templates alone."""
    patch = pytest.MonkeyPatch()
    patch.setenv("CDK_VALIDATION", "false")
    yield
    patch.undo()


@pytest.fixture(scope="session")
def context(repo_root: Path) -> Context:
    """What cdk.json gives the app."""
    return dict(json.loads((repo_root / "cdk.json").read_text())["context"])


@pytest.fixture(scope="session")
def assembly(context: Context) -> Callable[..., Any]:
    """A stage's synthesized app; keyword arguments are settings that replace those of the stage."""

    @cache
    def synthesized(stage: str, settings: str) -> Any:
        tree = with_settings(context, stage, json.loads(settings))
        app = App(context=context | {"stage": stage, "scanfleet": tree}, analytics_reporting=False)
        build(app)
        made = app.synth()
        manifest = json.loads((Path(made.directory) / "manifest.json").read_text())
        assert not manifest.get("missing"), "synth asked for something of an AWS account"
        return made

    return lambda stage, **settings: synthesized(stage, json.dumps(settings, sort_keys=True))


def with_settings(context: Context, stage: str, settings: Context) -> Context:
    """Return the app's own context with settings that replace those of the stage."""
    tree: Context = json.loads(json.dumps(context["scanfleet"]))
    tree["stages"].setdefault(stage, {}).update(settings)
    return tree


@pytest.fixture(scope="session")
def stack(assembly: Callable[..., Any]) -> Stacks:
    """A stack's template by stage and stack id, as CloudFormation would get it.

    Keyword arguments are settings that replace those of the stage: stack("dev", "fleet", pools={...}).
    """

    def template(stage: str, name: str, **settings: Any) -> StackTemplate:
        made = assembly(stage, **settings)
        return StackTemplate(made.get_stack_by_name(f"scanfleet-{stage}-{name}").template)

    return template


@pytest.fixture(scope="session")
def deployed(assembly: Callable[..., Any], context: Context, repo_root: Path) -> Callable[..., Deployment]:
    """Everything that a stage deploys, for checks that span stacks; keyword arguments as for `stack`."""

    @cache
    def read(stage: str, text: str) -> Deployment:
        settings = json.loads(text)
        config = read_config(stage=stage, context=with_settings(context, stage, settings))
        return read_deployment(assembly(stage, **settings), config=config, repo_root=repo_root)

    return lambda stage, **settings: read(stage, json.dumps(settings, sort_keys=True))


@pytest.fixture(scope="session")
def deployment(deployed: Callable[..., Deployment]) -> Deployment:
    """What the stage dev deploys."""
    return deployed("dev")


@pytest.fixture(scope="session")
def data_stack(stack: Stacks) -> Callable[[str], StackTemplate]:
    """The data stack's template by stage."""
    return lambda stage: stack(stage, "data")


@pytest.fixture(scope="session")
def dev(stack: Stacks) -> StackTemplate:
    """The data stack of a deployment like any other."""
    return stack("dev", "data")


@pytest.fixture(scope="session")
def prod(stack: Stacks) -> StackTemplate:
    """The data stack of the deployment with a key of its own."""
    return stack("prod", "data")


@pytest.fixture(scope="session")
def local(stack: Stacks) -> StackTemplate:
    """The data stack that the local mode deploys to the emulator."""
    return stack("local", "data")
