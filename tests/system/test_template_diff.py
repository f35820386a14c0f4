"""What a change does to the templates, as `make diff` shows it on a pull request."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.system


@pytest.fixture
def checkout(repo_root, tmp_path):
    """A repository of its own with this checkout's files, committed, and what is installed here."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    kept = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=repo_root,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, kept.split("\0")):
        if (repo_root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((repo_root / name).read_bytes())
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "base")
    for name in (".venv", "node_modules"):
        (folder / name).symlink_to(repo_root / name)
    (folder / "build").mkdir()
    for name in ("build/agent", "build/lambda"):
        (folder / name).symlink_to(repo_root / name)
    return folder


def git(folder, *words):
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *words], cwd=folder, check=True
    )


def diff(folder, *words):
    return subprocess.run(
        [sys.executable, folder / "scripts" / "template_diff.py", "--stage", "dev", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_changed_setting_is_shown_where_it_changes_a_template_and_reported(checkout):
    # given a change that is not committed yet
    tree = json.loads((checkout / "cdk.json").read_text())
    tree["context"]["scanfleet"]["stages"]["dev"]["noncurrent_versions_kept_days"] = 77
    (checkout / "cdk.json").write_text(json.dumps(tree))

    # when it is compared with the commit
    report = checkout / "build" / "report.md"
    done = diff(checkout, "--base", "HEAD", "--report", report)

    # then the buckets' rules are all that differs, and the report says the same
    assert done.returncode == 0, done.stderr
    parts = {part.split()[0]: part for part in done.stdout.split("Stack ") if part.strip()}
    assert set(parts) == {"Api", "Data", "FirstImage", "Fleet", "Image", "Monitoring", "Network"}
    assert "77" in parts["Data"]
    assert "AWS::S3::Bucket" in parts["Data"]
    assert all("There were no differences" in parts[name] for name in parts.keys() - {"Data"})
    assert done.stdout.strip() in report.read_text()
    assert not (checkout / "build" / "diff" / "base").exists()


def test_an_unknown_commit_is_refused_by_name(checkout):
    done = diff(checkout, "--base", "no-such-commit")

    assert done.returncode == 1
    assert done.stderr.startswith("diff: BASE: got 'no-such-commit'; allowed: a commit")
