"""The API's stack on the emulator: deployed by the real CDK command line, called through its two doors."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
from aws_cdk import App
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from cdk.config import read_config
from scanfleet.contract import Env, Pool
from scanfleet.local.cdk_cli import cdk
from scanfleet.local.deploy import REGION, DeployedSystem, bootstrap, emulator_environment, find_system
from scanfleet.local.emulator import free_port, start_emulator
from scanfleet.local.processes import Processes
from stacks.api import ApiStack
from stacks.data import DataStack
from stacks.monitoring import MonitoringStack
from stacks.network import NetworkStack

STACKS = ("Data", "Network", "Api", "Monitoring")
NOT_IN_THE_EMULATOR = {
    "AWS::EC2::FlowLog",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::EC2::SecurityGroupIngress",
}
"""Types of the network's template that MiniStack's CloudFormation refuses; nothing refers to them."""
ROOT_USER = Credentials("test", "test")


@dataclass(frozen=True, kw_only=True)
class EmulatedAccount:
    """An emulator whose state outlives its process: it can be stopped, and started checking its callers."""

    repo_root: Path
    folder: Path
    port: int

    @property
    def endpoint_url(self) -> str:
        """Return the emulator's address, whether or not it runs."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self, *, checks_callers: bool) -> Iterator[Processes]:
        """Run the emulator; what is started with the processes yielded ends before it."""
        with Processes() as processes:
            emulator = start_emulator(
                processes=processes,
                repo_root=self.repo_root,
                state_folder=self.folder / "state",
                log_file=self.folder / "emulator.log",
                port=self.port,
                checks_callers=checks_callers,
            )
            try:
                yield processes
            finally:
                processes.stop_all()
                emulator.release()

    def client(self, service: Any) -> Any:
        """Return a boto3 client of the account's root user."""
        return boto3.session.Session().client(
            service,
            endpoint_url=self.endpoint_url,
            region_name=REGION,
            aws_access_key_id=ROOT_USER.access_key,
            aws_secret_access_key=ROOT_USER.secret_key,
        )

    # --- The CDK command line ------------------------------------------------------------------------------

    def synthesize(self, folder: str, **settings: Any) -> Path:
        """Return an assembly of the four stacks of the local stage with these settings changed."""
        context = json.loads((self.repo_root / "cdk.json").read_text())["context"]
        context["scanfleet"]["stages"]["local"].update(settings)
        assembly = self.folder / folder
        app = App(context=context, analytics_reporting=False, outdir=str(assembly))
        config = read_config(stage="local", context=context["scanfleet"])
        system = DataStack(app, "Data", config=config).system
        network = NetworkStack(app, "Network", config=config).network
        api = ApiStack(app, "Api", config=config, network=network, system=system)
        MonitoringStack(app, "Monitoring", config=config, system=system, doors=api.doors)
        app.synth()
        for name in STACKS:
            _adapt(assembly / f"{name}.template.json")
        return assembly

    def deploy(self, assembly: Path) -> None:
        """Deploy the stacks; then register the function, which the emulator's CloudFormation leaves out."""
        bootstrap(endpoint_url=self.endpoint_url, repo_root=self.repo_root)
        self._cdk("deploy", assembly, "--method=direct", "--require-approval", "never")
        self._register_function(assembly)

    def destroy(self, assembly: Path) -> None:
        """Destroy the monitoring's and the API's stacks, and nothing else."""
        self._cdk("destroy", assembly, "--force", stacks=("Monitoring", "Api"))

    def _cdk(self, verb: str, assembly: Path, *options: str, stacks: tuple[str, ...] = STACKS) -> None:
        cdk(
            [verb, "--app", assembly, *stacks, *options, "--progress", "events"],
            repo_root=self.repo_root,
            environment=emulator_environment(self.endpoint_url),
            cwd=self.repo_root,
        )

    def _register_function(self, assembly: Path) -> None:
        resources = json.loads((assembly / "Api.template.json").read_text())["Resources"]
        group = next(
            r["Properties"] for r in resources.values() if r["Properties"].get("TargetType") == "lambda"
        )
        [target] = group["Targets"]
        name, attribute = target["Id"]["Fn::GetAtt"]
        assert attribute == "Arn"
        function = self.client("lambda").get_function(
            FunctionName=resources[name]["Properties"]["FunctionName"]
        )
        elb = self.client("elbv2")
        [found] = elb.describe_target_groups(Names=[group["Name"]])["TargetGroups"]
        elb.register_targets(
            TargetGroupArn=found["TargetGroupArn"],
            Targets=[{"Id": function["Configuration"]["FunctionArn"]}],
        )

    # --- What is deployed ----------------------------------------------------------------------------------

    @property
    def system(self) -> DeployedSystem:
        """Return where everything is."""
        return find_system(endpoint_url=self.endpoint_url)

    def outputs(self, stack: str = "api") -> dict[str, str]:
        """Return a stack's outputs. Raises ClientError when it is not there."""
        found = self.client("cloudformation").describe_stacks(StackName=f"scanfleet-local-{stack}")
        return {output["OutputKey"]: output["OutputValue"] for output in found["Stacks"][0]["Outputs"]}

    def load_balancer(self) -> httpx.Client:
        """Return a client of the load balancer."""
        return self._at(self.outputs()["LoadBalancerUrl"])

    def load_balancer_url(self) -> str:
        """Return an address of the load balancer that resolves on this machine."""
        [found] = self.client("elbv2").describe_load_balancers()["LoadBalancers"]
        return f"{self.endpoint_url}/_alb/{found['LoadBalancerName']}"

    def http_api_url(self) -> str:
        """Return an address of the HTTP API that resolves on this machine."""
        api_id = urlsplit(self.outputs()["HttpApiUrl"]).netloc.partition(".")[0]
        return f"{self.endpoint_url}/_aws/execute-api/{api_id}/$default"

    def http_api(self, credentials: Credentials | None) -> httpx.Client:
        """Return a client of the HTTP API that signs with these credentials, or not at all."""
        client = self._at(self.outputs()["HttpApiUrl"])
        client.auth = Signature(credentials) if credentials else None
        return client

    def _at(self, url: str) -> httpx.Client:
        """Return a client of this host name that asks the emulator, whatever DNS says."""
        return httpx.Client(
            base_url=self.endpoint_url, headers={"Host": urlsplit(url).netloc}, timeout=60, trust_env=False
        )

    def start_agent(self, processes: Processes) -> None:
        """Start one agent of the pool linux-cpu."""
        processes.start(
            "agent",
            [sys.executable, "-m", "scanfleet.agent.main"],
            env={
                **self.system.process_environment(),
                Env.POOL.value: Pool.LINUX_CPU.value,
                Env.SCRATCH.value: str(self.folder / "agent"),
                "SCANFLEET_STATUS_PORT": "0",
                "SCANFLEET_RECEIVE_WAIT_SECONDS": "1",
            },
            log_file=self.folder / "agent.log",
        )


