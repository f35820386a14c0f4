"""The best transform of a pair that can be found, and whether it is clearly the best."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scanfleet.reference_processor.consensus import agree, displacement, distinct
from scanfleet.reference_processor.downsample import Points
from scanfleet.reference_processor.features import Matches
from scanfleet.reference_processor.gate import Gate, hopeless, refusal
from scanfleet.reference_processor.pairwise import Evidence, coarse_score, judge, refine
from scanfleet.reference_processor.prepare import Prepared

HYPOTHESES = 16
COARSE_REFINED = 5
PROPOSALS = 4
# Two transforms that place a scan less than this apart, in coarse voxels, are one.
SAME = 2.0


@dataclass(frozen=True)
class Fit:
    """The best transform found, what speaks for it, and why it is not believed (None: it is)."""

    transform: Points
    evidence: Evidence
    refused: str | None


def propose(
    source: Prepared, target: Prepared, matches: Matches, *, guesses: Sequence[Points], effort: int = 1
) -> list[Points]:
    """Return distinct transforms refined on the coarse clouds, best first: from `matches` and `guesses`.

    `effort` multiplies how many hypotheses are followed up.
    """
    found = agree(source.coarse, target.coarse, matches, limit=HYPOTHESES * effort).transforms
    marks = np.array([coarse_score(source, target, t, probes=600) for t in found])
    best = [found[i] for i in np.argsort(-marks, kind="stable")[: COARSE_REFINED * effort]]
    refined = [refine(source, target, t, reaches=((0, 3.0, 10), (0, 1.5, 6))) for t in best]
    refined += [refine(source, target, t, reaches=((0, 6.0, 15), (0, 3.0, 10), (0, 1.5, 6))) for t in guesses]
    if not refined:
        return []
    marks = np.array([coarse_score(source, target, t) for t in refined])
    ranked = np.array(refined)[np.argsort(-marks, kind="stable")]
    return [ranked[k] for k in distinct(ranked, source.coarse.points, apart=SAME, limit=PROPOSALS * effort)]


def settle(
    source: Prepared, target: Prepared, proposals: Sequence[Points], gate: Gate, *, prior: Points | None
) -> Fit | None:
    """Return the best believable proposal, or else the best one with the reason; None when there is none.

    `prior`: where the files put the scans. A believable fit right beside it needs no proof that the shape
    does not repeat itself, for then the prior decides.
    """
    fits = [_sharp(source, target, proposal, gate) for proposal in proposals]
    if not fits:
        return None
    best = min(fits, key=_preference)
    if best.refused is not None or (prior is not None and _beside(best.transform, prior, source)):
        return best
    fits += [_sharp(source, target, twin, gate) for twin in _twins(source, target, best)]
    best = min(fits, key=_preference)
    apart = displacement(best.transform, np.array([f.transform for f in fits]), source.coarse.points)
    rivals = [f for f, d in zip(fits, apart, strict=True) if d > SAME and f.refused is None]
    if any(r.evidence.score > gate.rival * best.evidence.score for r in rivals):
        return replace(best, refused="another transform fits as well: the shape repeats itself")
    return best


def check(source: Prepared, target: Prepared, transform: Points, gate: Gate) -> Fit:
    """Return `transform` refined to the fine grid, with its evidence and the gate's answer."""
    fine = source.fine_voxel
    transform = refine(source, target, transform, reaches=((2, 3 * fine, 6), (2, 2 * fine, 8)))
    evidence = judge(source, target, transform)
    return Fit(transform, evidence, refusal(evidence, gate, fine_voxel=fine))


def _sharp(source: Prepared, target: Prepared, transform: Points, gate: Gate) -> Fit:
    """Return `transform` refined, to the middle grid only where that already shows that it is wrong."""
    transform = refine(source, target, transform, reaches=((1, 2 * float(np.sqrt(source.fine_voxel)), 12),))
    evidence = judge(source, target, transform)
    reason = hopeless(evidence, gate, fine_voxel=source.fine_voxel)
    return Fit(transform, evidence, reason) if reason else check(source, target, transform, gate)


def _preference(fit: Fit) -> tuple[bool, float]:
    return fit.refused is not None, -fit.evidence.score


def _beside(transform: Points, prior: Points, source: Prepared) -> bool:
    """Return whether `transform` is the delivered pose but for a tenth of the scan's size."""
    size = float(np.sqrt(source.coarse.points.var(axis=0).sum()))
    moved = displacement(transform, prior[None], source.coarse.points)[0]
    return bool(moved < 0.1 * size)


def _twins(source: Prepared, target: Prepared, best: Fit) -> list[Points]:
    """Return the transforms that a symmetric shape would allow beside `best`.

    Quarter and half turns about the main axes of the common surface, for boxes, prisms and the like, which
    the consensus may not have proposed because one of their poses drew all its votes.
    """
    moved = source.coarse.points @ best.transform[:3, :3].T + best.transform[:3, 3]
    common = moved[target.coarse.tree.query(moved, distance_upper_bound=1.5, workers=2)[0] < 1.5]
    if len(common) < 20:
        return []
    centre = common.mean(axis=0)
    axes = np.linalg.svd(common - centre, full_matrices=False)[2]
    least = 0.6 * coarse_score(source, target, best.transform)
    turned = [_turn(centre, axis, angle) @ best.transform for axis in axes for angle in (1, 2, 3)]
    good = [t for t in turned if coarse_score(source, target, t, probes=400) > 0.4 * least]
    refined = [refine(source, target, t, reaches=((0, 3.0, 10), (0, 1.5, 6))) for t in good]
    return [t for t in refined if coarse_score(source, target, t) > least]


def _turn(centre: Points, axis: Points, quarters: int) -> Points:
    """Return the rotation by `quarters` right angles about `axis` through `centre`."""
    c, s = ((0, 1), (-1, 0), (0, -1))[quarters - 1]
    x, y, z = axis
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0.0]])
    result = np.eye(4)
    result[:3, :3] = np.eye(3) + s * k + (1 - c) * k @ k
    result[:3, 3] = centre - result[:3, :3] @ centre
    return result
