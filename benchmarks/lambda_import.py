"""What a cold start of the API's function costs: its import, and its first answer.

From the very zip files that are deployed, unpacked as Lambda does, in a fresh process each time. Lambda's own
part (fetching the zips, starting the sandbox) is not in it, and its processors differ from this machine's.
"""

import os
import sys
import tempfile
import zipfile
from pathlib import Path

from benchmarks.harness import Cost, Row, interleaved, run_child
from cdk.lambda_layer import HOST_LAYER
from cdk.lambda_package import code_zip

ROUNDS = 5
BAR_SECONDS = 1.0
LIMIT_MIB = 50.0
ENTRY = "scanfleet.api.lambda_entry"


def rows() -> list[Row]:
    """Return seconds of the import and of the import with a first answer, and the package's size."""
    if not HOST_LAYER.is_file():
        raise FileNotFoundError(f"{HOST_LAYER} is missing: run make setup")
    code = code_zip()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        zipfile.ZipFile(code).extractall(folder / "task")
        zipfile.ZipFile(HOST_LAYER).extractall(folder / "opt")
        costs = interleaved(
            {
                "interpreter": lambda: _child(folder, ""),
                "import": lambda: _child(folder, f"import {ENTRY}"),
                "answer": lambda: _child(folder, _FIRST_ANSWER),
            },
            runs=ROUNDS,
        )
    bare = costs["interpreter"].seconds
    size_mib = (code.stat().st_size + HOST_LAYER.stat().st_size) / 2**20
    return [
        Row.limit(
            "cold import of the API's function", costs["import"].seconds - bare, "s", at_most=BAR_SECONDS
        ),
        Row.limit(
            "cold import and first answer", costs["answer"].seconds - bare, "s", at_most=2 * BAR_SECONDS
        ),
        Row.limit("code and packages, zipped", size_mib, "MiB", at_most=LIMIT_MIB),
    ]


_FIRST_ANSWER = f"""
import {ENTRY} as entry
answer = entry.handler({{
    "requestContext": {{"elb": {{}}}}, "httpMethod": "GET", "path": "/openapi.json", "body": "",
    "multiValueHeaders": {{"host": ["x"]}}, "multiValueQueryStringParameters": {{}}, "isBase64Encoded": False,
}}, None)
assert answer["statusCode"] == 200, answer
"""


def _child(folder: Path, program: str) -> Cost:
    paths = [str(folder / "task"), str(folder / "opt" / "python")]
    whole = f"import sys; sys.path[:0] = {paths!r}\n{program}"
    environment = {
        "PATH": os.defpath,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "SCANFLEET_JOB_TABLE": "jobs",
        "SCANFLEET_ARTIFACTS_BUCKET": "artifacts",
        "SCANFLEET_QUEUES": "{}",
        "SCANFLEET_ALLOWED_PREFIXES": "s3://data/uploads/",
        "SCANFLEET_UPLOADS_URI": "s3://data/uploads/",
        "SCANFLEET_AUTH_MODE": "iam",
    }
    return run_child([sys.executable, "-I", "-S", "-c", whole], env=environment, cwd=folder)[0]
