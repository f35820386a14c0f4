"""What Lambda functions are made of: our code, and the packages that `make setup` built for them.

Both are zip files in build/lambda, made without Docker. The code's is made at synth, when the source has
changed since; the packages' are not: synth downloads nothing.
"""

import hashlib
import shutil
import sys
import tempfile
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from aws_cdk.aws_lambda import AssetCode, Code

from cdk import lambda_zip
from cdk.config import ConfigError
from cdk.lambda_layer import BUILD, HOST_LAYER, LAYER, ROOT
from cdk.lambda_zip import PYTHON, add_bytecode, write_zip
from scanfleet.contract import PRODUCT

SOURCE = ROOT / "runtime" / PRODUCT
EXCLUDED = (
    "agent/*",
    "local/*",
    "cli.py",
    "cli_*.py",
    "client.py",
    "client_*.py",
    "sample*.py",
    "api/main.py",
    "api/console/*",
)
"""What no function imports."""
REFERENCE_PROCESSOR = ("__init__.py", "exit_codes.py", "progress.py")
"""All that describes the reference processor; its program needs packages that functions do not have."""


def runtime_code() -> AssetCode:
    """Return runtime/scanfleet as functions need it: without the agent, the local mode and the programs."""
    return Code.from_asset(str(code_zip()))


def dependencies(*, for_host: bool) -> AssetCode:
    """Return the layer's zip; for_host: the emulator's, which runs functions on this machine.

    Raises ConfigError when `make setup` has not built it.
    """
    path = HOST_LAYER if for_host else LAYER
    if not path.is_file():
        raise ConfigError(
            field_name=str(path.relative_to(ROOT)),
            got="no such file",
            allowed="the zip that `make setup` builds",
        )
    return Code.from_asset(str(path))


def code_zip(folder: Path = BUILD) -> Path:
    """Return the zip of our code in `folder`; it is made once for each state of the source."""
    archive = folder / f"code-{_fingerprint()}.zip"
    if not archive.is_file():
        with tempfile.TemporaryDirectory() as temporary:
            staged = Path(temporary)
            for path in source_files():
                target = staged / PRODUCT / path.relative_to(SOURCE)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            _add_metadata(staged)
            if sys.version_info[:2] == PYTHON:
                add_bytecode(staged, deployed_to="/var/task")
            write_zip(staged, archive)
    return archive


def source_files() -> list[Path]:
    """Return the files of the runtime that functions get."""
    return [path for path in sorted(SOURCE.rglob("*")) if path.is_file() and _is_wanted(path)]


def _is_wanted(path: Path) -> bool:
    name = path.relative_to(SOURCE)
    if "__pycache__" in name.parts or path.suffix == ".pyc":
        return False
    if name.parts[0] == "reference_processor":
        return len(name.parts) == 2 and name.name in REFERENCE_PROCESSOR
    return not any(fnmatch(name.as_posix(), pattern) for pattern in EXCLUDED)


def _add_metadata(staged: Path) -> None:
    """Leave what `importlib.metadata.version` reads: the app tells its version."""
    folder = staged / f"{PRODUCT}-{_version()}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PRODUCT}\nVersion: {_version()}\n")


def _version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def _fingerprint() -> str:
    """Return a hash of all that the zip's bytes depend on."""
    digest = hashlib.sha256(repr((_version(), sys.version_info[:3])).encode())
    for path in (Path(__file__), Path(lambda_zip.__file__), *source_files()):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]
