"""Deploys the data stack to the emulator: the same template that AWS gets, by the real CDK command line.

The emulator does not apply three things of the template, and reports none of them: the table's time to live,
which is set here with boto3, and the buckets' lifecycle rules and access logs, which do without.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.contract import (
    DATA_PARAMETERS,
    PRODUCT,
    UPLOADS_PREFIX,
    Env,
    Parameter,
    Pool,
    Priority,
    TableKey,
    parameter_name,
)
from scanfleet.local.cdk_cli import cdk, synthesize, without_aws
from scanfleet.local.emulator import Emulator, start_emulator
from scanfleet.local.processes import LocalModeError, Processes

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

LOCAL_STAGE = "local"
REGION = "us-east-1"
ACCOUNT = "000000000000"
CALLS = Config(retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=5, proxies={})
BOOTSTRAP_PARAMETER = "/cdk-bootstrap/hnb659fds/version"
"""What `cdk bootstrap` leaves behind. Source: CDK developer guide, "CDK bootstrapping contract"."""


@dataclass(frozen=True, kw_only=True)
class DeployedSystem:
    """Where everything of a deployed data stack is."""

    endpoint_url: str
    stage: str
    job_table: str
    data_bucket: str
    artifacts_bucket: str
    queues: Mapping[Pool, Mapping[Priority, str]]
    """Pool -> priority -> queue URL."""
    dead_letters: Mapping[Pool, str]
    """Pool -> URL of its dead-letter queue."""
    allowed_prefixes: tuple[str, ...]
    """s3:// URIs, each ending in "/"."""

    def environment(self) -> dict[str, str]:
        """Return the variables by which API, agents and tools find this system; to be added to others.

        Credentials are made up, and this user's AWS profiles are kept out of the way.
        """
        return emulator_environment(self.endpoint_url) | {
            Env.STAGE.value: self.stage,
            Env.JOB_TABLE.value: self.job_table,
            Env.ARTIFACTS_BUCKET.value: self.artifacts_bucket,
            Env.ALLOWED_PREFIXES.value: ",".join(self.allowed_prefixes),
            Env.QUEUES.value: json.dumps(self.queues),
            Env.DEAD_LETTERS.value: json.dumps(self.dead_letters),
            Env.UPLOADS_URI.value: f"s3://{self.data_bucket}/{UPLOADS_PREFIX}",
        }

    def process_environment(self) -> dict[str, str]:
        """Return a child process's whole environment: this process's, less AWS settings, plus the above."""
        return without_aws(os.environ) | self.environment()


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """A running emulator with the data stack in it."""

    emulator: Emulator
    system: DeployedSystem


