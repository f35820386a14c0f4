"""An AWS account of moto's server: it knows every kind of resource a little, and CloudFormation well.

What MiniStack refuses (NAT gateways, warm pools, Image Builder) deploys here. Nothing runs in it: it answers
the calls of a deployment.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import boto3
import httpx
from aws_cdk import App, DefaultStackSynthesizer
from moto.cloudformation.parsing import get_model_map

from scanfleet.local.cdk_cli import cdk
from scanfleet.local.deploy import BOOTSTRAP_PARAMETER, emulator_environment
from scanfleet.local.emulator import LOOPBACK, free_port
from scanfleet.local.processes import Processes

ACCOUNT = "123456789012"
REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "moto", "AWS_SECRET_ACCESS_KEY": "moto"}
"""Others than MiniStack's: the command line remembers which account a key belongs to."""
SEEDED_PARAMETERS = {
    BOOTSTRAP_PARAMETER: "30",
}
START_LIMIT_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class MotoCloud:
    """A running server, bootstrapped for the CDK."""

    endpoint_url: str
    repo_root: Path

    def client(self, service: Any) -> Any:
        """Return a boto3 client of this account."""
        return boto3.session.Session().client(
            service,
            endpoint_url=self.endpoint_url,
            region_name=REGION,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )

    def deploy(self, assembly: Path, *stacks: str) -> None:
        """Deploy these stacks of the assembly, or all, by the real CDK command line."""
        self._cdk(
            "deploy",
            assembly,
            stacks,
            "--require-approval",
            "never",
            "--method=direct",
            "--progress",
            "events",
        )

    def destroy(self, assembly: Path, *stacks: str) -> None:
        """Destroy these stacks, or all."""
        self._cdk("destroy", assembly, stacks, "--force")

    def _cdk(self, verb: str, assembly: Path, stacks: tuple[str, ...], *options: str) -> None:
        chosen = stacks or ("--all",)
        cdk(
            [verb, "--app", assembly, *chosen, *options],
            repo_root=self.repo_root,
            environment=emulator_environment(self.endpoint_url) | CREDENTIALS,
            cwd=self.repo_root,
        )


@contextmanager
def moto_cloud(*, repo_root: Path, folder: Path) -> Iterator[MotoCloud]:
    """Run a server of its own on this machine only; stop it at the end."""
    port = free_port()
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    with Processes() as processes:
        child = processes.start(
            "moto",
            [repo_root / ".venv" / "bin" / "moto_server", "-H", LOOPBACK, "-p", str(port)],
            env={**kept, "MOTO_ENABLE_ISO_REGIONS": "false"},
            log_file=folder / "moto.log",
        )
        # By this name, not by its number: moto reads the bucket off a template's address only then.
        cloud = MotoCloud(endpoint_url=f"http://localhost:{port}", repo_root=repo_root)
        give_up = monotonic() + START_LIMIT_SECONDS
        while not _answers(cloud.endpoint_url):
            assert not child.ended.wait(0.1), (folder / "moto.log").read_text()
            assert monotonic() < give_up, "the moto server did not start"
        _bootstrap(cloud)
        yield cloud


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/moto-api/data.json", trust_env=False).is_success
    except httpx.TransportError:
        return False


def _bootstrap(cloud: MotoCloud) -> None:
    """Leave what `cdk bootstrap` would: its version, its bucket. Roles are not checked here."""
    ssm = cloud.client("ssm")
    for name, value in SEEDED_PARAMETERS.items():
        ssm.put_parameter(Name=name, Value=value, Type="String")
    cloud.client("s3").create_bucket(Bucket=f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}")


def app_for_moto(*, context: dict[str, Any], folder: Path) -> App:
    """Return an app whose templates do without the bootstrap rule, which moto cannot read."""
    synthesizer = DefaultStackSynthesizer(generate_bootstrap_version_rule=False)
    return App(
        context=context,
        analytics_reporting=False,
        default_stack_synthesizer=synthesizer,
        outdir=str(folder),
    )


def adapt_to_moto(assembly: Path) -> None:
    """Write around what moto 5.2 cannot read in these templates; nothing else of them changes.

    It expects other forms of some tags than CloudFormation has, and fails at an attribute that it does
    not know instead of skipping it.
    """
    for path in assembly.glob("*.template.json"):
        template = json.loads(path.read_text())
        resources = template.get("Resources", {})
        for resource in resources.values():
            if resource["Type"] in {"AWS::SSM::Parameter", "AWS::KMS::Key"}:
                resource["Properties"].pop("Tags", None)
        types = {name: resource["Type"] for name, resource in resources.items()}
        path.write_text(json.dumps(_with_known_attributes(template, types)))


def _with_known_attributes(node: Any, types: dict[str, str]) -> Any:
    """Return the node as moto can read it.

    Each "Fn::GetAtt" that it does not know is a reference, each reference to a resource that it skips an ARN
    that nobody has.
    """
    if isinstance(node, list):
        return [_with_known_attributes(item, types) for item in node]
    if not isinstance(node, dict):
        return node
    if set(node) == {"Ref"} and node["Ref"] in types and types[node["Ref"]] not in get_model_map():
        return _arn(node["Ref"])
    if set(node) == {"Fn::GetAtt"}:
        name, attribute = node["Fn::GetAtt"]
        model = get_model_map().get(types[name])
        if model is None:
            return _arn(name)
        is_known = hasattr(model, "get_cfn_attribute") and model.has_cfn_attr(attribute)
        return node if is_known else {"Ref": name}  # what it refers to is its ARN, or near enough
    return {key: _with_known_attributes(value, types) for key, value in node.items()}


def _arn(name: str) -> str:
    return f"arn:aws:skipped:{REGION}:{ACCOUNT}:{name}"
