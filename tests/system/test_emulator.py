"""The emulated cloud and the data stack in it, from start to stop."""

import json
import os
import shutil
import signal
import socket
from datetime import timedelta
from ipaddress import ip_address

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError

from scanfleet import contract, settings
from scanfleet.contract import Env, Pool, Priority, TableIndex, TableKey
from scanfleet.local import deploy
from scanfleet.local.deploy import deploy_data_stack, find_system
from scanfleet.local.emulator import listening_addresses, start_emulator
from scanfleet.local.processes import LocalModeError, Processes
from tests.support.emulated import emulated_cloud, running_emulator


def test_the_emulator_listens_on_this_machine_only(cloud):
    addresses = listening_addresses(cloud.emulator.child.pid)

    assert addresses
    assert all(ip_address(ip).is_loopback for ip, _ in addresses)


def test_the_job_table_has_the_contracts_keys_and_indexes_and_deletes_expired_jobs(cloud):
    table = cloud.dynamodb.describe_table(TableName=cloud.system.job_table)["Table"]
    expiry = cloud.dynamodb.describe_time_to_live(TableName=cloud.system.job_table)["TimeToLiveDescription"]

    keys = {key["AttributeName"]: key["KeyType"] for key in table["KeySchema"]}
    assert keys == {TableKey.PARTITION: "HASH", TableKey.SORT: "RANGE"}
    assert {index["IndexName"] for index in table["GlobalSecondaryIndexes"]} == set(TableIndex)
    assert expiry == {"TimeToLiveStatus": "ENABLED", "AttributeName": TableKey.EXPIRES_AT}


@pytest.mark.parametrize("pool", Pool)
@pytest.mark.parametrize("priority", Priority)
def test_every_pool_and_priority_has_a_queue_that_carries_messages(cloud, pool, priority):
    url = cloud.system.queues[pool][priority]

    cloud.sqs.send_message(QueueUrl=url, MessageBody=f"{pool} {priority}")
    (message,) = cloud.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
    cloud.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    assert message["Body"] == f"{pool} {priority}"


def test_the_visibility_timeout_of_a_deployed_queue_exceeds_the_lease(cloud):
    url = cloud.system.queues[Pool.WINDOWS_GPU][Priority.NORMAL]
    attributes = cloud.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]

    assert int(attributes["VisibilityTimeout"]) > contract.LEASE_DURATION.total_seconds()
    assert json.loads(attributes["RedrivePolicy"])["maxReceiveCount"] == contract.MAX_RECEIVE_COUNT


def test_both_buckets_keep_old_versions(cloud):
    for bucket in (cloud.system.data_bucket, cloud.system.artifacts_bucket):
        assert cloud.s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"


def test_the_systems_environment_satisfies_the_settings(cloud, monkeypatch):
    # given a process with the system's environment
    for name, value in cloud.system.environment().items():
        monkeypatch.setenv(name, value)

    # when it reads its settings and calls AWS
    loaded = settings.load(settings.ApiSettings)
    boto3.session.Session().client("s3").head_bucket(Bucket=cloud.system.data_bucket)

    # then they name the deployed parts
    assert loaded.job_table == cloud.system.job_table
    assert loaded.queues == cloud.system.queues
    assert loaded.allowed_prefixes == (f"s3://{cloud.system.data_bucket}/",)
    assert loaded.uploads_uri == f"s3://{cloud.system.data_bucket}/{contract.UPLOADS_PREFIX}"


def test_a_child_process_gets_no_aws_settings_of_the_users(cloud, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "secret")
    monkeypatch.setenv(Env.POOL, "linux-cpu")

    environment = cloud.system.process_environment()

    assert environment.keys().isdisjoint({"AWS_PROFILE", "AWS_SESSION_TOKEN", Env.POOL})
    assert environment["PATH"] == os.environ["PATH"]


def test_deploying_an_unchanged_template_again_deploys_nothing(cloud, repo_root, monkeypatch):
    # given a CDK command line that must not run
    monkeypatch.setattr(deploy, "cdk", lambda arguments, **_: pytest.fail(f"cdk {arguments[0]} ran"))

    # when the same is deployed again
    system = deploy_data_stack(endpoint_url=cloud.system.endpoint_url, repo_root=repo_root)

    # then it is found where it was
    assert system == cloud.system


