"""One pair of scans: how a transform is refined, and what speaks for and against it."""

from dataclasses import dataclass

import numpy as np
import small_gicp

from scanfleet.reference_processor.downsample import Points, Surface
from scanfleet.reference_processor.flats import beyond_flats
from scanfleet.reference_processor.posegraph import exponential, inverse_of
from scanfleet.reference_processor.prepare import Prepared

PROBES = 5_000
# Surfaces this many coarse voxels apart, facing alike, where they should be one: a contradiction.
CONTRADICTION_REACH = 3.0
# How far the overlap is pushed, in coarse voxels, to see whether it slides.
PUSH = 2.0


@dataclass(frozen=True)
class Evidence:
    """What the surfaces say about one transform.

    `overlap_source`, `overlap_target`: fraction of each scan's points that lie on the other;
    `common`: the overlap's area in coarse voxels, by the scan that shows less of it;
    `agreement`: points on the other surface / points that are on it or hover over it, the worse direction;
    `rms`: point-to-plane root mean square of the points on the surface, in coarse voxels;
    `noise`: what `rms` would be from the scans' own roughness; `intrusion`: points in space that the other
    scan's sensor saw through / those and the points on its surface, the worse direction (0.0 if no viewpoint
    is known);
    `firmness`: how the overlap resists a push in its loosest direction (0: it slides freely);
    `slide_cost`: growth of the squared residual, as multiple of itself, when really pushed that way;
    `beyond_flats`: share of the common surface that three planes do not explain; `is_watched`: both sensors'
    places are known, so that `intrusion` says something both ways;
    `information` (6, 6): how firmly turns and shifts of the target's frame are held, for the pose graph.
    """

    overlap_source: float
    overlap_target: float
    common: float
    agreement: float
    rms: float
    noise: float
    intrusion: float
    firmness: float
    slide_cost: float
    beyond_flats: float
    is_watched: bool
    information: Points

    @property
    def overlap(self) -> float:
        """The overlap as fraction of the scan that overlaps more (a detail lies wholly on an overview)."""
        return max(self.overlap_source, self.overlap_target)

    @property
    def score(self) -> float:
        """A number to rank transforms of the same pair by."""
        return (self.overlap_source + self.overlap_target) / 2 * self.agreement**2


@dataclass(frozen=True)
class _Contact:
    """Probes of one surface against another: counts, and the linearised point-to-plane system of the hits."""

    probes: int
    hits: int
    misses: int
    squares: float
    points: Points
    normals: Points
    residuals: Points


def refine(
    source: Prepared, target: Prepared, initial: Points, *, reaches: tuple[tuple[int, float, int], ...]
) -> Points:
    """Return `initial` improved by GICP, once for each (level, reach in coarse voxels, most iterations).

    Source: Segal, Haehnel, Thrun 2009, "Generalized-ICP"; small_gicp (Koide 2024). One thread: with more,
    sums are added in any order and a run cannot be repeated exactly.
    """
    transform = initial
    for level, reach, iterations in reaches:
        result = small_gicp.align(
            target.levels[level].cloud,
            source.levels[level].cloud,
            target.levels[level].tree,
            transform,
            max_correspondence_distance=reach,
            num_threads=1,
            max_iterations=iterations,
            rotation_epsilon=1e-4,
            translation_epsilon=2e-3,
        )
        transform = _rigid(np.asarray(result.T_target_source))
    return transform


def judge(source: Prepared, target: Prepared, transform: Points, *, seed: int = 0) -> Evidence:
    """Return what the fine surfaces say about `transform` (source to target)."""
    forward = _contact(source.fine, target.fine, transform, hit=hit_distance(source), seed=seed)
    backward = _contact(target.fine, source.fine, inverse_of(transform), hit=hit_distance(source), seed=seed)
    hits = forward.hits + backward.hits
    agreements = [c.hits / max(c.hits + c.misses, 1) for c in (forward, backward)]
    rms = float(np.sqrt((forward.squares + backward.squares) / max(hits, 1)))
    firmness, twist = _loosest(forward)
    return Evidence(
        overlap_source=forward.hits / forward.probes,
        overlap_target=backward.hits / backward.probes,
        common=min(
            source.coarse.size * forward.hits / forward.probes,
            target.coarse.size * backward.hits / backward.probes,
        ),
        agreement=min(agreements) if hits else 0.0,
        rms=rms,
        noise=source.roughness + target.roughness,
        intrusion=max(
            _intrusion(source, target, transform, forward),
            _intrusion(target, source, inverse_of(transform), backward),
        ),
        firmness=firmness,
        beyond_flats=beyond_flats(forward.points, forward.normals, thickness=2 * hit_distance(source)),
        is_watched=source.viewpoint is not None and target.viewpoint is not None,
        slide_cost=_slide_cost(source, target, transform, twist, rms),
        information=_information(forward),
    )


def hit_distance(scan: Prepared) -> float:
    """Return how far off a surface a point may be and still lie on it, in coarse voxels."""
    return 1.5 * scan.fine_voxel


