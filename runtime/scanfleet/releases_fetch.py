r"""Put the active release onto this machine: run while an image is built.

    python -m scanfleet.releases_fetch --bucket B --parameter /scanfleet/dev/medit-release --into FOLDER

Prints the release's folder, or "none" when no release is active, and then changes nothing.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import boto3

from scanfleet.contract import NO_RELEASE
from scanfleet.errors import ScanfleetError
from scanfleet.releases import ReleaseStore
from scanfleet.releases_local import LocalReleases


def fetch_active(
    *, bucket: str, parameter: str, into: Path, session: boto3.session.Session | None = None
) -> Path | None:
    """Fetch, verify and activate the release that the SSM parameter names; None for "none"."""
    session = session or boto3.session.Session()
    version = session.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    if version == NO_RELEASE:
        return None
    store = ReleaseStore(session.client("s3"), bucket)
    local = LocalReleases(into)
    folder = local.fetch(store, store.read(version))
    local.activate(version)
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 1 with one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m scanfleet.releases_fetch", description=__doc__)
    parser.add_argument("--bucket", required=True, help="the release bucket")
    parser.add_argument("--parameter", required=True, help="SSM parameter with the active version")
    parser.add_argument("--into", required=True, type=Path, help="folder of releases on this machine")
    given = parser.parse_args(arguments)
    try:
        folder = fetch_active(bucket=given.bucket, parameter=given.parameter, into=given.into)
    except ScanfleetError as error:
        sys.stderr.write(f"scanfleet: {error}\n")
        return 1
    sys.stdout.write(f"{folder or NO_RELEASE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
