"""The whole program, stage after stage: read, register, merge, clean, smooth, mesh, write."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scanfleet.reference_processor.cloud import Cloud, Points
from scanfleet.reference_processor.config import Config, explain_settings
from scanfleet.reference_processor.folder import read_folder
from scanfleet.reference_processor.merge import merge, moved, surface_normals, without_outliers
from scanfleet.reference_processor.mesh import Mesh, reconstruct
from scanfleet.reference_processor.neighbours import Neighbours
from scanfleet.reference_processor.ply_writer import write_ply
from scanfleet.reference_processor.preview import drawable, three_views, write_preview
from scanfleet.reference_processor.progress import Progress
from scanfleet.reference_processor.readers.surface import vertex_normals
from scanfleet.reference_processor.registration import Registration, register
from scanfleet.reference_processor.report import GroupResult, build_report, write_report
from scanfleet.reference_processor.scale import point_spacing
from scanfleet.reference_processor.scan import Scan
from scanfleet.reference_processor.smooth import smooth

SOURCES_FOLDER = "sources"
PREVIEWS_OF_OTHER_GROUPS = 5
MESH_CELL = 1.2
"""Edge of the reconstruction's grid in merge voxels."""


@dataclass
class _Work:
    """A group on its way through the stages."""

    number: int
    members: tuple[int, ...]
    cloud: Cloud
    voxel: float
    points_merged: int
    near: Neighbours | None = None
    normals: Points | None = None
    points: Points | None = None
    mesh: Mesh | None = None

    @property
    def spacing(self) -> Points:
        assert self.near is not None
        spacing: Points = self.near.distance.mean(axis=1).astype(np.float64)
        return spacing

    @property
    def suffix(self) -> str:
        return "" if self.number == 1 else f"_group{self.number}"


def run(config: Config, *, config_path: Path, progress: Progress) -> dict[str, Any]:
    """Do what `config` asks, write the results into its target folder, and return the report.

    Raises BadScan when an input is wrong.
    """
    config.target.mkdir(parents=True, exist_ok=True)
    with progress.stage("read") as on_progress:
        exclude = (config_path.absolute(), *_target_if_inside(config))
        folder = read_folder(config.source, exclude=exclude, on_progress=on_progress)
    scans = [loaded.scan for loaded in folder.scans]
    with progress.stage("register") as on_progress:
        registration = register(
            scans,
            force_global=config.force_global,
            compensate_occlusion=config.compensate_occlusion,
            on_progress=on_progress,
        )
    with progress.stage("merge") as on_progress:
        work = _merge_groups(scans, registration, config, on_progress)
    with progress.stage("clean") as on_progress:
        for group in _steps(work, on_progress):
            group.cloud, group.near = without_outliers(group.cloud)
            group.normals = surface_normals(group.cloud, group.near)
    with progress.stage("smooth") as on_progress:
        for group in _steps(work, on_progress):
            _smooth(group, config.smoothing)
    with progress.stage("mesh") as on_progress:
        for group in _steps(work, on_progress):
            _mesh(group, config.mesh)
    with progress.stage("write") as on_progress:
        results = [_write_group(config.target, scans, group) for group in _steps(work, on_progress)]
        if config.save_sources:
            _write_sources(config.target, scans, registration)
    seconds = {**progress.seconds, "total": sum(progress.seconds.values())}
    report = build_report(folder, registration, results, settings=explain_settings(config), seconds=seconds)
    write_report(config.target, report)
    return report


def _target_if_inside(config: Config) -> tuple[Path, ...]:
    """Return the target folder when it lies in the source folder: results are no input."""
    source, target = config.source.absolute(), config.target.absolute()
    return (target,) if source in target.parents else ()


def _steps(work: Sequence[_Work], on_progress: Callable[[float], None]) -> Iterator[_Work]:
    """Yield the groups for one stage, and tell its progress by their points."""
    total = sum(len(group.cloud.points) for group in work)
    done = 0
    for group in work:
        size = len(group.cloud.points)
        yield group
        done += size
        on_progress(100.0 * done / total)


