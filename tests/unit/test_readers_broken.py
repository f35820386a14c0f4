"""Broken files are refused with a sentence that names them; never a crash, never wrong points."""

import struct
from pathlib import Path

import numpy as np
import pytest

from scanfleet.reference_processor.readers import BadScan, NotAScan, read_scan
from tests.unit.test_readers import POINTS, binary_stl, literal_lzf, pcd_header, small_triangles, text_of

AXES = b"property float x\nproperty float y\nproperty float z\n"
PLY = b"ply\nformat %s 1.0\nelement vertex %d\n" + AXES + b"end_header\n"


def refusal(path: Path) -> str:
    with pytest.raises(BadScan) as caught:
        read_scan(path, path.name)
    assert str(caught.value).startswith(f"{path.name}: ")
    return str(caught.value)


def good_files(folder: Path) -> dict[str, bytes]:
    """A valid file of each kind by name, with `POINTS` or the bumpy sheet in it."""
    points = POINTS.astype("<f4")
    packed = literal_lzf(points.T.tobytes())
    sheet = small_triangles()[:400]
    facets = b"".join(
        b"facet normal 0 0 1\nouter loop\n"
        + b"".join(b"vertex %.6f %.6f %.6f\n" % tuple(corner) for corner in corners)
        + b"endloop\nendfacet\n"
        for corners in sheet
    )
    rows = text_of(POINTS).encode()
    return {
        "text.ply": PLY % (b"ascii", 200) + rows,
        "binary.ply": PLY % (b"binary_little_endian", 200) + points.tobytes(),
        "binary.stl": binary_stl(sheet, b"sheet"),
        "text.stl": b"solid s\n" + facets + b"endsolid s\n",
        "text.pcd": pcd_header("ascii") + rows,
        "binary.pcd": pcd_header("binary") + points.tobytes(),
        "packed.pcd": pcd_header("binary_compressed")
        + struct.pack("<II", len(packed), points.nbytes)
        + packed,
        "mesh.obj": b"".join(b"v " + line + b"\n" for line in rows.splitlines()) + b"f 1 2 3\n" * 50,
        "points.xyz": rows,
        "points.csv": text_of(POINTS, ",").encode(),
    }


@pytest.mark.parametrize(
    "name", ["text.ply", "binary.ply", "binary.stl", "text.stl", "text.pcd", "binary.pcd", "packed.pcd"]
)
def test_a_file_with_a_header_cut_anywhere_is_refused(tmp_path, name):
    content = good_files(tmp_path)[name]
    path = tmp_path / name
    for cut in np.random.default_rng(1).integers(0, len(content) - 2, size=40):
        path.write_bytes(content[:cut])

        refusal(path)


@pytest.mark.parametrize("name", ["mesh.obj", "points.xyz", "points.csv"])
def test_a_table_cut_anywhere_gives_true_points_or_is_refused(tmp_path, name):
    content = good_files(tmp_path)[name]
    path = tmp_path / name
    for cut in np.random.default_rng(2).integers(0, len(content), size=60):
        path.write_bytes(content[:cut])
        try:
            scan = read_scan(path, name).scan
        except (BadScan, NotAScan):
            continue

        np.testing.assert_allclose(scan.points, POINTS[: len(scan.points)], atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["text.ply", "binary.ply", "binary.stl", "text.stl", "text.pcd", "packed.pcd", "mesh.obj", "points.csv"],
)
def test_random_damage_never_crashes_a_reader(tmp_path, name):
    content = bytearray(good_files(tmp_path)[name])
    path = tmp_path / name
    rng = np.random.default_rng(4)
    for _ in range(60):
        damaged = bytearray(content)
        for at in rng.integers(0, min(len(content), 600), size=3):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            scan = read_scan(path, name).scan
        except (BadScan, NotAScan):
            continue

        assert np.isfinite(scan.points).all()


@pytest.mark.parametrize("name", ["a.ply", "a.obj", "a.stl", "a.pcd", "a.xyz", "a.csv"])
def test_an_empty_file_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")

    assert "empty" in refusal(path)


@pytest.mark.parametrize("name", ["a.ply", "a.obj", "a.stl", "a.pcd", "a.xyz"])
def test_a_picture_under_a_scans_name_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + np.random.default_rng(0).bytes(3000))

    refusal(path)


@pytest.mark.parametrize("count", [10**9, 10**14])
def test_counts_that_a_file_cannot_hold_are_refused_before_memory_is_taken(tmp_path, count):
    files = {
        "a.ply": PLY % (b"binary_little_endian", count) + b"\0" * 100,
        "b.ply": PLY % (b"ascii", count) + b"1 2 3\n",
        "c.stl": b"x" * 80 + struct.pack("<I", min(count, 2**32 - 1)) + b"\0" * 100,
        "d.pcd": pcd_header("binary", points=count) + b"\0" * 100,
        "e.pcd": pcd_header("ascii", points=count) + b"1 2 3\n",
        "f.pcd": pcd_header("binary_compressed", points=count) + struct.pack("<II", 8, 2**32 - 1) + b"\0" * 8,
        "g.pts": b"%d\n" % count + text_of(POINTS).encode(),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)

        refusal(path)


def test_one_point_and_no_finite_point_are_refused_with_what_is_needed(tmp_path):
    one, nan = tmp_path / "one.ply", tmp_path / "nan.ply"
    one.write_bytes(PLY % (b"ascii", 1) + b"1 2 3\n")
    nan.write_bytes(PLY % (b"ascii", 100) + b"nan nan nan\n" * 100)

    assert "1 usable points" in refusal(one)
    assert "0 of 100 points usable; allowed: at least 16" in refusal(nan).replace("it has ", "")


def test_a_word_among_numbers_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.xyz"
    lines = text_of(POINTS).splitlines()
    lines[150] = "1.0 abc 3.0"
    path.write_text("\n".join(lines) + "\n")

    assert '"abc" is not a number (line 151)' in refusal(path)


def test_a_line_with_too_few_values_is_named(tmp_path):
    path = tmp_path / "a.xyz"
    lines = text_of(POINTS).splitlines()
    lines[99] = "1.0 2.0"
    path.write_text("\n".join(lines) + "\n")

    assert "line 100" in refusal(path)


def test_points_that_are_all_the_same_are_refused(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("1 2 3\n" * 100)

    assert "one place" in refusal(path)


def test_faces_that_refer_to_missing_vertices_are_refused(tmp_path):
    path = tmp_path / "a.obj"
    path.write_bytes(good_files(tmp_path)["mesh.obj"] + b"f 1 2 201\n")

    assert "vertex 201" in refusal(path)


def test_real_broken_files_are_refused(shared_data):
    for path in sorted((shared_data / "bad" / "mesh").iterdir()):
        refusal(path)