class Signature(httpx.Auth):
    """Signs requests as the AWS SDKs do (SigV4) for API Gateway."""

    requires_request_body = True

    def __init__(self, credentials: Credentials) -> None:
        self._signer = SigV4Auth(credentials, "execute-api", REGION)

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        """Add the signature's headers."""
        url = str(request.url.copy_with(host=request.headers["Host"].split(":")[0]))
        signed = AWSRequest(
            method=request.method,
            url=url,
            data=request.content,
            headers={n: v for n, v in request.headers.items() if n in {"host", "content-type"}},
        )
        self._signer.add_auth(signed)
        request.headers.update(dict(signed.headers))
        yield request


def emulated_account(*, repo_root: Path, folder: Path) -> EmulatedAccount:
    """Return an account whose emulator does not run yet."""
    return EmulatedAccount(repo_root=repo_root, folder=folder, port=free_port())


def _adapt(path: Path) -> None:
    """Take out of a template what the emulator has no type for, and what refuses its plain HTTP."""
    template = json.loads(path.read_text())
    resources = {n: r for n, r in template["Resources"].items() if r["Type"] not in NOT_IN_THE_EMULATOR}
    for resource in resources.values():
        if resource["Type"] in {"AWS::SQS::QueuePolicy", "AWS::S3::BucketPolicy"}:
            policy = resource["Properties"]["PolicyDocument"]
            policy["Statement"] = [
                s for s in policy["Statement"] if "aws:SecureTransport" not in json.dumps(s)
            ]
    path.write_text(json.dumps(template | {"Resources": _without_empty_policies(resources)}))


def _without_empty_policies(resources: dict[str, Any]) -> dict[str, Any]:
    return {
        name: resource
        for name, resource in resources.items()
        if resource["Properties"].get("PolicyDocument", {}).get("Statement") != []
    }
