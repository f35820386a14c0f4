"""Poses of scans that overlap, and which of them do not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations

import numpy as np

from scanfleet.reference_processor.downsample import Points
from scanfleet.reference_processor.features import match
from scanfleet.reference_processor.gate import Gate
from scanfleet.reference_processor.pairwise import judge
from scanfleet.reference_processor.posegraph import CONTRADICTION, Edge, connected, misplacement, optimise
from scanfleet.reference_processor.prepare import Prepared, prepare
from scanfleet.reference_processor.scale import Scale, common_scale
from scanfleet.reference_processor.scan import Scan
from scanfleet.reference_processor.search import Fit, check, propose, settle

MATCHES = 1_000
RETRIED_PAIRS = 8


class Verdict(StrEnum):
    """What came out for the whole set."""

    ALIGNED = "aligned"
    """All scans are in one group."""
    PARTIAL = "partial"
    """Some scans are connected, others could not be."""
    NO_OVERLAP = "no_overlap"
    """No two scans are connected."""
    SINGLE_SCAN = "single_scan"
    """There is only one scan: nothing to align."""


@dataclass(frozen=True)
class PairResult:
    """What is known about one pair of scans.

    `transform` (4, 4) maps `source` into the frame of `target`, scan units; `overlap` 0 to 1, of the scan
    that overlaps more; `inlier_rmse` point-to-plane, scan units; `reason`: why it was accepted or not.
    """

    source: int
    target: int
    transform: Points
    overlap: float
    inlier_rmse: float
    accepted: bool
    reason: str


@dataclass(frozen=True)
class Registration:
    """Poses of all scans.

    `poses` (n, 4, 4): each maps its scan into the frame of the first scan of its group; `groups`: connected
    sets of scan indices, largest first; `resolution`: point spacing; `voxel_size`: edge of the grid that
    poses were refined on. Both in scan units.
    """

    poses: Points
    groups: tuple[tuple[int, ...], ...]
    pairs: tuple[PairResult, ...]
    verdict: Verdict
    resolution: float
    voxel_size: float


@dataclass(frozen=True)
class _Tried:
    """A pair in work: its fit in the registration's units."""

    source: int
    target: int
    fit: Fit

    @property
    def refused(self) -> str | None:
        return self.fit.refused


def _ignore(percent: float) -> None:
    """Report progress to nobody."""


def register(
    scans: Sequence[Scan],
    *,
    seed: int = 0,
    force_global: bool = False,
    compensate_occlusion: int = 0,
    on_progress: Callable[[float], None] = _ignore,
) -> Registration:
    """Return the poses that bring overlapping scans together, and the groups that overlap.

    `force_global` ignores that the scans may already lie nearly right; `compensate_occlusion` (0, 1, 2...)
    accepts smaller overlaps; `on_progress` gets 0 to 100. The same scans and seed give the same result.
    Raises ValueError for no scans or a scan without points.
    """
    if not scans or any(len(scan.points) == 0 for scan in scans):
        raise ValueError(f"need scans with points, got sizes {[len(scan.points) for scan in scans]}")
    scale = common_scale([scan.points for scan in scans], seed=seed)
    if len(scans) == 1:
        on_progress(100.0)
        return Registration(np.eye(4)[None], ((0,),), (), Verdict.SINGLE_SCAN, scale.resolution, scale.fine)
    prepared = []
    for k, scan in enumerate(scans):
        prepared.append(prepare(scan, scale, seed=seed + k))
        on_progress(20.0 * (k + 1) / len(scans))
    gate = Gate().relaxed(compensate_occlusion)
    tried = _connect(prepared, scale, gate, force_global=force_global, on_progress=on_progress)
    tried = _close_loops(prepared, tried, gate)
    on_progress(95.0)
    tried, poses = _consistent(len(scans), tried)
    on_progress(100.0)
    return _result(prepared, scale, tried, poses)


def _connect(
    prepared: Sequence[Prepared],
    scale: Scale,
    gate: Gate,
    *,
    force_global: bool,
    on_progress: Callable[[float], None],
) -> list[_Tried]:
    """Return the pairs tried, most alike first, until no pair is left that would join two groups.

    A pair inside a group is left to the closing of loops, which knows its pose already; a pair between two
    groups is never left out, for it may be the only connection.
    """
    pairs = [(i, j) for j, i in combinations(range(len(prepared)), 2)]
    likeness: dict[tuple[int, int], float] = {}
    for k, (i, j) in enumerate(pairs):
        likeness[i, j] = match(prepared[i].described, prepared[j].described, limit=MATCHES).likeness
        on_progress(20.0 + 15.0 * (k + 1) / len(pairs))
    order = sorted(pairs, key=lambda p: -likeness[p])
    # A second, harder look at the likeliest pairs that are still apart: a whole set may hang on one of them.
    rounds = [(pair, 1) for pair in order] + [(pair, 3) for pair in order]
    tried: dict[tuple[int, int], _Tried] = {}
    harder = 0
    for k, ((i, j), effort) in enumerate(rounds):
        on_progress(35.0 + 50.0 * (k + 1) / len(rounds))
        together = any(i in g and j in g for g in connected(len(prepared), _edges(list(tried.values()))))
        if together or (effort > 1 and harder >= RETRIED_PAIRS):
            continue
        harder += effort > 1
        fit = _search(prepared[i], prepared[j], scale, gate, force_global=force_global, effort=effort)
        if fit is not None:
            tried[i, j] = _Tried(i, j, fit)
    return list(tried.values())


