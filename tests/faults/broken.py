"""Builds that are broken on purpose, to prove that the campaign would notice. They exist here alone."""

import sys
from collections.abc import Callable
from pathlib import Path

from tests.faults import hurry


def no_fencing() -> None:
    """Let every attempt write, whoever holds the lease, and never tell it that the lease is lost."""
    from scanfleet import leases
    from scanfleet.agent.lease import Heartbeat
    from scanfleet.errors import LeaseLost
    from scanfleet.job_table import JobTable

    anything = "attribute_exists(pk)"
    real_write, real_beat = JobTable._write, Heartbeat.beat

    def write(self, before, changes, condition, values, names):
        if condition.startswith(anything):
            condition = anything  # the commit's own conditions, too
        return real_write(self, before, changes, condition, values, names)

    def beat(self) -> None:
        try:
            real_beat(self)
        except LeaseLost:
            return

    hurry.set_constants(leases, _fencing=lambda lease: (anything, {}, {}))
    JobTable._write = write  # type: ignore[method-assign]
    Heartbeat.beat = beat  # type: ignore[method-assign]


def no_tree_kill() -> None:
    """Have guardians end the program alone, and nothing that it started."""
    from scanfleet.agent import os_posix

    os_posix.GUARDIAN_SCRIPT = str(Path(__file__).with_name("broken_guardian.py"))


def manifest_first() -> None:
    """Publish the manifest before the files that it names."""
    from scanfleet.agent import publication

    real = publication.Publication.publish

    def publish(self, manifest, *args, **kwargs):
        target = publication.S3Uri.parse_folder(manifest.target_uri, field="target_uri")
        content = manifest.model_dump_json(indent=1).encode()
        uri = target.child(publication.MANIFEST_NAME)
        self._objects.put_bytes(uri, content, content_type="application/json")
        return real(self, manifest, *args, **kwargs)

    publication.Publication.publish = publish  # type: ignore[method-assign]


def no_start() -> None:
    """End the agent before it does anything."""
    sys.exit("agents of this build do not start")


SWITCHES: dict[str, Callable[[], None]] = {
    "start": no_start,
    "fencing": no_fencing,
    "tree-kill": no_tree_kill,
    "publish-order": manifest_first,
}
