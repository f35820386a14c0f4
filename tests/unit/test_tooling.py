"""What installs and runs the project: pinned, repeatable, and quick the second time."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib

import pytest


@pytest.fixture(scope="module")
def bootstrap():
    """The setup script as a module: it is no part of the package."""
    from tests.conftest import ROOT

    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bootstrap"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bootstrap"]


@pytest.fixture
def step(bootstrap, tmp_path):
    """A step that "installs" by writing a file, and counts how often."""
    recipe, product = tmp_path / "recipe", tmp_path / "product"
    recipe.write_text("one")
    runs = []

    def install() -> None:
        runs.append(recipe.read_text())
        if recipe.read_text() == "broken":
            raise bootstrap.SetupError("no such package")
        product.write_text("installed")

    made = bootstrap.Step(
        name="it", inputs=(recipe,), stamp=tmp_path / "stamp", present=(product,), install=install
    )
    return made, recipe, product, runs


def test_a_step_that_is_done_is_not_done_again(step):
    made, _, _, runs = step

    made.run()
    made.run()

    assert runs == ["one"]


def test_a_step_is_done_again_when_its_input_changed(step):
    made, recipe, _, runs = step
    made.run()

    recipe.write_text("two")
    made.run()

    assert runs == ["one", "two"]


def test_a_step_is_done_again_when_its_result_was_deleted(step):
    made, _, product, runs = step
    made.run()

    product.unlink()
    made.run()

    assert len(runs) == 2


def test_an_interrupted_step_starts_again(step, bootstrap):
    # given a step that was done, and then failed on a new input
    made, recipe, _, runs = step
    made.run()
    recipe.write_text("broken")
    with pytest.raises(bootstrap.SetupError):
        made.run()

    # when the old input is back, whose stamp existed once
    recipe.write_text("one")
    made.run()

    # then it is not taken for done
    assert runs == ["one", "broken", "one"]


def test_a_failing_program_shows_the_end_of_its_output(bootstrap):
    argv = [sys.executable, "-c", "import sys; print('reason'); sys.exit(3)"]

    with pytest.raises(bootstrap.SetupError, match=r"it failed \(exit code 3\)(.|\n)*reason"):
        bootstrap.call(argv, what="it")


def test_a_failed_step_fails_the_setup_and_names_itself(bootstrap, step):
    made, recipe, _, _ = step
    recipe.write_text("broken")

    with pytest.raises(bootstrap.SetupError, match="no such package"):
        bootstrap.run_chains([[made]])


@pytest.mark.parametrize(
    "name",
    ["requirements.txt", "requirements-agent.txt", "requirements-emulator.txt", "requirements-checks.txt"],
)
def test_every_python_package_is_pinned_by_version_and_hash_and_no_index_is_named(repo_root, name):
    text = (repo_root / name).read_text()
    entries = re.split(r"\n(?=[a-z])", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).strip())

    assert "://" not in text
    assert entries
    for entry in entries:
        assert re.match(r"[a-zA-Z0-9._\[\],-]+==[^\s;]+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_the_cdk_command_line_is_pinned_and_its_lock_names_no_host(repo_root):
    wanted = json.loads((repo_root / "package.json").read_text())["devDependencies"]
    lock = json.loads((repo_root / "package-lock.json").read_text())
    installed = {name: body for name, body in lock["packages"].items() if name}

    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    assert {f"node_modules/{name}": version for name, version in wanted.items()}.items() <= {
        name: body["version"] for name, body in installed.items()
    }.items()
    assert all(body["integrity"].startswith("sha512-") for body in installed.values())
    # Who takes donations is told, where a package was fetched from is not.
    assert not any("resolved" in body for body in installed.values())


def test_every_dependency_of_the_project_is_in_the_lock_file(repo_root):
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(requirement for extra in extras for requirement in extra)]
    names = {re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower() for requirement in wanted}
    locked = set(
        re.findall(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==", (repo_root / "requirements.txt").read_text(), re.M)
    )

    assert names <= locked


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run"], ["python -m scanfleet.local run"]),
        (["run", "SCANS=my scans"], ['python -m scanfleet.local run --scans "my scans"']),
        (["up", "AGENTS=4", "PORT=9000"], ["python -m scanfleet.local up --agents 4 --port 9000"]),
        (["bench", "ONLY=transfer"], ["python -m benchmarks --only transfer"]),
        (
            ["check", "test"],
            [
                "ruff format --check",
                "mypy --no-error-summary\n",
                "mypy --no-error-summary --platform win32",
                "cdk synth",
                "tests/unit tests/synth",
                "--ignore=tests/unit",
            ],
        ),
    ],
)
def test_make_runs_what_it_says(repo_root, words, expected):
    said = subprocess.run(
        ["make", "--dry-run", *words], cwd=repo_root, capture_output=True, text=True, check=True
    ).stdout

    for command in expected:
        assert said.count(command) == 1, said
