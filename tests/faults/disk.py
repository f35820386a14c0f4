"""The scratch disks of a campaign's agents."""

import subprocess
from contextlib import suppress
from pathlib import Path

DISK_BYTES = 64 * 1024**2


class Disk:
    """A scratch disk of one agent: a small tmpfs where this user may mount one, else a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        options = f"size={DISK_BYTES},mode=700"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "scanfleet-faults", folder],
            check=False,
            capture_output=True,
        )
        self.is_small = done.returncode == 0

    def fill(self) -> None:
        """Leave no room, on a small disk."""
        if self.is_small:
            with suppress(OSError), (self.folder / "balloon").open("wb", buffering=0) as file:
                while True:
                    file.write(b"\0" * 1024**2)

    def free(self) -> None:
        """Make room again."""
        (self.folder / "balloon").unlink(missing_ok=True)

    def close(self) -> None:
        """Take the disk away."""
        if self.is_small:
            subprocess.run(["umount", "--lazy", self.folder], check=True)