def _merge_groups(
    scans: Sequence[Scan], registration: Registration, config: Config, on_progress: Callable[[float], None]
) -> list[_Work]:
    """Return each group's merged cloud. The voxel follows the spacing of the group's own scans."""
    rng = np.random.default_rng(0)
    work: list[_Work] = []
    for number, members in enumerate(registration.groups, start=1):
        spacings = [point_spacing(scans[member].points, rng=rng) for member in members]
        spacing = float(np.median(spacings)) or registration.resolution
        start = 100.0 * (number - 1) / len(registration.groups)
        share = 1.0 / len(registration.groups)
        cloud, voxel = merge(
            scans,
            registration.poses,
            members,
            voxel=config.merge_fineness * spacing,
            max_points=config.max_points,
            on_progress=partial(_part_of, on_progress, start, share),
        )
        work.append(_Work(number, tuple(members), cloud, voxel, len(cloud.points)))
    return work


def _part_of(on_progress: Callable[[float], None], start: float, share: float, percent: float) -> None:
    on_progress(start + share * percent)


def _smooth(group: _Work, passes: int) -> None:
    assert group.near is not None
    assert group.normals is not None
    group.points = smooth(group.cloud.points, group.normals, group.near, passes=passes)
    if passes:
        smoothed = replace(group.cloud, points=group.points)
        group.normals = surface_normals(smoothed, group.near)


def _mesh(group: _Work, kind: int) -> None:
    """Reconstruct the group's surface, if asked for (kind 1 or 2)."""
    if not kind:
        return
    assert group.points is not None
    assert group.normals is not None
    group.mesh = reconstruct(
        group.points, group.normals, group.spacing, cell=MESH_CELL * group.voxel, fill_holes=kind == 2
    )


def _write_group(target: Path, scans: Sequence[Scan], group: _Work) -> GroupResult:
    assert group.points is not None
    cloud_file = f"merged{group.suffix}.ply"
    write_ply(target / cloud_file, group.points, group.normals)
    mesh: dict[str, Any] | None = None
    if group.mesh is not None and len(group.mesh.faces):
        mesh = {
            "file": f"mesh{group.suffix}.ply",
            "vertices": len(group.mesh.points),
            "triangles": len(group.mesh.faces),
        }
        normals = vertex_normals(group.mesh.points, group.mesh.faces)
        write_ply(target / mesh["file"], group.mesh.points, normals, faces=group.mesh.faces)
    return GroupResult(
        number=group.number,
        members=group.members,
        points_in=sum(len(scans[member].points) for member in group.members),
        points_merged=group.points_merged,
        points_outliers=group.points_merged - len(group.points),
        points_out=len(group.points),
        merge_voxel=group.voxel,
        cloud_file=cloud_file,
        mesh=mesh,
        previews=_write_previews(target, group, cloud_file),
    )


def _write_previews(target: Path, group: _Work, cloud_file: str) -> tuple[str, ...]:
    """Write the group's pictures: three sides and one coloured by scan; of later groups only the front."""
    assert group.points is not None
    assert group.normals is not None
    if group.number > 1 + PREVIEWS_OF_OTHER_GROUPS:
        return ()
    caption = f"{cloud_file}   {len(group.points):,} points   {len(group.members)} "
    caption += "scan" if len(group.members) == 1 else "scans"
    views = three_views(group.points, group.normals)
    plain = drawable(group.points, group.normals, group.spacing)
    files = []
    for view in views if group.number == 1 else views[:1]:
        files.append(f"preview{group.suffix}_{view.name}.png")
        write_preview(target / files[-1], plain, view, caption=f"{caption}   {view.name}")
    if len(group.members) > 1:
        files.append(f"preview{group.suffix}_scans.png")
        coloured = drawable(group.points, group.normals, group.spacing, scan=group.cloud.scan)
        write_preview(target / files[-1], coloured, views[0], caption=f"{caption}   a colour for each scan")
    return tuple(files)


def _write_sources(target: Path, scans: Sequence[Scan], registration: Registration) -> None:
    """Write each scan in the frame of its group's result."""
    for scan, pose in zip(scans, registration.poses, strict=True):
        # "a/b.ply" and "a/b.obj" must not become one file, so the name keeps its kind.
        path = target / SOURCES_FOLDER / f"{scan.name}.ply"
        path.parent.mkdir(parents=True, exist_ok=True)
        normals = None if scan.normals is None else scan.normals @ pose[:3, :3].T
        write_ply(path, moved(scan.points, pose), normals)