def test_jobs_files_and_messages_survive_a_restart_on_another_port(repo_root, tmp_path):
    # given a stopped cloud that holds an item, an object and a message
    key = {TableKey.PARTITION: {"S": "JOB#1"}, TableKey.SORT: {"S": "JOB"}}
    with emulated_cloud(repo_root=repo_root, folder=tmp_path) as before:
        before.dynamodb.put_item(TableName=before.system.job_table, Item=key)
        before.s3.put_object(Bucket=before.system.data_bucket, Key="scans/a.ply", Body=b"points")
        url = before.system.queues[Pool.LINUX_CPU][Priority.HIGH]
        before.sqs.send_message(QueueUrl=url, MessageBody="kept")

    # when it starts again
    with emulated_cloud(repo_root=repo_root, folder=tmp_path) as after:
        # then all three are there, at the new port
        assert after.system.endpoint_url != before.system.endpoint_url
        assert after.system.job_table == before.system.job_table
        assert "Item" in after.dynamodb.get_item(TableName=after.system.job_table, Key=key)
        stored = after.s3.get_object(Bucket=after.system.data_bucket, Key="scans/a.ply")
        assert stored["Body"].read() == b"points"
        url = after.system.queues[Pool.LINUX_CPU][Priority.HIGH]
        assert url.startswith(after.system.endpoint_url)
        assert after.sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "kept"


def test_a_state_that_lost_a_part_is_reported_and_not_deployed_over(repo_root, tmp_path):
    with emulated_cloud(repo_root=repo_root, folder=tmp_path) as damaged:
        damaged.dynamodb.delete_table(TableName=damaged.system.job_table)

        with pytest.raises(LocalModeError, match="state is damaged"):
            deploy_data_stack(endpoint_url=damaged.system.endpoint_url, repo_root=repo_root)


def test_a_stack_that_was_never_deployed_is_reported(repo_root, tmp_path):
    with (
        running_emulator(repo_root=repo_root, folder=tmp_path) as empty,
        pytest.raises(LocalModeError, match="the data stack is not deployed"),
    ):
        find_system(endpoint_url=empty.endpoint_url)


def test_the_emulators_death_is_noticed_with_its_last_log_lines(repo_root, tmp_path):
    with Processes() as processes:
        emulator = start_emulator(
            processes=processes, repo_root=repo_root, state_folder=tmp_path, log_file=tmp_path / "log"
        )
        os.kill(emulator.child.pid, signal.SIGKILL)

        death = processes.wait_for_death(timedelta(seconds=30))

    emulator.release()
    assert death is not None
    assert str(death).startswith("emulator was killed by signal 9")
    assert "Running on" in str(death)


def test_a_busy_port_is_refused_by_name(repo_root, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken, Processes() as processes:
        port = taken.getsockname()[1]
        with pytest.raises(LocalModeError, match=f"port {port} .*Address already in use"):
            start_emulator(
                processes=processes,
                repo_root=repo_root,
                state_folder=tmp_path,
                log_file=tmp_path / "log",
                port=port,
            )


def test_two_emulators_cannot_share_a_state_folder(repo_root, tmp_path):
    with (
        running_emulator(repo_root=repo_root, folder=tmp_path),
        Processes() as processes,
        pytest.raises(LocalModeError, match="another Scanfleet on this machine uses"),
    ):
        start_emulator(
            processes=processes,
            repo_root=repo_root,
            state_folder=tmp_path / "state",
            log_file=tmp_path / "log",
        )


def test_a_failed_deployment_leaves_no_emulator_behind(repo_root, tmp_path):
    # given a checkout whose app does not synthesize
    broken = tmp_path / "checkout"
    shutil.copytree(repo_root / "cdk", broken / "cdk")
    for name in (".venv", ".venv-emulator", "node_modules"):
        (broken / name).symlink_to(repo_root / name)
    (broken / "cdk.json").write_text((repo_root / "cdk.json").read_text())
    (broken / "app.py").write_text("raise SystemExit('this app is broken')")

    # when the cloud is started from it
    with (
        pytest.raises(LocalModeError, match=r"cdk synth failed(.|\n)*this app is broken"),
        emulated_cloud(repo_root=broken, folder=tmp_path),
    ):
        pytest.fail("a broken app was deployed")

    # then no emulator runs on its folder
    state = str(tmp_path / "state")
    assert not [p for p in psutil.Process().children(recursive=True) if state in str(p.environ())]


def test_a_missing_emulator_is_reported_with_what_to_do(tmp_path):
    with Processes() as processes, pytest.raises(LocalModeError, match="run make setup"):
        start_emulator(
            processes=processes, repo_root=tmp_path, state_folder=tmp_path, log_file=tmp_path / "log"
        )


def test_an_unknown_table_is_still_an_error_on_the_emulator(cloud):
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        cloud.dynamodb.describe_table(TableName="no-such-table")
