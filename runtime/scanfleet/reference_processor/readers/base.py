"""What every reader returns, and how it says that a file is wrong."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scanfleet.errors import ScanfleetError, shorten

Points = NDArray[np.float64]
Faces = NDArray[np.int64]

MIN_POINTS = 16
"""Fewer points have no surface that could be aligned."""


class BadScan(ScanfleetError):
    """A file that claims to be a scan cannot be read.

    `file` path under the source folder; `problem` what is wrong; `where` line or byte; `allowed` what would
    be right. str() is one sentence for the job's owner.
    """

    def __init__(
        self, problem: str, *, where: str | None = None, allowed: str | None = None, file: str = "the file"
    ) -> None:
        self.problem, self.where, self.allowed, self.file = problem, where, allowed, file
        text = f"{file}: {problem}"
        text += f" ({where})" if where else ""
        text += f"; allowed: {allowed}" if allowed else ""
        super().__init__(text)

    def in_file(self, file: str) -> "BadScan":
        """Return the same error with the file's name."""
        return BadScan(self.problem, where=self.where, allowed=self.allowed, file=file)


class NotAScan(ScanfleetError):
    """A file of an allowed kind holds something else, such as a list of poses; str() says what."""


@dataclass(frozen=True)
class RawCloud:
    """A file's content as it stands there.

    `points` (n, 3), may hold NaN; `normals` (n, 3) of any length or None; `faces` (m, 3) indices of points;
    `notes` sentences for the report.
    """

    points: Points
    normals: Points | None = None
    faces: Faces | None = None
    notes: tuple[str, ...] = ()


def shown(text: bytes | str) -> str:
    """Return foreign text in a form that is safe and short inside a message."""
    if isinstance(text, bytes):
        text = text.decode("ascii", errors="backslashreplace")
    return '"' + shorten(text.encode("unicode_escape").decode("ascii"), 40) + '"'


def check_faces(faces: Faces, points: int, *, first: int = 0) -> Faces:
    """Return `faces` if each index is below `points`; `first` is what the format calls the first vertex.

    Raises BadScan naming the first triangle that refers to a vertex which the file does not have.
    """
    wrong = ((faces < 0) | (faces >= points)).any(axis=1)
    if wrong.any():
        k = int(np.argmax(wrong))
        index = next(int(i) for i in faces[k] if not 0 <= i < points)
        raise BadScan(
            f"triangle {k + 1} refers to vertex {index + first}",
            allowed=f"{first} to {points - 1 + first}, the vertices of the file",
        )
    return faces
