"""The one type that every part of the processor shares."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scan:
    """One scan: `points` float64 (n, 3), finite; `normals` float64 (n, 3) unit or None."""

    name: str
    points: NDArray[np.float64]
    normals: NDArray[np.float64] | None = None
