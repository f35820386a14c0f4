"""Which image a pool's new machines boot, and whether one was built at all."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scanfleet.contract import Parameter, Pool, parameter_name
from scanfleet.controller.snapshot import answering

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

IMAGE_PARAMETERS = {Pool.WINDOWS_GPU: Parameter.AMI_WINDOWS_GPU}
"""Pools whose machines boot an image of our own."""
SEEDED_VERSION = 1
"""The stack seeds the parameter with a bare Windows: its first version. Every image build writes another."""


@dataclass(frozen=True)
class Image:
    """An image parameter's present value, and how often it was written."""

    ami_id: str
    parameter_version: int

    @property
    def is_built(self) -> bool:
        """Return whether an image build wrote it."""
        return self.parameter_version > SEEDED_VERSION


class Images:
    """Reads the image parameters of a stage."""

    def __init__(self, client: "SSMClient", *, stage: str) -> None:
        self._client = client
        self._stage = stage

    def of(self, pool: Pool) -> Image | None:
        """Return the pool's image, or None for a pool that boots none of ours. Raises Unavailable."""
        if pool not in IMAGE_PARAMETERS:
            return None
        name = parameter_name(self._stage, IMAGE_PARAMETERS[pool])
        with answering(f"read the parameter {name}"):
            parameter = self._client.get_parameter(Name=name)["Parameter"]
        return Image(parameter["Value"], parameter["Version"])
