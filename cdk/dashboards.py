"""The dashboards: fleet, jobs, releases, API, and one for each pool. Those that an operator would pin."""

from dataclasses import dataclass

from aws_cdk.aws_cloudwatch import Dashboard, IWidget, PeriodOverride
from constructs import Construct

from cdk import dashboards_api, dashboards_fleet, dashboards_jobs, dashboards_pool, dashboards_releases
from cdk.alarms import Alarms
from cdk.api_doors import Doors
from cdk.system import System
from scanfleet.contract import PRODUCT

Rows = list[list[IWidget]]


def dashboard_name(stage: str, topic: str) -> str:
    """Return a dashboard's name. Example: ("dev", "jobs") -> "scanfleet-dev-jobs"."""
    return f"{PRODUCT}-{stage}-{topic}"


@dataclass(frozen=True)
class _Page:
    construct_id: str
    topic: str
    rows: Rows


class Dashboards(Construct):
    """Every dashboard of the deployment. `doors`: the API's, whose metrics AWS names by generated ids."""

    def __init__(
        self, scope: Construct, construct_id: str, *, system: System, alarms: Alarms, doors: Doors
    ) -> None:
        super().__init__(scope, construct_id)
        config = system.config
        pages = [
            _Page("Fleet", "fleet", dashboards_fleet.rows(config, alarms)),
            _Page("Jobs", "jobs", dashboards_jobs.rows(system)),
            _Page("Releases", "releases", dashboards_releases.rows(config)),
            _Page("Api", "api", dashboards_api.rows(system, doors)),
            *(
                _Page(f"Pool-{pool}", f"pool-{pool}", dashboards_pool.rows(system, pool, alarms))
                for pool in config.pools
            ),
        ]
        for page in pages:
            dashboard = Dashboard(
                self,
                page.construct_id,
                dashboard_name=dashboard_name(config.stage, page.topic),
                # Each graph's own period: a wide time range would otherwise smooth percentiles away.
                period_override=PeriodOverride.INHERIT,
                start="-PT12H",
            )
            for row in page.rows:
                dashboard.add_widgets(*row)
