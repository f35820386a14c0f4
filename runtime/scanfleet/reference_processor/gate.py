"""When a transform between two scans is believed. A wrong merge is worse than a missing one."""

from dataclasses import dataclass, replace

import numpy as np

from scanfleet.reference_processor.pairwise import Evidence


@dataclass(frozen=True)
class Gate:
    """What a pair must show to be accepted.

    `overlap`: least fraction of one scan that lies on the other, `common`: and its least
    area in coarse voxels; `agreement`: least share of touching points
    among touching and hovering ones (more for rough scans, whose residuals say less); `intrusion`: most share
    of points where the other sensor saw through; `noise_times`, `rms_voxels`: most point-to-plane error, as
    multiple of the scans' own roughness and in fine voxels, their squares added; `firmness`, `slide_cost`:
    least resistance against sliding; `beyond_flats`: least share of the common surface beyond three planes,
    unless both sensors' places are known; `rival`: most score of another believable transform, as fraction of
    the best one's.
    """

    overlap: float = 0.12
    common: float = 50.0
    agreement: float = 0.8
    intrusion: float = 0.03
    noise_times: float = 1.0
    rms_voxels: float = 0.33
    firmness: float = 0.003
    slide_cost: float = 1.0
    beyond_flats: float = 0.1
    rival: float = 0.7

    def relaxed(self, level: int) -> "Gate":
        """Return the gate for scans with much occlusion: less overlap is asked for, nothing else."""
        return replace(self, overlap=self.overlap / (1 + 0.5 * level))

    def stricter(self) -> "Gate":
        """Return the gate for a harder search: who tries more transforms meets more that fit by chance."""
        return replace(
            self, overlap=1.5 * self.overlap, agreement=self.agreement + 0.1, intrusion=self.intrusion / 2
        )


def refusal(e: Evidence, gate: Gate, *, fine_voxel: float) -> str | None:
    """Return why the evidence does not do, in words for the report; None when it does."""
    most = float(np.hypot(gate.rms_voxels * fine_voxel, gate.noise_times * e.noise))
    agreement = gate.agreement + float(np.clip(0.3 * (e.noise / fine_voxel - 0.3), 0.0, 0.13))
    checks = [
        (e.overlap < gate.overlap, f"overlap {e.overlap:.0%} is below {gate.overlap:.0%}"),
        (e.common < gate.common, "the common surface is too small to tell"),
        (
            e.agreement < agreement,
            f"{1 - e.agreement:.0%} of the common surface contradicts (at most {1 - agreement:.0%})",
        ),
        (
            e.intrusion > gate.intrusion,
            f"{e.intrusion:.0%} would lie where the other scan saw nothing (at most {gate.intrusion:.0%})",
        ),
        (e.rms > most, f"the surfaces differ {e.rms / most:.1f} times as much as noise explains"),
        (
            e.firmness < gate.firmness or e.slide_cost < gate.slide_cost,
            "the common surface can slide: it does not fix the pose",
        ),
        (
            e.beyond_flats < gate.beyond_flats and not e.is_watched,
            "the common surface is three planes or less: any corner fits any other",
        ),
    ]
    return next((reason for failed, reason in checks if failed), None)


def hopeless(e: Evidence, gate: Gate, *, fine_voxel: float) -> str | None:
    """Return why not even further refinement can make the evidence do; None when it might."""
    loose = replace(
        gate,
        overlap=gate.overlap / 2,
        common=gate.common / 2,
        agreement=gate.agreement - 0.2,
        intrusion=0.1,
        noise_times=2 * gate.noise_times,
        rms_voxels=0.6,
        firmness=gate.firmness / 2,
        slide_cost=gate.slide_cost / 2,
        beyond_flats=0.0,
    )
    return refusal(e, loose, fine_voxel=fine_voxel)
