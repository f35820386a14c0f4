"""Scans are read from every format as other programs write them."""

import struct
from pathlib import Path

import numpy as np
import pytest

from scanfleet.reference_processor.readers import SUFFIXES, LoadedScan, NotAScan, read_scan
from scanfleet.reference_processor.readers.lzf import decompress

POINTS = np.round(np.random.default_rng(3).normal(size=(200, 3)) * 10, 4)
NORMALS = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)


def read(path: Path) -> LoadedScan:
    return read_scan(path, path.name)


def text_of(columns: np.ndarray, separator: str = " ") -> str:
    return "".join(separator.join(f"{value:.6f}" for value in row) + "\n" for row in columns)


def assert_points(path: Path, points: np.ndarray = POINTS, tolerance: float = 1e-5) -> LoadedScan:
    loaded = read(path)
    np.testing.assert_allclose(loaded.scan.points, points, atol=tolerance)
    assert loaded.scan.points.dtype == np.float64
    return loaded


# --- PLY ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "order"), [("little", "<"), ("big", ">")])
@pytest.mark.parametrize(("kind", "code"), [("float", "f4"), ("double", "f8")])
def test_binary_ply_is_read_in_both_byte_orders_and_precisions(tmp_path, name, order, kind, code):
    rows = np.zeros(
        200, dtype=[("q", order + "u2"), ("x", order + code), ("y", order + code), ("z", order + code)]
    )
    rows["x"], rows["y"], rows["z"] = POINTS.T
    header = (
        f"ply\nformat binary_{name}_endian 1.0\ncomment by \u00e9\nelement vertex 200\nproperty ushort q\n"
    )
    header += "".join(f"property {kind} {axis}\n" for axis in "xyz") + "end_header\n"
    path = tmp_path / "a.PLY"
    path.write_bytes(header.encode("utf-8") + rows.tobytes())

    assert_points(path)


def test_ply_text_may_have_faces_comments_normals_and_windows_line_ends(tmp_path):
    rows = text_of(np.hstack([POINTS, NORMALS]))
    header = "ply\nformat ascii 1.0\ncomment element vertex 7\nelement vertex 200\n"
    header += "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
    header += "element face 2\nproperty list uchar int vertex_indices\nproperty int flags\nend_header\n"
    path = tmp_path / "a.ply"
    path.write_bytes((header + rows + "3 0 1 2 7\n4 0 1 2 3 7\n").replace("\n", "\r\n").encode())

    loaded = assert_points(path)

    assert loaded.points_read == 200


def test_a_ply_may_state_its_vertices_after_other_elements_with_lists_of_different_lengths(tmp_path):
    header = b"ply\nformat binary_little_endian 1.0\nelement thing 3\nproperty list uchar short values\n"
    header += b"property char c\nelement vertex 200\n"
    header += b"property float x\nproperty float y\nproperty float z\nend_header\n"
    things = struct.pack("<Bhhb", 2, 5, 6, 1) + struct.pack("<Bb", 0, 1) + struct.pack("<Bhb", 1, 9, 1)
    path = tmp_path / "a.ply"
    path.write_bytes(header + things + POINTS.astype("<f4").tobytes())

    assert_points(path)


def test_faces_of_a_ply_give_normals_whether_they_are_triangles_or_mixed_polygons(tmp_path):
    side = 12
    x, y = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), np.zeros(side * side)], axis=1).astype("<f4")
    corner = [i * side + j for i in range(side - 1) for j in range(side - 1)]
    quads = b"".join(struct.pack("<B4i", 4, c, c + side, c + side + 1, c + 1) for c in corner[1:])
    triangle = struct.pack("<B3i", 3, corner[0], corner[0] + side, corner[0] + side + 1)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {side**2}\n"
    header += "property float x\nproperty float y\n"
    header += (
        f"property float z\nelement face {len(corner)}\nproperty list uchar int vertex_index\nend_header\n"
    )
    path = tmp_path / "a.ply"
    path.write_bytes(header.encode() + points.tobytes() + triangle + quads)

    normals = read(path).scan.normals

    assert normals is not None
    np.testing.assert_allclose(np.abs(normals[:, 2]), 1.0)


# --- OBJ ---------------------------------------------------------------------------------------------------


def test_obj_faces_may_count_backwards_and_name_textures_and_normals(tmp_path):
    lines = "".join(f"v {x} {y} {z} 0.5 0.5 0.5\nvt 0 0\n" for x, y, z in POINTS)
    path = tmp_path / "a.obj"
    path.write_text("# made\nmtllib a.mtl\n" + lines + "f -1/2/3 -2//4 -3\nf 1/1 2/2 \\\n3/3 4/4\n")

    loaded = read(path)

    assert loaded.points_read == 200


def test_obj_vertices_come_with_their_normals(tmp_path):
    lines = "".join(
        f"v {x} {y} {z}\nvn {a} {b} {c}\n" for (x, y, z), (a, b, c) in zip(POINTS, NORMALS, strict=True)
    )
    path = tmp_path / "a.obj"
    path.write_text(lines)

    loaded = assert_points(path)

    np.testing.assert_allclose(loaded.scan.normals, NORMALS, atol=1e-9)


