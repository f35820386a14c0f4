"""Every stack is deployed, updated and destroyed by the real CDK command line, in moto's account."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import build
from tests.support.moto_cloud import MotoCloud, app_for_moto, moto_cloud, take_out_what_moto_misreads

pytestmark = pytest.mark.system

STACKS = ("network", "data", "image", "api", "fleet", "monitoring")


@pytest.fixture(scope="module")
def moto(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoCloud]:
    """moto's account."""
    with moto_cloud(repo_root=repo_root, folder=tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture(scope="module")
def synthesized(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the folder of the stage dev's assembly with these settings changed."""

    def synthesize(**settings: Any) -> Path:
        context = json.loads((repo_root / "cdk.json").read_text())["context"]
        # Closing it is a custom resource: its function would have to run, and moto runs no code.
        network = {"close_default_security_group": False}
        context["scanfleet"]["stages"]["dev"].update({"network": network} | settings)
        folder = tmp_path_factory.mktemp("assembly")
        app = app_for_moto(context=context, folder=folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CDK_VALIDATION", "false")
            build(app)
            app.synth()
        take_out_what_moto_misreads(folder)
        return folder

    return synthesize


@pytest.fixture(scope="module")
def deployed(moto: MotoCloud, synthesized: Callable[..., Path]) -> Path:
    """Every stack of the stage dev, deployed once."""
    assembly = synthesized()
    moto.deploy(assembly)
    return assembly


def status(moto: MotoCloud, stack: str) -> str:
    found = moto.client("cloudformation").describe_stacks(StackName=f"scanfleet-dev-{stack}")["Stacks"]
    return str(found[0]["StackStatus"])


@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_is_created(moto, deployed, stack):
    assert status(moto, stack) == "CREATE_COMPLETE"