def _search(
    source: Prepared, target: Prepared, scale: Scale, gate: Gate, *, force_global: bool, effort: int
) -> Fit | None:
    """Return the best fit of one pair, from features and from where the files put the scans."""
    prior = None if force_global else _as_delivered(source, target, scale)
    matches = match(source.described, target.described, limit=MATCHES if effort == 1 else 2 * MATCHES)
    guesses = [] if prior is None else [prior]
    proposals = propose(source, target, matches, guesses=guesses, effort=effort)
    return settle(source, target, proposals, gate if effort == 1 else gate.stricter(), prior=prior)


def _close_loops(prepared: Sequence[Prepared], tried: list[_Tried], gate: Gate) -> list[_Tried]:
    """Return `tried` with every pair added or replaced that the poses so far show to overlap."""
    poses = optimise(len(prepared), _edges(tried))
    known = {(t.source, t.target) for t in tried if t.refused is None}
    result = {(t.source, t.target): t for t in tried}
    for group in connected(len(prepared), _edges(tried)):
        for j, i in combinations(group, 2):
            if (i, j) in known:
                continue
            predicted = np.linalg.inv(poses[j]) @ poses[i]
            if judge(prepared[i], prepared[j], predicted).overlap < gate.overlap / 2:
                continue
            result[i, j] = _Tried(i, j, check(prepared[i], prepared[j], predicted, gate))
    return list(result.values())


def _consistent(count: int, tried: list[_Tried]) -> tuple[list[_Tried], Points]:
    """Return the pairs with those refused that contradict the rest, and the poses from the others."""
    while True:
        edges = _edges(tried)
        poses = optimise(count, edges)
        wrong = [(misplacement(e, poses), e) for e in edges]
        worst = max(wrong, key=lambda w: w[0], default=(0.0, None))
        if worst[1] is None or worst[0] < CONTRADICTION:
            return tried, poses
        bad = (worst[1].source, worst[1].target)
        reason = f"contradicts the other pairs by {worst[0]:.1f} coarse voxels"
        tried = [
            replace(t, fit=replace(t.fit, refused=reason)) if (t.source, t.target) == bad else t
            for t in tried
        ]


def _edges(tried: Sequence[_Tried]) -> list[Edge]:
    return [
        Edge(t.source, t.target, t.fit.transform, t.fit.evidence.information, max(t.fit.evidence.score, 1e-3))
        for t in tried
        if t.refused is None
    ]


def _as_delivered(source: Prepared, target: Prepared, scale: Scale) -> Points:
    """Return the transform that leaves both scans where their files put them."""
    guess = np.eye(4)
    guess[:3, 3] = (source.origin - target.origin) / scale.coarse
    return guess


def _result(
    prepared: Sequence[Prepared], scale: Scale, tried: Sequence[_Tried], poses: Points
) -> Registration:
    groups = connected(len(prepared), _edges(tried))
    first = {i: group[0] for group in groups for i in group}
    world = [
        _in_scan_units(np.linalg.inv(poses[first[i]]) @ poses[i], p, prepared[first[i]], scale)
        for i, p in enumerate(prepared)
    ]
    pairs = [_pair(t, prepared, scale) for t in sorted(tried, key=lambda t: (t.target, t.source))]
    if len(groups) == 1:
        verdict = Verdict.ALIGNED
    else:
        verdict = Verdict.NO_OVERLAP if len(groups[0]) == 1 else Verdict.PARTIAL
    return Registration(np.array(world), groups, tuple(pairs), verdict, scale.resolution, scale.fine)


def _pair(tried: _Tried, prepared: Sequence[Prepared], scale: Scale) -> PairResult:
    evidence = tried.fit.evidence
    return PairResult(
        source=tried.source,
        target=tried.target,
        transform=_in_scan_units(tried.fit.transform, prepared[tried.source], prepared[tried.target], scale),
        overlap=evidence.overlap,
        inlier_rmse=evidence.rms * scale.coarse,
        accepted=tried.refused is None,
        reason=tried.refused or f"{evidence.overlap:.0%} overlap, {evidence.agreement:.0%} of it agrees",
    )


def _in_scan_units(transform: Points, source: Prepared, target: Prepared, scale: Scale) -> Points:
    """Return a transform between two prepared scans as one between the scans as delivered."""
    result = transform.copy()
    result[:3, 3] = transform[:3, 3] * scale.coarse + target.origin - transform[:3, :3] @ source.origin
    return result