# --- STL ---------------------------------------------------------------------------------------------------


def binary_stl(triangles: np.ndarray, head: bytes) -> bytes:
    rows = np.zeros(len(triangles), dtype=[("n", "<f4", 3), ("c", "<f4", (3, 3)), ("a", "<u2")])
    rows["c"] = triangles
    return head.ljust(80) + struct.pack("<I", len(triangles)) + rows.tobytes()


def small_triangles() -> np.ndarray:
    """A bumpy sheet of 2 x 40 x 40 triangles."""
    x, y = np.meshgrid(np.linspace(0, 1, 81), np.linspace(0, 1, 81), indexing="ij")
    p = np.stack([x, y, 0.1 * np.sin(5 * x)], axis=2)
    a, b, c, d = p[:-1, :-1], p[1:, :-1], p[1:, 1:], p[:-1, 1:]
    return np.concatenate(
        [np.stack([a, b, c], 2).reshape(-1, 3, 3), np.stack([a, c, d], 2).reshape(-1, 3, 3)]
    )


def test_binary_stl_may_begin_with_solid_and_its_corners_are_joined(tmp_path):
    path = tmp_path / "a.stl"
    path.write_bytes(binary_stl(small_triangles(), b"solid but binary"))

    loaded = read(path)

    assert loaded.points_read == 81 * 81
    assert loaded.scan.normals is not None


def test_text_stl_gives_the_same_as_binary_whatever_its_case(tmp_path):
    triangles = small_triangles()[:600]
    facets = "".join(
        "FACET normal 0 0 1\n outer loop\n"
        + "".join(f"  Vertex {x:.7e} {y:.7e} {z:.7e}\n" for x, y, z in corners)
        + " endloop\nendfacet\n"
        for corners in triangles
    )
    text, binary = tmp_path / "t.stl", tmp_path / "b.stl"
    text.write_text(f"solid vertex\n{facets}endsolid vertex\n")
    binary.write_bytes(binary_stl(triangles, b"b"))

    np.testing.assert_allclose(read(text).scan.points, read(binary).scan.points, atol=1e-6)


def test_a_mesh_of_few_large_triangles_is_sampled_by_area(tmp_path):
    corners = np.array(
        [[[0, 0, 0], [4, 0, 0], [4, 2, 0]], [[0, 0, 0], [4, 2, 0], [0, 2, 0]]] * 10, dtype=float
    )
    corners[2:, :, 2] += np.arange(18)[:, None] * 1e-3
    path = tmp_path / "plate.stl"
    path.write_bytes(binary_stl(corners, b"plate"))

    scan = read(path).scan

    assert len(scan.points) >= 20_000
    left = (scan.points[:, 0] < 2).mean()
    assert left == pytest.approx(0.5, abs=0.02)


# --- PCD ---------------------------------------------------------------------------------------------------


def pcd_header(
    data: str, fields: str = "x y z", size: str = "4 4 4", kind: str = "F F F", points: int = 200
) -> bytes:
    return (
        f"# .PCD v0.7\nVERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH {points}\n"
        f"HEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {points}\nDATA {data}\n"
    ).encode()


def literal_lzf(data: bytes) -> bytes:
    """LZF without any match: what a compressor writes for data that does not repeat."""
    chunks = [data[i : i + 32] for i in range(0, len(data), 32)]
    return b"".join(bytes([len(chunk) - 1]) + chunk for chunk in chunks)


def test_pcd_is_read_as_text_as_binary_and_compressed(tmp_path):
    points = POINTS.astype("<f4")
    columns = points.T.tobytes()
    packed = literal_lzf(columns)
    contents = {
        "ascii": text_of(POINTS).encode(),
        "binary": points.tobytes(),
        "binary_compressed": struct.pack("<II", len(packed), len(columns)) + packed,
    }
    for data, body in contents.items():
        path = tmp_path / f"{data}.pcd"
        path.write_bytes(pcd_header(data) + body)

        assert_points(path)


def test_pcd_points_without_depth_are_dropped_and_counted(tmp_path):
    points = POINTS.astype("<f4").copy()
    points[::4] = np.nan
    path = tmp_path / "a.pcd"
    path.write_bytes(pcd_header("binary") + points.tobytes())

    loaded = read(path)

    assert (loaded.points_read, loaded.points_dropped, len(loaded.scan.points)) == (200, 50, 150)


def test_lzf_copies_that_overlap_themselves_repeat():
    packed = bytes([0, ord("a"), (7 << 5) | 0, 20, 0])  # "a", then 29 bytes from one byte back

    assert decompress(packed, size=30) == b"a" * 30


