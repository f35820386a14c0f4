"""Zip files whose bytes depend on what is in them only, with bytecode that Lambda need not make itself.

Lambda's disk is read-only: without bytecode in the package, each cold start would compile every module.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

PYTHON = (3, 11)
"""The pinned Python of functions: the one that every test runs."""
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Zip knows no earlier time. Source: APPNOTE.TXT - .ZIP File Format Specification, 4.4.6."""
READABLE = 0o644 << 16
"""Lambda's sandbox reads the files as another user. Source: Lambda developer guide, "Working with .zip file
archives for Python Lambda functions"."""


def add_bytecode(folder: Path, *, deployed_to: str) -> None:
    """Compile every module below `folder` in place, as if it lay in `deployed_to`; tracebacks name that.

    The bytecode is trusted unchecked, because unpacking changes the files' times. A fixed hash seed keeps the
    order of sets, and so the bytes, the same. Raises CalledProcessError when a module has no valid syntax.
    """
    options = ("-q", "-f", "--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", deployed_to)
    subprocess.run(
        [sys.executable, "-m", "compileall", *options, str(folder)],
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "0"},
    )


def write_zip(folder: Path, archive: Path) -> None:
    """Write everything below `folder` into `archive`, which appears whole or not at all."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as temporary:
        partial = Path(temporary, archive.name)
        with ZipFile(partial, "w", ZIP_DEFLATED, compresslevel=9) as target:
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                entry = ZipInfo(path.relative_to(folder).as_posix(), EARLIEST)
                entry.create_system = 3  # Unix, also when made on Windows: the mode counts
                entry.external_attr = READABLE
                entry.compress_type = ZIP_DEFLATED
                target.writestr(entry, path.read_bytes())
        partial.replace(archive)
