"""Which release is active: one SSM parameter, whose history is the way back."""

from typing import TYPE_CHECKING

from scanfleet.contract import NO_RELEASE, Parameter, parameter_name
from scanfleet.errors import Conflict, NotFound
from scanfleet.releases import Release, ReleaseStore

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


class ActiveRelease:
    """The active release of a stage."""

    def __init__(self, ssm: "SSMClient", stage: str) -> None:
        self._ssm = ssm
        self._stage = stage
        self._name = parameter_name(stage, Parameter.MEDIT_RELEASE)

    def version(self) -> str:
        """Return the active version, or "none". Raises NotFound where the image stack is not deployed."""
        return self._value(self._name)

    def bucket(self) -> str:
        """Return the stage's release bucket. Raises NotFound when the stage has none."""
        return self._value(parameter_name(self._stage, Parameter.RELEASE_BUCKET))

    def activate(self, store: ReleaseStore, version: str) -> Release:
        """Make a release the active one, after every file of it was seen in the bucket.

        Raises NotFound and Conflict like `ReleaseStore.read` and `.verify`; nothing has changed then.
        """
        before = self.version()
        release = store.read(version)
        store.verify(release)
        if before != version:  # the same value again would build the same image again
            self._ssm.put_parameter(Name=self._name, Value=version, Type="String", Overwrite=True)
        return release

    def previous(self) -> str:
        """Return the version that was active before the present one. Raises Conflict when there was none.

        After a rollback that is the one rolled back from.
        """
        present = self.version()
        pages = self._ssm.get_paginator("get_parameter_history").paginate(Name=self._name)
        values = [entry["Value"] for page in pages for entry in page["Parameters"]]
        earlier = [value for value in values if value not in {present, NO_RELEASE}]
        if not earlier:
            raise Conflict(f"no other release was active before {present} in the stage {self._stage}")
        return earlier[-1]

    def _value(self, name: str) -> str:
        try:
            return self._ssm.get_parameter(Name=name)["Parameter"]["Value"]
        except self._ssm.exceptions.ParameterNotFound as error:
            raise NotFound(
                f"the SSM parameter {name} does not exist; the stage {self._stage} is not deployed in this"
                " account and region, or has no release bucket (medit.release_bucket)"
            ) from error
