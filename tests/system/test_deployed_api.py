"""The deployed API on the emulator, by the real CDK command line: called at its doors, updated, destroyed."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from scanfleet import sample
from scanfleet.client import Scanfleet
from scanfleet.contract import Component, function_name
from scanfleet.jobs import JobState, new_job_id
from tests.support.deployed_api import ROOT_USER, EmulatedAccount, Signature, emulated_account

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

MAY_INVOKE = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "*"}],
}


@pytest.fixture(scope="module")
def account(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> EmulatedAccount:
    return emulated_account(repo_root=repo_root, folder=tmp_path_factory.mktemp("account"))


@pytest.fixture(scope="module")
def first_assembly(account: EmulatedAccount) -> Path:
    return account.synthesize("first")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return sample.make_sample(tmp_path_factory.mktemp("sample"), scans=6, points=5_000, seed=3)


@pytest.fixture(scope="module")
def deployed(account: EmulatedAccount, first_assembly: Path) -> Iterator[EmulatedAccount]:
    """The stacks deployed; then an emulator that checks signatures and holds roles to their policies.

    It deploys without those checks: it does not know all conditions of the policies that `cdk bootstrap`
    gives to its roles.
    """
    with account.running(checks_callers=False):
        account.deploy(first_assembly)
    with account.running(checks_callers=True) as processes:
        account.start_agent(processes)
        yield account


@pytest.fixture
def load_balancer(deployed):
    with deployed.load_balancer() as client:
        yield client


def user(account: EmulatedAccount, name: str, policy: dict | None) -> Credentials:
    iam = account.client("iam")
    iam.create_user(UserName=name)
    if policy is not None:
        iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


@pytest.fixture(scope="module")
def ann(deployed) -> Credentials:
    return user(deployed, "ann", MAY_INVOKE)


def submit(client: httpx.Client, made) -> str:
    """Submit a job over an uploaded scan, as any HTTP client may; return its id."""
    folder = client.get("/uploads").raise_for_status().json()["uri"]
    scan = next(made.scans_folder.iterdir())
    wanted = {"file": f"scans/{scan.name}", "mode": "upload", "size_bytes": scan.stat().st_size}
    signed = client.get("/presign", params=wanted).raise_for_status().json()
    upload = httpx.put(
        signed["url"], content=scan.read_bytes(), headers=signed.get("headers"), trust_env=False
    )
    upload.raise_for_status()
    body = {"source": f"{folder}scans/", "target": f"{folder}{new_job_id()}/", "processor": "reference"}
    answer = client.post("/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def test_a_job_posted_through_the_load_balancer_is_done_by_an_agent(deployed, made, tmp_path):
    with Scanfleet(deployed.load_balancer_url()) as client:
        job = client.submit(made.scans_folder, tmp_path / "result").wait()

    assert job.status is JobState.COMPLETED, job.failure
    assert (tmp_path / "result" / "report.json").is_file()


def test_a_job_posted_through_the_http_api_is_done_by_an_agent(deployed, ann, made, tmp_path):
    with Scanfleet(deployed.http_api_url(), auth=Signature(ann)) as client:
        job = client.submit(made.scans_folder, tmp_path / "result").wait()

    assert job.status is JobState.COMPLETED, job.failure
    assert job.owner == "arn:aws:iam::000000000000:user/ann"
    assert (tmp_path / "result" / "report.json").is_file()


def test_an_unsigned_call_of_the_http_api_is_refused(deployed):
    with deployed.http_api(None) as client:
        answer = client.post("/jobs", json={})

    assert answer.status_code == 403


def test_a_wrong_signature_is_refused(deployed, ann):
    with deployed.http_api(Credentials(ann.access_key, "wrong")) as client:
        answer = client.get("/jobs")

    assert answer.status_code == 403


def test_a_caller_whose_policy_does_not_allow_it_is_refused(deployed):
    with deployed.http_api(user(deployed, "bob", None)) as client:
        answer = client.get("/jobs")

    assert answer.status_code == 403


def test_callers_of_the_two_doors_do_not_see_each_others_jobs(deployed, load_balancer, ann, made):
    with deployed.http_api(ann) as signed:
        job_id = submit(signed, made)
        own = signed.get(f"/job/{job_id}")
    foreign = load_balancer.get(f"/job/{job_id}")

    assert own.status_code == 200
    assert foreign.status_code == 404
    assert foreign.headers["content-type"] == "application/problem+json"


def test_a_header_does_not_make_a_caller(deployed, load_balancer, ann, made):
    with deployed.http_api(ann) as signed:
        job_id = submit(signed, made)
    claims = base64.urlsafe_b64encode(b'{"sub":"arn:aws:iam::000000000000:user/ann"}').decode().rstrip("=")
    forged = {
        "Authorization": f"Bearer e30.{claims}.x",
        "X-Amzn-Oidc-Identity": "arn:aws:iam::000000000000:user/ann",
        "X-Amzn-Oidc-Data": f"e30.{claims}.x",
    }

    assert load_balancer.get(f"/job/{job_id}", headers=forged).status_code == 404


def test_the_dashboards_and_alarms_are_there(deployed, first_assembly):
    resources = json.loads((first_assembly / "Monitoring.template.json").read_text())["Resources"].values()
    wanted = {r["Properties"]["AlarmName"] for r in resources if r["Type"] == "AWS::CloudWatch::Alarm"}
    cloudwatch = deployed.client("cloudwatch")
    found = {alarm["AlarmName"] for alarm in cloudwatch.describe_alarms()["MetricAlarms"]}
    boards = [entry["DashboardName"] for entry in cloudwatch.list_dashboards()["DashboardEntries"]]

    assert wanted
    assert wanted <= found
    assert len(boards) == sum(r["Type"] == "AWS::CloudWatch::Dashboard" for r in resources) > 0


def test_the_function_is_ready_with_no_more_than_its_role_allows(load_balancer):
    assert load_balancer.get("/status/health").json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/docs/static/swagger-ui-bundle.js", "/openapi.json", "/docs"])
def test_large_pages_pass_the_load_balancer(load_balancer, path):
    answer = load_balancer.get(path)

    assert answer.status_code == 200
    assert answer.content


def test_an_update_reaches_what_is_deployed_and_destroying_the_api_keeps_the_data(repo_root, tmp_path):
    account = emulated_account(repo_root=repo_root, folder=tmp_path)
    operator = "arn:aws:iam::000000000000:root"
    first = account.synthesize("first")
    second = account.synthesize("second", api={"operators": [operator]})
    name = function_name("local", Component.API)

    with account.running(checks_callers=False):
        account.deploy(first)
        with account.load_balancer() as anybody:
            job_of_anybody = anybody.get("/uploads").json()["uri"]
        with account.http_api(ROOT_USER) as root:
            before = root.get("/presign", params={"file": job_of_anybody + "scan.ply", "mode": "download"})

        account.deploy(second)
        with account.http_api(ROOT_USER) as root:
            after = root.get("/presign", params={"file": job_of_anybody + "scan.ply", "mode": "download"})

        account.destroy(second)
        with pytest.raises(ClientError):
            account.outputs()
        with pytest.raises(ClientError):
            account.client("lambda").get_function(FunctionName=name)
        assert account.client("elbv2").describe_load_balancers()["LoadBalancers"] == []
        assert account.system.job_table

    assert (before.status_code, after.status_code) == (422, 200), (
        "only an operator may read another's uploads"
    )
