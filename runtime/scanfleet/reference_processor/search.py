"""The best transform of a pair that can be found, and how clearly it is the best."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scanfleet.reference_processor.consensus import agree, displacement, distinct
from scanfleet.reference_processor.downsample import Points
from scanfleet.reference_processor.features import match
from scanfleet.reference_processor.pairwise import Evidence, coarse_score, judge, refine
from scanfleet.reference_processor.prepare import Prepared

MATCHES = 1_000
HYPOTHESES = 10
COARSE_REFINED = 5
FINE_REFINED = 3


@dataclass(frozen=True)
class Proposal:
    """A transform refined on the coarse clouds, with its quick mark."""

    transform: Points
    mark: float


@dataclass(frozen=True)
class Fit:
    """The best transform found, what speaks for it, and the score of the best other one (0.0: none)."""

    transform: Points
    evidence: Evidence
    rival: float


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


def settle(source: Prepared, target: Prepared, proposals: Sequence[Proposal]) -> Fit | None:
    """Return the proposal that stands best on the fine surfaces; None when there is none."""
    fits = []
    for proposal in proposals[:FINE_REFINED]:
        transform = sharpen(source, target, proposal.transform)
        fits.append((transform, judge(source, target, transform)))
    if not fits:
        return None
    fits.sort(key=lambda fit: -fit[1].score)
    transform, evidence = fits[0]
    apart = displacement(transform, np.array([t for t, _ in fits]), source.coarse.points)
    rivals = [e.score for (_, e), d in zip(fits, apart, strict=True) if d > 2.0]
    return Fit(transform=transform, evidence=evidence, rival=max(rivals, default=0.0))


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
