"""The agent's two files: what is in them, that they are the same each time, and that they install."""

import hashlib
import re
import subprocess
import sys
import time
import zipfile

import pytest
import yaml
from aws_cdk import App, Stack
from aws_cdk.aws_iam import Role, ServicePrincipal

from cdk import agent_bundle, agent_wheels
from cdk.agent_bundle import AgentBundle, agent_wheel, built_wheelhouse
from cdk.config import ConfigError


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return agent_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def lock(repo_root):
    text = (repo_root / "requirements-agent.txt").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- Our own wheel -----------------------------------------------------------------------------------------


def test_equal_sources_make_equal_bytes(wheel, tmp_path):
    assert agent_wheel(tmp_path).read_bytes() == wheel.read_bytes()


def test_the_wheel_is_made_within_a_synth(tmp_path):
    started = time.perf_counter()
    agent_wheel(tmp_path)

    assert time.perf_counter() - started < 1  # measured: 0.1 s


def test_the_wheel_has_all_of_the_package_but_its_pages_and_nothing_else(wheel, repo_root):
    package = repo_root / "runtime"
    pages = [package / "scanfleet" / "api" / name for name in ("console", "pages")]
    sources = {
        path.relative_to(package).as_posix()
        for path in (package / "scanfleet").rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and not any(folder in path.parents for folder in pages)
    }
    names = set(zipfile.ZipFile(wheel).namelist())

    assert sources <= names
    assert {name.rpartition("/")[2] for name in names - sources} == {"METADATA", "RECORD", "WHEEL"}


def test_pip_installs_the_wheel_and_the_package_knows_its_version(wheel, tmp_path):
    options = ["--no-index", "--no-deps", "-q", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", tmp_path, wheel], check=True
    )

    code = "import importlib.metadata as m, scanfleet; print(m.version('scanfleet'), scanfleet.__file__)"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.split()
    assert said == ["0.1.0", str(tmp_path / "scanfleet" / "__init__.py")]


# --- The packages ------------------------------------------------------------------------------------------


def test_the_lock_holds_what_the_agent_and_the_reference_processor_need_and_no_more(lock, repo_root):
    tested = (repo_root / "requirements.txt").read_text()

    assert {"boto3", "httpx", "psutil", "pydantic-settings", "numpy", "scipy", "small-gicp"} <= lock.keys()
    assert not {"aws-cdk-lib", "fastapi", "moto", "pytest", "uvicorn"} & lock.keys()
    assert [f"{n}=={v}" for n, v in lock.items() if f"\n{n}=={v}" not in f"\n{tested}"] == []


def test_the_wheelhouse_is_the_lock_and_one_wheel_for_windows_of_each_package(lock, repo_root):
    archive, digest = built_wheelhouse()

    names = zipfile.ZipFile(archive).namelist()
    wheels = [name for name in names if name.endswith(".whl")]
    assert digest == sha256(archive)
    assert (
        zipfile.ZipFile(archive).read("requirements.txt")
        == (repo_root / "requirements-agent.txt").read_bytes()
    )
    assert sorted(names) == sorted(["requirements.txt", *wheels])
    found = {wheel.split("-")[0].lower().replace("_", "-"): wheel.split("-")[1] for wheel in wheels}
    assert found == {name.replace(".", "-"): version for name, version in lock.items()}
    assert all(re.search(r"-(any|win_amd64)\.whl$", wheel) for wheel in wheels)
    assert all(re.search(r"-(cp311-cp311|cp37-abi3|py3-none|py2\.py3-none)-", wheel) for wheel in wheels)


def test_the_wheels_resolve_offline_for_the_image_s_python(tmp_path):
    archive, _ = built_wheelhouse()
    zipfile.ZipFile(archive).extractall(tmp_path)
    target = [
        "--platform=win_amd64",
        f"--python-version={agent_wheels.WINDOWS_PYTHON}",
        "--only-binary=:all:",
    ]
    pip = [sys.executable, "-I", "-m", "pip", "install", "--dry-run", "-q", "--disable-pip-version-check"]
    wanted = ["--require-hashes", "-r", tmp_path / "requirements.txt", "--target", tmp_path / "site"]

    command = [*pip, "--no-index", "--find-links", tmp_path, *target, *wanted]
    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_the_image_s_python_is_the_one_that_the_wheels_are_for(repo_root):
    pinned = yaml.safe_load((repo_root / "ami_pipeline" / "versions.yaml").read_text())["python"]["version"]

    assert pinned.startswith(f"{agent_wheels.WINDOWS_PYTHON}.")


def test_a_missing_wheelhouse_says_what_to_run(monkeypatch, tmp_path):
    monkeypatch.setattr(agent_wheels, "BUILD", tmp_path)
    monkeypatch.setattr(agent_bundle, "ROOT", tmp_path)

    with pytest.raises(ConfigError, match="make setup"):
        built_wheelhouse()


def test_a_changed_lock_is_a_missing_wheelhouse(monkeypatch, tmp_path):
    changed = tmp_path / "requirements-agent.txt"
    changed.write_bytes(agent_wheels.LOCK.read_bytes() + b"# changed\n")
    monkeypatch.setattr(agent_wheels, "LOCK", changed)

    with pytest.raises(ConfigError, match="make setup"):
        built_wheelhouse()


def test_an_archive_depends_on_its_entries_only(tmp_path):
    one, other = tmp_path / "one.zip", tmp_path / "other.zip"
    entries = [("b", b"2"), ("a", b"1")]

    agent_wheels.write_archive(one, entries, compression=zipfile.ZIP_STORED)
    agent_wheels.write_archive(other, reversed(entries), compression=zipfile.ZIP_STORED)

    assert one.read_bytes() == other.read_bytes()
    assert zipfile.ZipFile(one).namelist() == ["a", "b"]


# --- In S3 -------------------------------------------------------------------------------------------------


@pytest.fixture
def deployed(tmp_path):
    app = App(outdir=str(tmp_path), analytics_reporting=False)
    stack = Stack(app, "Stack")
    bundle = AgentBundle(stack, "Bundle")
    role = Role(stack, "Role", assumed_by=ServicePrincipal("ec2.amazonaws.com"))
    bundle.grant_read(role)
    return bundle, app.synth().get_stack_by_name("Stack"), tmp_path


def test_the_assembly_holds_both_files_without_a_copy_of_the_large_one(deployed):
    bundle, _, folder = deployed

    staged = {path.suffix: path for path in folder.glob("asset.*")}
    assert sha256(staged[".whl"]) == bundle.source.sha256
    assert staged[".zip"].name == f"asset.{bundle.wheelhouse.object_key}"
    built = built_wheelhouse()[0]
    is_one_disk = staged[".zip"].stat().st_dev == built.stat().st_dev
    assert staged[".zip"].samefile(built) or not is_one_disk


def test_two_stacks_share_one_object(tmp_path):
    app = App(outdir=str(tmp_path), analytics_reporting=False)
    one, other = (AgentBundle(Stack(app, name), "Bundle") for name in ("One", "Other"))

    assert (one.source.object_key, one.wheelhouse.object_key) == (
        other.source.object_key,
        other.wheelhouse.object_key,
    )


def test_the_reader_may_read_these_two_objects_only(deployed):
    bundle, stack, _ = deployed

    (policy,) = [r for r in stack.template["Resources"].values() if r["Type"] == "AWS::IAM::Policy"]
    (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
    keys = [str(resource).split("/")[-1].rstrip("']}") for resource in statement["Resource"]]
    assert statement["Action"] == "s3:GetObject"
    assert keys == [bundle.source.object_key, bundle.wheelhouse.object_key]
