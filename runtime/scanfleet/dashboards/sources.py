"""Where dashboards' bodies come from: CloudWatch, or a CDK assembly."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from scanfleet.contract import PRODUCT
from scanfleet.dashboards.assembly import Assembly
from scanfleet.dashboards.body import Dashboard, parse
from scanfleet.dashboards.data import answering
from scanfleet.errors import NotFound

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient


def deployed(client: "CloudWatchClient", stage: str) -> Iterator[tuple[str, str]]:
    """Yield name and body of each of the stage's dashboards in CloudWatch. Raises Unavailable."""
    with answering("list dashboards"):
        pages = client.get_paginator("list_dashboards").paginate(DashboardNamePrefix=f"{PRODUCT}-{stage}-")
        for page in pages:
            for entry in page["DashboardEntries"]:
                name = entry["DashboardName"]
                yield name, client.get_dashboard(DashboardName=name)["DashboardBody"]


def synthesized(folder: Path, cloudformation: Any, sts: Any, *, stage: str) -> Iterator[tuple[str, str]]:
    """Yield name and body of each of the assembly's dashboards of the stage.

    What they name of other stacks is looked up there, as far as those are deployed. Raises InvalidRequest
    when there is no assembly, Unavailable.
    """

    def physical(stack: str, logical_id: str) -> str | None:
        try:
            found = cloudformation.describe_stack_resource(StackName=stack, LogicalResourceId=logical_id)
        except ClientError:  # there is no such stack
            return None
        return str(found["StackResourceDetail"]["PhysicalResourceId"])

    with answering("read stacks"):
        account = sts.get_caller_identity()["Account"]
        region = cloudformation.meta.region_name
        yield from Assembly(folder, region=region, account=account, physical=physical).bodies(stage)


def chosen(bodies: Mapping[str, str], stage: str, names: Sequence[str]) -> list[Dashboard]:
    """Return the named dashboards, all without names. A name may leave out `scanfleet-<stage>-`.

    Raises NotFound for a name that is not there.
    """
    begin = f"{PRODUCT}-{stage}-"
    wanted = [name if name in bodies else begin + name for name in names] or sorted(bodies)
    if lost := [name for name in wanted if name not in bodies]:
        known = ", ".join(name.removeprefix(begin) for name in sorted(bodies))
        raise NotFound(f"no dashboard {lost[0].removeprefix(begin)!r}; there are: {known}")
    return [parse(name, bodies[name]) for name in wanted]
