"""When a transform between two scans is believed. A wrong merge is worse than a missing one."""

from dataclasses import dataclass

from scanfleet.reference_processor.search import Fit


@dataclass(frozen=True)
class Gate:
    """What a pair must show to be accepted; lengths in fine voxels.

    `overlap`: least fraction of one scan that lies on the other; `agreement`: least share of touching points
    among touching and hovering ones; `rms`: most point-to-plane error; `firmness`: least resistance against
    sliding; `rival`: most score of another transform, as fraction of the best one's.
    """

    overlap: float = 0.15
    agreement: float = 0.9
    rms: float = 0.75
    firmness: float = 0.002
    rival: float = 0.8

    def relaxed(self, level: int) -> "Gate":
        """Return the gate for scans with much occlusion: less overlap is asked for, nothing else."""
        return Gate(overlap=self.overlap / (1 + 0.5 * level))


def refusal(fit: Fit, gate: Gate, *, fine_voxel: float) -> str | None:
    """Return why `fit` is not believed, in words for the report; None when it is believed."""
    e = fit.evidence
    checks = [
        (e.overlap < gate.overlap, f"overlap {e.overlap:.0%} is below {gate.overlap:.0%}"),
        (
            e.agreement < gate.agreement,
            f"{1 - e.agreement:.0%} of the common surface contradicts (at most {1 - gate.agreement:.0%})",
        ),
        (
            e.rms > gate.rms * fine_voxel,
            f"surfaces differ by {e.rms / fine_voxel:.2f} voxels (at most {gate.rms})",
        ),
        (e.firmness < gate.firmness, "the common surface can slide: it does not fix the pose"),
        (fit.rival > gate.rival * e.score, "another transform fits as well: the shape repeats itself"),
    ]
    return next((reason for failed, reason in checks if failed), None)
