"""The synthesized stacks, made once for all synth tests."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App

from app import build
from tests.support.template import StackTemplate

Context = dict[str, Any]


@pytest.fixture(scope="session")
def context(repo_root: Path) -> Context:
    """What cdk.json gives the app."""
    return dict(json.loads((repo_root / "cdk.json").read_text())["context"])


@pytest.fixture(scope="session")
def data_stack(context: Context) -> Callable[[str], StackTemplate]:
    """The data stack's template by stage, as CloudFormation would get it."""

    @cache
    def synthesized(stage: str) -> StackTemplate:
        app = App(context=context | {"stage": stage}, analytics_reporting=False)
        build(app)
        assembly = app.synth()
        manifest = json.loads((Path(assembly.directory) / "manifest.json").read_text())
        assert not manifest.get("missing"), "synth asked for something of an AWS account"
        return StackTemplate(assembly.get_stack_by_name(f"scanfleet-{stage}-data").template)

    return synthesized


@pytest.fixture(scope="session")
def dev(data_stack: Callable[[str], StackTemplate]) -> StackTemplate:
    """A deployment like any other."""
    return data_stack("dev")


@pytest.fixture(scope="session")
def prod(data_stack: Callable[[str], StackTemplate]) -> StackTemplate:
    """The deployment with a key of its own."""
    return data_stack("prod")


@pytest.fixture(scope="session")
def local(data_stack: Callable[[str], StackTemplate]) -> StackTemplate:
    """What the local mode deploys to the emulator."""
    return data_stack("local")