def start_cloud(
    *, processes: Processes, repo_root: Path, state_folder: Path, log_file: Path, port: int = 0
) -> Cloud:
    """Start the emulator and deploy the data stack to it; the synth runs beside the start.

    Raises LocalModeError. What was started is then stopped with `processes`.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        assembly = pool.submit(synthesize, repo_root=repo_root, stage=LOCAL_STAGE)
        emulator = start_emulator(
            processes=processes, repo_root=repo_root, state_folder=state_folder, log_file=log_file, port=port
        )
        bootstrap(endpoint_url=emulator.endpoint_url, repo_root=repo_root)
        system = deploy_assembly(assembly.result(), endpoint_url=emulator.endpoint_url, repo_root=repo_root)
    return Cloud(emulator=emulator, system=system)


def deploy_data_stack(*, endpoint_url: str, repo_root: Path, stage: str = LOCAL_STAGE) -> DeployedSystem:
    """Deploy the data stack to a running emulator and return where everything is.

    Nothing is deployed when the emulator has this very template already. Raises LocalModeError.
    """
    assembly = synthesize(repo_root=repo_root, stage=stage)
    bootstrap(endpoint_url=endpoint_url, repo_root=repo_root)
    return deploy_assembly(assembly, endpoint_url=endpoint_url, repo_root=repo_root, stage=stage)


def bootstrap(*, endpoint_url: str, repo_root: Path) -> None:
    """Give the emulator what every CDK deployment stands on, once for its state folder."""
    if BOOTSTRAP_PARAMETER in _parameters(emulator_client("ssm", endpoint_url), [BOOTSTRAP_PARAMETER]):
        return
    with tempfile.TemporaryDirectory() as empty:  # away from cdk.json, so that the app does not run for this
        cdk(
            ["bootstrap", f"aws://{ACCOUNT}/{REGION}"],
            repo_root=repo_root,
            environment=emulator_environment(endpoint_url),
            cwd=Path(empty),
        )


def deploy_assembly(
    assembly: Path, *, endpoint_url: str, repo_root: Path, stage: str = LOCAL_STAGE
) -> DeployedSystem:
    """Deploy an assembly of the data stack unless the emulator has it already; return where everything is."""
    stack_name = f"{PRODUCT}-{stage}-data"
    if not _is_deployed(assembly, stack_name=stack_name, endpoint_url=endpoint_url):
        cdk(
            ["deploy", "--app", assembly, "--all", "--require-approval", "never", "--progress", "events"],
            repo_root=repo_root,
            environment=emulator_environment(endpoint_url),
            cwd=repo_root,
        )
    system = find_system(endpoint_url=endpoint_url, stage=stage)
    try:
        _require_parts(system)
        _set_time_to_live(system)
    except (ClientError, BotoCoreError) as error:
        raise LocalModeError(
            f"the emulator's state is damaged ({error}); remove its state folder (make clean) and start again"
        ) from error
    return system


def find_system(*, endpoint_url: str, stage: str = LOCAL_STAGE) -> DeployedSystem:
    """Return where everything is, from the same SSM parameters that machines on AWS read.

    Raises LocalModeError when the stack is not there.
    """
    names = {parameter_name(stage, parameter): parameter for parameter in DATA_PARAMETERS}
    found = _parameters(emulator_client("ssm", endpoint_url), list(names))
    if missing := names.keys() - found.keys():
        raise LocalModeError(f"the data stack is not deployed: no parameter {sorted(missing)[0]}")
    value = {parameter: found[name] for name, parameter in names.items()}
    queues = {
        Pool(pool): {Priority(p): _at_endpoint(url, endpoint_url) for p, url in urls.items()}
        for pool, urls in json.loads(value[Parameter.QUEUES]).items()
    }
    dead_letters = {
        Pool(pool): _at_endpoint(url, endpoint_url)
        for pool, url in json.loads(value[Parameter.DEAD_LETTERS]).items()
    }
    return DeployedSystem(
        endpoint_url=endpoint_url,
        stage=stage,
        job_table=value[Parameter.JOB_TABLE],
        data_bucket=value[Parameter.DATA_BUCKET],
        artifacts_bucket=value[Parameter.ARTIFACTS_BUCKET],
        queues=queues,
        dead_letters=dead_letters,
        allowed_prefixes=tuple(value[Parameter.ALLOWED_PREFIXES].split(",")),
    )


def emulator_environment(endpoint_url: str) -> dict[str, str]:
    """Return the AWS variables that point every client at the emulator, and at nothing else."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def operators_environment(endpoint_url: str) -> dict[str, str]:
    """Return what a person's shell needs for the verbs that talk to AWS, to mean the emulator."""
    wanted = (
        "AWS_ENDPOINT_URL",
        "AWS_DEFAULT_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "NO_PROXY",
    )
    whole = emulator_environment(endpoint_url)
    return {name: whole[name] for name in wanted}


# --- The emulator's answers --------------------------------------------------------------------------------


def emulator_client(service: Any, endpoint_url: str, *, config: Config = CALLS) -> Any:
    """Return a client of the emulator, and of nothing that this user's AWS profiles name."""
    return boto3.session.Session().client(
        service,
        endpoint_url=endpoint_url,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 - the emulator takes any
        config=config,
    )


def _parameters(ssm: "SSMClient", names: list[str]) -> dict[str, str]:
    try:
        answer = ssm.get_parameters(Names=names)
    except (ClientError, BotoCoreError) as error:
        raise LocalModeError(f"the emulator does not answer: {error}") from error
    return {found["Name"]: found["Value"] for found in answer["Parameters"]}


def _is_deployed(assembly: Path, *, stack_name: str, endpoint_url: str) -> bool:
    cloudformation = emulator_client("cloudformation", endpoint_url)
    try:
        stack = cloudformation.describe_stacks(StackName=stack_name)["Stacks"][0]
        template = cloudformation.get_template(StackName=stack_name)["TemplateBody"]
    except ClientError:  # there is no such stack
        return False
    is_settled = stack["StackStatus"] in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}
    wanted = json.loads((assembly / "Data.template.json").read_text())
    return is_settled and template == wanted


def _require_parts(system: DeployedSystem) -> None:
    """Ask each part for a sign of life: the emulator may have been killed before it wrote its state."""
    emulator_client("dynamodb", system.endpoint_url).describe_table(TableName=system.job_table)
    sqs = emulator_client("sqs", system.endpoint_url)
    job_queues = [url for urls in system.queues.values() for url in urls.values()]
    for url in (*job_queues, *system.dead_letters.values()):
        sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    s3 = emulator_client("s3", system.endpoint_url)
    for bucket in (system.data_bucket, system.artifacts_bucket):
        s3.head_bucket(Bucket=bucket)


def _set_time_to_live(system: DeployedSystem) -> None:
    dynamodb = emulator_client("dynamodb", system.endpoint_url)
    now = dynamodb.describe_time_to_live(TableName=system.job_table)["TimeToLiveDescription"]
    if now["TimeToLiveStatus"] != "ENABLED":
        dynamodb.update_time_to_live(
            TableName=system.job_table,
            TimeToLiveSpecification={"Enabled": True, "AttributeName": TableKey.EXPIRES_AT.value},
        )


def _at_endpoint(queue_url: str, endpoint_url: str) -> str:
    """Return the queue's URL at today's endpoint: kept state may hold yesterday's port."""
    return endpoint_url + urlsplit(queue_url).path
