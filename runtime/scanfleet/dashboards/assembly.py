"""Dashboards' bodies out of a CDK cloud assembly: what `cdk synth` made, whether or not it was deployed.

A body is a join of text and of references that CloudFormation fills in. Those to alarms of the same template
are their names; those to other stacks are looked up there, if those are deployed. What nobody knows stays as
<stack: id>, and its widget has no data.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scanfleet.errors import InvalidRequest

Physical = Callable[[str, str], str | None]
"""(stack's name, logical id) -> what the deployed stack calls the resource; None: there is none."""
DASHBOARD = "AWS::CloudWatch::Dashboard"


class Assembly:
    """The templates of a folder. Raises InvalidRequest when there is no assembly."""

    def __init__(self, folder: Path, *, region: str, account: str, physical: Physical) -> None:
        files = sorted(folder.glob("*.template.json"))
        if not files:
            raise InvalidRequest.of("--assembly", "no CDK assembly; make one: cdk synth", value=folder)
        self._templates = [json.loads(file.read_text()) for file in files]
        self._pseudo = {"AWS::Region": region, "AWS::AccountId": account, "AWS::Partition": "aws"}
        self._physical = physical

    def bodies(self, stage: str) -> Iterator[tuple[str, str]]:
        """Yield name and body of each of the stage's dashboards."""
        for template in self._templates:
            for resource in template.get("Resources", {}).values():
                if resource["Type"] == DASHBOARD:
                    name = resource["Properties"]["DashboardName"]
                    if name.startswith(f"scanfleet-{stage}-"):
                        yield name, self._text(resource["Properties"]["DashboardBody"], template)

    def _text(self, value: Any, template: dict[str, Any]) -> str:
        if isinstance(value, str):
            return value
        ((function, argument),) = value.items()
        if function == "Fn::Join":
            separator, parts = argument
            return str(separator).join(self._text(part, template) for part in parts)
        if function == "Ref":
            return str(self._pseudo.get(argument, f"<{argument}>"))
        if function == "Fn::GetAtt":
            return self._attribute(template, *argument)
        if function == "Fn::ImportValue":
            return self._imported(str(argument))
        return f"<{function}>"

    def _attribute(self, template: dict[str, Any], logical_id: str, name: str) -> str:
        resource = template["Resources"][logical_id]
        if resource["Type"] == "AWS::CloudWatch::Alarm" and name == "Arn":
            region, account = self._pseudo["AWS::Region"], self._pseudo["AWS::AccountId"]
            return f"arn:aws:cloudwatch:{region}:{account}:alarm:{resource['Properties']['AlarmName']}"
        return f"<{logical_id}.{name}>"

    def _imported(self, export: str) -> str:
        """Return what another stack exports: the name of a queue, a table, a load balancer."""
        stack = export.partition(":")[0]
        for template in self._templates:
            for output in template.get("Outputs", {}).values():
                if output.get("Export", {}).get("Name") == export:
                    reference = output["Value"]
                    logical_id = reference.get("Ref") or reference["Fn::GetAtt"][0]
                    found = self._physical(stack, logical_id)
                    return _name(found) if found else f"<{stack}: {logical_id}>"
        return f"<{export}>"


def _name(physical_id: str) -> str:
    """Return what metrics call a resource: the last part of a queue's URL, a load balancer's full name.

    Source: Application Load Balancer guide, "CloudWatch metrics for your Application Load Balancer".
    """
    if ":loadbalancer/" in physical_id:
        return physical_id.partition(":loadbalancer/")[2]
    return physical_id.rpartition("/")[2] if "://" in physical_id else physical_id