# --- Tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".xyz", ".csv", ".txt", ".asc", ".pts"])
@pytest.mark.parametrize("separator", [" ", ",", ";", "\t", " , "])
def test_tables_are_read_with_any_separator(tmp_path, suffix, separator):
    path = tmp_path / f"a{suffix}"
    path.write_text(text_of(POINTS, separator))

    assert_points(path)


@pytest.mark.parametrize(
    "heading", ["x,y,z,intensity", "//X,Y,Z,I", '"X [m]","Y [m]","Z [m]","label"', "# x, y, z, i"]
)
def test_headings_name_the_columns(tmp_path, heading):
    path = tmp_path / "a.csv"
    path.write_text(f"# comment\n\n{heading}\n" + text_of(np.hstack([POINTS, POINTS[:, :1]]), ","))

    assert_points(path)


def test_columns_may_come_in_another_order_and_hold_words(tmp_path):
    rows = "".join(f"tree,{z},{y},{x},\n" for x, y, z in POINTS)
    path = tmp_path / "a.csv"
    path.write_text("class,z,y,x,note\n" + rows)

    assert_points(path)


def test_normals_are_known_by_their_heading_or_by_their_length(tmp_path):
    rows = np.hstack([POINTS, NORMALS])
    named, unnamed = tmp_path / "a.csv", tmp_path / "b.xyz"
    named.write_text("x,y,z,nx,ny,nz\n" + text_of(rows, ","))
    unnamed.write_text(text_of(rows))

    for path in (named, unnamed):
        np.testing.assert_allclose(assert_points(path).scan.normals, NORMALS, atol=1e-5)


def test_colours_are_not_taken_for_normals(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, size=(200, 3))
    path = tmp_path / "a.xyz"
    path.write_text(text_of(np.hstack([POINTS, colours])))

    assert assert_points(path).scan.normals is None


def test_a_first_line_may_state_the_number_of_points(tmp_path):
    path = tmp_path / "a.pts"
    path.write_text("200\n" + text_of(np.hstack([POINTS, POINTS])))

    assert_points(path)


def test_decimal_commas_are_read_where_semicolons_separate(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(text_of(POINTS, ";").replace(".", ","))

    assert_points(path)


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
def test_line_ends_of_other_systems_are_read(tmp_path, ending):
    path = tmp_path / "a.xyz"
    path.write_bytes(text_of(POINTS).replace("\n", ending).encode())

    assert_points(path)


def test_a_last_line_without_line_end_is_kept(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text(text_of(POINTS).rstrip("\n"))

    assert_points(path)


@pytest.mark.parametrize(
    "content",
    [
        "name, a, b, c\nscan1.csv, 1, 0, 0\n",
        "1 0 0 5\n0 1 0 6\n0 0 1 7\n0 0 0 1\n",
        "# timestamp tx ty tz qx qy qz qw\n" + "1.5 1 2 3 0 0 0 1\n" * 30,
        "1 0 0 5 0 1 0 6 0 0 1 7\n" * 30,
        "t,x,y,z,qx,qy,qz,qw\n" + "1,1,2,3,0,0,0,1\n" * 30,
        "Scanned on Monday, by Ann.\nAll went well.\n",
        "",
        "12 13\n" * 30,
    ],
)
def test_a_text_that_is_no_list_of_points_is_not_a_scan(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content)

    with pytest.raises(NotAScan):
        read(path)


# --- Real files --------------------------------------------------------------------------------------------


def test_real_scans_are_read_with_the_numbers_that_their_sources_state(shared_data):
    scans = shared_data / "scans"
    expected = {
        "hippo/hippo1.obj": (30_519, 0),
        "hippo/hippo2.obj": (21_935, 0),
        "kinect_room/capture0001.pcd": (307_200, 57_553),
        "kinect_room/capture0002.pcd": (307_200, 57_269),
        "kinect_room/capture0003.pcd": (307_200, 58_706),
        "kinect_room/capture0004.pcd": (307_200, 62_627),
        "car/car_cloud400.csv": (24_989, 0),
        "car/car_cloud401.csv": (25_193, 0),
    }

    found = {name: read(scans / name) for name in expected}

    assert {n: (loaded.points_read, loaded.points_dropped) for n, loaded in found.items()} == expected
    assert found["car/car_cloud400.csv"].scan.normals is not None


def test_lists_of_poses_beside_real_scans_are_not_scans(shared_data):
    for name in ("carCloudList.csv", "icp_reference_4x4.txt"):
        with pytest.raises(NotAScan):
            read(shared_data / "scans" / "car" / name)


def test_both_kinds_of_a_real_stl_give_the_same_surface(shared_data):
    text, binary = (
        read(shared_data / "scans" / "meshes" / f"Spider_{kind}.stl") for kind in ("ascii", "binary")
    )

    assert len(text.scan.points) > 20_000
    np.testing.assert_allclose(
        np.ptp(text.scan.points, axis=0), np.ptp(binary.scan.points, axis=0), rtol=0.02
    )


def test_the_adapter_accepts_exactly_what_the_readers_read():
    from scanfleet.processors import reference

    assert reference.SUFFIXES == SUFFIXES
