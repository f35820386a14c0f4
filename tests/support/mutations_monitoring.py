"""Faults of alarms and dashboards."""

import re
from typing import Any

from tests.support.mutations import Mutation, Properties, Seedless, change, remove

POOL_DASHBOARD = "monitoring/DashboardsPoolwindowsgpu"


def _body(pattern: str, by: str) -> Any:
    """Return a fault that replaces a pattern's first match in a dashboard's body."""

    def edit(properties: Properties) -> None:
        _, parts = properties["DashboardBody"]["Fn::Join"]
        for number, part in enumerate(parts):
            if isinstance(part, str) and re.search(pattern, part):
                parts[number] = re.sub(pattern, by, part, count=1)
                return
        raise Seedless(f"no {pattern} on the dashboard")

    return change(edit)


def _dimension(properties: Properties, **values: str) -> None:
    properties["Dimensions"][0].update(values)


MUTATIONS = [
    Mutation(
        fault="an alarm's metric has a typo",
        where="fleet/WindowsGpuFleetScalingOut",
        caught_by="metric names",
        seed=change(lambda p: p.update(MetricName="BacklogPerSlots")),
    ),
    Mutation(
        fault="an alarm's dimension has a typo",
        where="fleet/WindowsGpuFleetScalingOut",
        caught_by="metric names",
        seed=change(lambda p: _dimension(p, Name="pool")),
    ),
    Mutation(
        fault="an alarm watches a pool that does not exist",
        where="fleet/WindowsGpuFleetScalingIn",
        caught_by="metric names",
        seed=change(lambda p: _dimension(p, Value="windows_gpu")),
    ),
    Mutation(
        fault="an alarm watches another stage",
        where="monitoring/Alarmswindowsgpubootfailures",
        caught_by="metric names",
        seed=change(lambda p: p.update(Namespace="Scanfleet/prod")),
    ),
    Mutation(
        fault="an alarm asks for a unit that is not emitted",
        where="fleet/WindowsGpuFleetScalingOut",
        caught_by="metric names",
        seed=change(lambda p: p.update(Unit="Seconds")),
    ),
    Mutation(
        fault="an alarm on AWS's metrics looks every ten seconds",
        where="monitoring/Alarmsapicrashes",
        caught_by="metric names",
        seed=change(lambda p: p.update(Period=10)),
    ),
    Mutation(
        fault="an alarm tells nobody",
        where="monitoring/Alarmswindowsgpudeadletters",
        caught_by="alarms",
        seed=change(lambda p: p.pop("AlarmActions")),
    ),
    Mutation(
        fault="an alarm is missing",
        where="monitoring/Alarmswindowsgpucontrollersilent",
        caught_by="alarms",
        says="scanfleet-dev-windows-gpu-controller-silent",
        seed=remove,
    ),
    Mutation(
        fault="an alarm takes silence for a state",
        where="monitoring/Alarmswindowsgpucontrollersilent",
        caught_by="alarms",
        seed=change(lambda p: p.pop("TreatMissingData")),
    ),
    Mutation(
        fault="an alarm leads to no runbook",
        where="monitoring/Alarmswindowsgpuoldestjob",
        caught_by="alarms",
        seed=change(lambda p: p.update(AlarmDescription="The oldest job is old.")),
    ),
    Mutation(
        fault="a dashboard's metric has a typo",
        where=POOL_DASHBOARD,
        caught_by="metric names",
        seed=_body('"SlotsBusy"', '"SlotBusy"'),
    ),
    Mutation(
        fault="a dashboard's widgets overlap",
        where=POOL_DASHBOARD,
        caught_by="dashboards",
        seed=_body(r'"x":0,"y":[1-9]\d*', '"x":0,"y":0'),
    ),
    Mutation(
        fault="a dashboard shows values at a period that is soon gone",
        where=POOL_DASHBOARD,
        caught_by="dashboards",
        seed=_body(r'"period":60\b', '"period":10'),
    ),
]
