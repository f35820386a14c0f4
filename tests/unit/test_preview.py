"""Previews show the surface without holes, on a quiet background, from three sides."""

import numpy as np
from PIL import Image

from scanfleet.reference_processor.preview import HEIGHT, WIDTH, drawable, three_views, write_preview


def plate(count: int = 40_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A wavy plate that looks along y, twice as long as it is high."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-2, 2, count), rng.uniform(-1, 1, count)
    points = np.stack([x, 0.1 * np.sin(3 * x), y], axis=1)
    normals = np.stack([-0.3 * np.cos(3 * x), np.ones(count), np.zeros(count)], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return points, normals, np.full(count, np.sqrt(8 / count) * 1.5)


def test_the_picture_shows_a_closed_surface_in_front_of_the_background(tmp_path):
    points, normals, spacing = plate()
    path = tmp_path / "front.png"

    write_preview(
        path, drawable(points, normals, spacing), three_views(points, normals)[0], caption="plate é"
    )

    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    middle = picture[HEIGHT // 2 - 100 : HEIGHT // 2 + 60, WIDTH // 2 - 250 : WIDTH // 2 + 250]
    is_clay = middle[..., 0] > middle[..., 2] + 5  # the background is bluish, clay is reddish
    assert is_clay.mean() > 0.995
    corner = picture[:20, :20]
    assert (np.ptp(corner, axis=2) < 12).all()
    assert corner.min() > 200


def test_the_three_sides_differ_and_are_right_handed():
    points, normals, _ = plate()

    views = three_views(points, normals)

    assert [view.name for view in views] == ["front", "left", "top"]
    for view in views:
        np.testing.assert_allclose(view.axes @ view.axes.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(view.axes) > 0.99
    assert views[0].axes[2] @ [0, 1, 0] > 0.95


def test_what_a_camera_saw_is_shown_upright_from_the_camera():
    points, normals, _ = plate()
    in_camera = np.stack([points[:, 0], -points[:, 2], 3.0 - points[:, 1]], axis=1)

    front = three_views(in_camera, normals[:, [0, 2, 1]] * [1, -1, -1])[0]

    np.testing.assert_allclose(front.axes, np.diag([1, -1, -1]))


def test_points_in_front_hide_what_lies_behind(tmp_path):
    points, normals, spacing = plate()
    behind = points - [0, 1.0, 0]
    both = np.concatenate([points, behind])
    scan = np.repeat(np.array([0, 1], dtype=np.int32), len(points))
    what = drawable(both, np.concatenate([normals, normals]), np.concatenate([spacing, spacing]), scan=scan)
    path = tmp_path / "scans.png"

    write_preview(path, what, three_views(both, np.concatenate([normals, normals]))[0], caption="")

    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    middle = picture[HEIGHT // 2 - 80 : HEIGHT // 2 + 50, WIDTH // 2 - 200 : WIDTH // 2 + 200]
    assert (middle[..., 0] > middle[..., 2]).mean() > 0.99  # the front scan is orange, the hidden one blue


def test_ground_is_shown_from_above_and_at_a_slant():
    points, normals, _ = plate()

    front, left, top = three_views(points[:, [0, 2, 1]], normals[:, [0, 2, 1]])

    assert abs(top.axes[2, 2]) > 0.95
    for view in (front, left):
        np.testing.assert_allclose(view.axes @ view.axes.T, np.eye(3), atol=1e-9)
        assert 0.4 < view.axes[2, 2] < 0.75
