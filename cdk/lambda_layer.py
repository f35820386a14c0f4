"""Builds the functions' layers into build/lambda: run by `make setup`, as `python -m cdk.lambda_layer`.

    layer.zip        packages for AWS: Linux on arm64, the pinned Python
    layer-host.zip   the same packages for this machine, where the emulator of the local stage runs functions

No Docker: pip takes the wheels that requirements-lambda.txt pins by hash, and nothing that would be compiled.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cdk.lambda_zip import PYTHON, add_bytecode, write_zip

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements-lambda.txt"
BUILD = ROOT / "build" / "lambda"
LAYER = BUILD / "layer.zip"
HOST_LAYER = BUILD / "layer-host.zip"

SERVICES = (
    "apigatewaymanagementapi",
    "autoscaling",
    "cloudwatch",
    "dynamodb",
    "ec2",
    "logs",
    "s3",
    "sqs",
    "ssm",
    "sts",
)
"""Whose models stay in botocore: what functions call. All others are most of its size."""
UNUSED = ("bin", "boto3/examples", "boto3/data", "**/tests", "**/*.pyi", "**/*.dist-info/RECORD")
"""boto3/data describes its resource objects; functions use clients only. RECORD names what is removed."""
FOR_AWS = (
    "--platform=manylinux2014_aarch64",
    f"--python-version={PYTHON[0]}.{PYTHON[1]}",
    "--implementation=cp",
)


def main() -> int:
    """Build both layers; return the exit code."""
    build_layer(LAYER, for_host=False)
    build_layer(HOST_LAYER, for_host=True)
    return 0


def build_layer(archive: Path, *, for_host: bool) -> None:
    """Write one layer. Raises CalledProcessError when pip fails; its output says why."""
    with tempfile.TemporaryDirectory() as temporary:
        packages = Path(temporary, "python")
        _install(packages, () if for_host else FOR_AWS)
        _strip(packages)
        # Bytecode of another Python would only be dead weight.
        if for_host or sys.version_info[:2] == PYTHON:
            add_bytecode(packages, deployed_to="/opt/python")
        write_zip(Path(temporary), archive)


def _install(folder: Path, options: tuple[str, ...]) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q", "install")
    fixed = ("--no-deps", "--no-compile", "--only-binary=:all:", "--require-hashes", "-r", str(REQUIREMENTS))
    subprocess.run([*pip, *fixed, *options, "--target", str(folder)], check=True)


def _strip(packages: Path) -> None:
    for pattern in UNUSED:
        for path in list(packages.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (packages / "botocore" / "data").iterdir():
        if path.is_dir() and path.name not in SERVICES:
            shutil.rmtree(path)


if __name__ == "__main__":
    sys.exit(main())
