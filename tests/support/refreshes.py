"""Instance refreshes for moto, which has none: a stand-in that keeps AWS's documented rules.

It refuses what AWS refuses, saves the desired configuration on success only, and gives the old one back on a
rollback. Installed on a client, so that botocore still checks every request against the service's model.
Sources: EC2 Auto Scaling API reference, StartInstanceRefresh and RefreshPreferences; its user guide, "Undo
changes with a manual or auto rollback".
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

RUNNING = {"Pending", "InProgress", "Baking"}


class Refreshes:
    """The instance refreshes of one account. `finish` and `fail` end the running one."""

    def __init__(self, autoscaling: Any, ec2: Any, *, clock: Any) -> None:
        self._autoscaling, self._ec2, self._clock = autoscaling, ec2, clock
        self.all: list[dict[str, Any]] = []
        events = autoscaling.meta.events
        events.register("before-call.auto-scaling.StartInstanceRefresh", self._start)
        events.register("before-call.auto-scaling.DescribeInstanceRefreshes", self._describe)
        events.register("provide-client-params.auto-scaling.StartInstanceRefresh", self._remember)
        self._request: Mapping[str, Any] = {}

    def finish(self) -> None:
        """The running refresh succeeds: every machine matches, and the group has the configuration."""
        refresh = self._end("Successful")
        self.move(refresh["AutoScalingGroupName"], refresh["DesiredConfiguration"])

    def fail(self) -> None:
        """The running refresh fails: rolled back when that was asked for."""
        rolls_back = next(r for r in self.all if r["Status"] in RUNNING)["Preferences"].get("AutoRollback")
        self._end("RollbackSuccessful" if rolls_back else "Failed")

    def move(self, group: str, configuration: Mapping[str, Any]) -> None:
        """Set the group's configuration; moto's machines have their template's default version."""
        self._autoscaling.update_auto_scaling_group(AutoScalingGroupName=group, **configuration)
        chosen = _template(configuration)
        self._ec2.modify_launch_template(
            LaunchTemplateId=chosen["LaunchTemplateId"], DefaultVersion=str(chosen["Version"])
        )

    def _end(self, status: str) -> dict[str, Any]:
        (refresh,) = [r for r in self.all if r["Status"] in RUNNING]
        refresh |= {"Status": status, "EndTime": datetime.fromtimestamp(self._clock(), tz=UTC)}
        return refresh

    def _remember(self, params: Mapping[str, Any], **_: Any) -> None:
        self._request = params

    def _start(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        request = dict(self._request)
        if any(r["Status"] in RUNNING for r in self.all):
            return _refusal("InstanceRefreshInProgress", "an instance refresh is in progress")
        if (problem := self._problem(request)) is not None:
            return _refusal("ValidationError", problem)
        self.all.append(
            {
                **request,
                "InstanceRefreshId": f"refresh-{len(self.all) + 1}",
                "Status": "InProgress",
                "StartTime": datetime.fromtimestamp(self._clock(), tz=UTC),
            }
        )
        return _answer({"InstanceRefreshId": self.all[-1]["InstanceRefreshId"]})

    def _problem(self, request: Mapping[str, Any]) -> str | None:
        preferences = request.get("Preferences", {})
        lowest, highest = preferences.get("MinHealthyPercentage"), preferences.get("MaxHealthyPercentage")
        if highest is not None and (lowest is None or highest - lowest > 100):
            return "MaxHealthyPercentage needs a MinHealthyPercentage at most 100 below"
        if not preferences.get("AutoRollback"):
            return None
        if "DesiredConfiguration" not in request:
            return "AutoRollback cannot be true when the DesiredConfiguration parameter is empty"
        name = request["AutoScalingGroupName"]
        group = self._autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])[
            "AutoScalingGroups"
        ][0]
        present = _template(group)
        if not str(present.get("Version", "$Default")).isdigit():
            return "AutoRollback needs a numbered launch template version"
        version = self._ec2.describe_launch_template_versions(
            LaunchTemplateId=present["LaunchTemplateId"], Versions=[str(present["Version"])]
        )["LaunchTemplateVersions"][0]
        if version["LaunchTemplateData"].get("ImageId", "").startswith("resolve:ssm:"):
            return "AutoRollback is not supported with an SSM parameter for the AMI"
        return None

    def _describe(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return _answer({"InstanceRefreshes": list(self.all)})


def _template(configuration: Mapping[str, Any]) -> Mapping[str, Any]:
    mixed = configuration.get("MixedInstancesPolicy")
    found = (
        mixed["LaunchTemplate"]["LaunchTemplateSpecification"] if mixed else configuration["LaunchTemplate"]
    )
    return dict(found)


def _answer(parsed: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return SimpleNamespace(status_code=200), {**parsed, "ResponseMetadata": {"HTTPStatusCode": 200}}


def _refusal(code: str, message: str) -> tuple[Any, dict[str, Any]]:
    return SimpleNamespace(status_code=400), {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": 400},
    }
