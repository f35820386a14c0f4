"""The best transform of a pair that can be found, and how clearly it is the best."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scanfleet.reference_processor.consensus import agree, displacement, distinct
from scanfleet.reference_processor.downsample import Points
from scanfleet.reference_processor.features import match
from scanfleet.reference_processor.gate import Gate, refusal
from scanfleet.reference_processor.pairwise import Evidence, coarse_score, judge, refine
from scanfleet.reference_processor.prepare import Prepared

MATCHES = 1_000
HYPOTHESES = 16
COARSE_REFINED = 6
FINE_REFINED = 4


@dataclass(frozen=True)
class Proposal:
    """A transform refined on the coarse clouds, with its quick mark."""

    transform: Points
    mark: float


@dataclass(frozen=True)
class Fit:
    """The best transform found, what speaks for it, and why it is not believed (None: it is)."""

    transform: Points
    evidence: Evidence
    refused: str | None


def propose(source: Prepared, target: Prepared, *, guesses: Sequence[Points]) -> list[Proposal]:
    """Return distinct proposals, best mark first: from matched features and from `guesses`."""
    both_signs = not (source.coarse.is_oriented and target.coarse.is_oriented)
    matches = match(source.described, target.described, both_signs=both_signs, limit=MATCHES)
    found = agree(source.coarse, target.coarse, matches, limit=HYPOTHESES).transforms
    marks = [coarse_score(source, target, t, probes=600) for t in found]
    best = [found[i] for i in np.argsort(-np.array(marks), kind="stable")[:COARSE_REFINED]] if marks else []
    refined = [refine(source, target, t, reaches=((0, 3.0), (0, 1.5))) for t in best]
    refined += [refine(source, target, t, reaches=((0, 6.0), (0, 3.0), (0, 1.5))) for t in guesses]
    return _ranked(source, target, refined)


def settle(source: Prepared, target: Prepared, proposals: Sequence[Proposal], gate: Gate) -> Fit | None:
    """Return the best believable proposal, or else the best one with the reason; None when there is none."""
    fits = [check(source, target, sharpen(source, target, p.transform), gate) for p in proposals[:FINE_REFINED]]
    if not fits:
        return None
    fits.sort(key=lambda fit: (fit.refused is not None, -fit.evidence.score))
    best = fits[0]
    apart = displacement(best.transform, np.array([f.transform for f in fits]), source.coarse.points)
    rivals = [f for f, d in zip(fits, apart, strict=True) if d > 2.0 and f.refused is None]
    if best.refused is None and any(r.evidence.score > gate.rival * best.evidence.score for r in rivals):
        return replace(best, refused="another transform fits as well: the shape repeats itself")
    return best


def check(source: Prepared, target: Prepared, transform: Points, gate: Gate) -> Fit:
    """Return `transform` with its evidence and the gate's answer."""
    evidence = judge(source, target, transform)
    return Fit(transform, evidence, refusal(evidence, gate, fine_voxel=source.fine_voxel))


def sharpen(source: Prepared, target: Prepared, transform: Points) -> Points:
    """Return `transform` refined down to the fine grid."""
    fine = source.fine_voxel
    middle = float(np.sqrt(fine))
    return refine(source, target, transform, reaches=((1, 2 * middle), (2, 3 * fine), (2, 2 * fine)))


def _ranked(source: Prepared, target: Prepared, transforms: Sequence[Points]) -> list[Proposal]:
    if not transforms:
        return []
    marks = np.array([coarse_score(source, target, t) for t in transforms])
    order = np.argsort(-marks, kind="stable")
    stacked = np.array(transforms)[order]
    keep = distinct(stacked, source.coarse.points, apart=2.0, limit=FINE_REFINED + 1)
    return [Proposal(transform=stacked[k], mark=float(marks[order][k])) for k in keep]