def _intrusion(moving: Prepared, fixed: Prepared, transform: Points, contact: _Contact) -> float:
    if fixed.viewpoint is None:
        return 0.0
    points = moving.coarse.points @ transform[:3, :3].T + transform[:3, 3]
    share = float(np.mean(fixed.viewpoint.intrudes(points)))
    return share / max(share + contact.hits / contact.probes, 1e-9)


def coarse_score(source: Prepared, target: Prepared, transform: Points, *, probes: int = 1200) -> float:
    """Return a quick mark for ranking: hits less contradictions on the coarse surfaces, per probe."""
    contact = _contact(source.coarse, target.coarse, transform, hit=1.0, seed=0, probes=probes)
    return (contact.hits - contact.misses) / contact.probes


def _contact(
    moving: Surface, fixed: Surface, transform: Points, *, hit: float, seed: int, probes: int = PROBES
) -> _Contact:
    """Return how `moving`, moved by `transform`, touches `fixed`."""
    index = np.arange(moving.size)
    if moving.size > probes:
        index = np.sort(np.random.default_rng(seed).choice(moving.size, probes, replace=False))
    rotation = transform[:3, :3]
    points = moving.points[index] @ rotation.T + transform[:3, 3]
    normals = moving.normals[index] @ rotation.T
    distance, near = fixed.tree.query(points, distance_upper_bound=CONTRADICTION_REACH * 1.2, workers=2)
    found = np.isfinite(distance)
    points, normals, distance, near = points[found], normals[found], distance[found], near[found]
    offset = points - fixed.points[near]
    height = np.einsum("ij,ij->i", offset, fixed.normals[near])
    sideways = np.sqrt(np.maximum(distance**2 - height**2, 0))
    above = sideways < 1.2 * np.maximum(fixed.spacing[near], moving.spacing[index][found])
    alike = np.einsum("ij,ij->i", normals, fixed.normals[near])
    is_hit = above & (np.abs(height) < hit) & (np.abs(alike) > 0.75)
    facing = alike > 0.3 if moving.is_oriented and fixed.is_oriented else np.abs(alike) > 0.3
    is_miss = above & (np.abs(height) > 1.5 * hit) & (np.abs(height) < CONTRADICTION_REACH) & facing
    return _Contact(
        probes=len(index),
        hits=int(is_hit.sum()),
        misses=int(is_miss.sum()),
        squares=float((height[is_hit] ** 2).sum()),
        points=points[is_hit],
        normals=fixed.normals[near][is_hit],
        residuals=height[is_hit],
    )


def _loosest(contact: _Contact) -> tuple[float, Points]:
    """Return how firmly the contact resists in its loosest direction, and that direction's twist (6,).

    The resistance is the mean squared plane distance that a unit push causes: a third is a surface that looks
    everywhere, 0 one that slides (plane, cylinder, ball). The twist moves the contact by 1 in the root mean
    square. Source: Gelfand et al. 2003, "Geometrically stable sampling for the ICP algorithm".
    """
    if contact.hits < 20:
        return 0.0, np.zeros(6)
    centre = contact.points.mean(axis=0)
    arms = contact.points - centre
    size = float(np.sqrt((arms**2).sum(axis=1).mean()))
    rows = np.concatenate([np.cross(arms / size, contact.normals), contact.normals], axis=1)
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    turn, shift = vectors[:3, 0] / size, vectors[3:, 0]
    moved = np.cross(turn, arms) + shift
    length = float(np.sqrt((moved**2).sum(axis=1).mean()))
    return float(values[0]), np.concatenate([turn, shift - np.cross(turn, centre)]) / max(length, 1e-12)


def _slide_cost(source: Prepared, target: Prepared, transform: Points, twist: Points, rms: float) -> float:
    """Return by how many times its own square the residual grows when pushed along `twist`, the milder way.

    Noise makes normals wobble, and wobbling normals look firm; that a push really lifts the surfaces off each
    other does not depend on normals.
    """
    costs = []
    for way in (-PUSH, PUSH):
        pushed = exponential(way * twist) @ transform
        wide = 3 * hit_distance(source)
        contact = _contact(source.fine, target.fine, pushed, hit=wide, seed=1, probes=2000)
        lifted = contact.squares + contact.misses * wide**2
        costs.append(lifted / max(contact.hits + contact.misses, 1))
    floor = max(rms, 0.1 * source.fine_voxel) ** 2
    return (min(costs) - rms**2) / floor


def _information(contact: _Contact) -> Points:
    """Return the mean point-to-plane normal matrix, (6, 6), rotation first, in the target's frame."""
    rows = np.concatenate([np.cross(contact.points, contact.normals), contact.normals], axis=1)
    information: Points = rows.T @ rows / max(len(rows), 1)
    return information


def _rigid(transform: Points) -> Points:
    """Return `transform` with its rotation made exactly orthonormal."""
    u, _, vt = np.linalg.svd(transform[:3, :3])
    result = np.eye(4)
    result[:3, :3] = u @ vt
    result[:3, 3] = transform[:3, 3]
    return result
