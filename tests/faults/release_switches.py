"""Releases of the campaign's program: published once, switched while jobs run, and one that is damaged."""

import itertools
import tempfile
import threading
from pathlib import Path
from typing import Any

from scanfleet.contract import Parameter, parameter_name
from scanfleet.processors.medit_autotest import PROGRAM
from scanfleet.releases import ReleaseStore
from scanfleet.releases_active import ActiveRelease
from tests.faults.world import RELEASES, STAGE, World, client

VERSIONS = ("1.0", "1.1", "2.0")
DAMAGED = "9.9"


class ReleaseSwitches:
    """Publishes on creation; `switch` activates the next version for all agents."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = threading.Lock()
        self._next = itertools.cycle(VERSIONS)
        self._ssm: Any = client("ssm", world.endpoint_url)
        self._store = ReleaseStore(world.s3, RELEASES)
        self._active = ActiveRelease(self._ssm, STAGE)
        self._set(Parameter.RELEASE_BUCKET, RELEASES)
        self._set(Parameter.MEDIT_RELEASE, "none")
        for version in (*VERSIONS, DAMAGED):
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / PROGRAM).write_text(f"release {version}\n")
                (Path(folder) / "common.dll").write_text("the same in every release\n")
                self._store.publish(Path(folder), version)
        damaged = next(file for file in self._store.read(DAMAGED).files if file.path == PROGRAM)
        world.s3.put_object(Bucket=RELEASES, Key=damaged.key, Body=b"x" * damaged.size_bytes)
        self.switch()

    def switch(self) -> None:
        """Activate the next version."""
        with self._lock:
            self._active.activate(self._store, next(self._next))

    def damage(self) -> None:
        """Name a release active whose file is not what its manifest says; agents have to keep theirs."""
        self._set(Parameter.MEDIT_RELEASE, DAMAGED)

    def _set(self, name: Parameter, value: str) -> None:
        self._ssm.put_parameter(Name=parameter_name(STAGE, name), Value=value, Type="String", Overwrite=True)
