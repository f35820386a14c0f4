"""Lists of poses lie beside scans and look like lists of points: how they are told apart."""

import numpy as np

from scanfleet.reference_processor.readers.base import Points


def pose_kind(table: Points) -> str | None:
    """Return what a table of numbers is if it is one or more poses, else None.

    Known: 3 x 4 and 4 x 4 matrices on several lines; a matrix a line (12 or 16 values, KITTI odometry);
    position and unit quaternion a line (7 or 8 values, TUM RGB-D).
    """
    rows, columns = table.shape
    if not rows or not np.isfinite(table).all():
        return None
    if _are_stacked(table):
        return "a 4 x 4 matrix" if rows == 4 else "a list of 4 x 4 matrices"
    if rows == 3 and columns in (3, 4) and _are_rotations(table[None, :, :3]):
        return f"a 3 x {columns} matrix"
    if columns in (7, 8) and (np.abs(np.linalg.norm(table[:, -4:], axis=1) - 1.0) < 1e-3).all():
        return "a list of poses, position and quaternion a line"
    return "a list of poses, one a line" if _is_matrix_a_line(table) else None


def _are_stacked(table: Points) -> bool:
    rows, columns = table.shape
    return columns == 4 and rows % 4 == 0 and bool((table[3::4] == [0.0, 0.0, 0.0, 1.0]).all())


def _is_matrix_a_line(table: Points) -> bool:
    """Say whether each row holds a 3 x 4 or 4 x 4 matrix, perhaps after a number of its own."""
    rows, columns = table.shape
    width = {12: 12, 13: 12, 16: 16, 17: 16}.get(columns)
    if width is None:
        return False
    return _are_rotations(table[:, columns - width :].reshape(rows, -1, 4)[:, :3, :3])


def _are_rotations(matrices: Points) -> bool:
    """Say whether all (n, 3, 3) matrices are rotations, to the precision that text files keep."""
    products = matrices @ matrices.transpose(0, 2, 1)
    return bool((np.abs(products - np.eye(3)) < 1e-2).all())
