"""The API: both doors, the function behind them, the app's routes, the table under them."""

from aws_cdk import Duration
from aws_cdk.aws_cloudwatch import IMetric, IWidget

from cdk.api_doors import Doors
from cdk.aws_metrics import function_metric, http_api_metric, load_balancer_metric, table_metric
from cdk.config import DeploymentConfig
from cdk.dashboards_parts import graph, heading, log_table, percentiles, search
from cdk.queries import API_ERRORS, API_SLOW
from cdk.system import System
from scanfleet.contract import ALL_ROUTES, Component, Dimension, Metric, function_name

MINUTE = Duration.minutes(1)


def rows(system: System, doors: Doors) -> list[list[IWidget]]:
    """Return the dashboard's rows."""
    config = system.config
    return [
        [heading("### The app")],
        [
            graph(
                "Requests by route",
                search(config, Metric.API_REQUEST_DURATION, statistic="SampleCount"),
                unit="requests",
                stacked=True,
            ),
            graph(
                "Time to answer by route", *percentiles(config, Metric.API_REQUEST_DURATION), unit="seconds"
            ),
            graph(
                "Answers of 500 and above by route",
                search(
                    config,
                    Metric.API_SERVER_ERROR,
                    statistic="Sum",
                    without={Dimension.ROUTE: ALL_ROUTES},
                ),
                unit="answers",
                stacked=True,
            ),
        ],
        [heading("### Its function")],
        _function(config),
        [heading("### The doors")],
        _load_balancer(doors),
        _http_api(doors),
        [heading("### The job table")],
        _table(system),
        [log_table(config, API_ERRORS, width=12), log_table(config, API_SLOW, width=12)],
    ]


def _function(config: DeploymentConfig) -> list[IWidget]:
    def of(name: str, statistic: str, label: str) -> IMetric:
        return function_metric(
            function_name(config.stage, Component.API), name, statistic=statistic, label=label
        )

    reserved = config.api.reserved_concurrency
    return [
        graph("Calls", of("Invocations", "Sum", "calls"), unit="calls", width=6),
        graph("Duration", of("Duration", "p50", "p50"), of("Duration", "p95", "p95"), unit="ms", width=6),
        graph(
            "Crashes and throttles",
            of("Errors", "Sum", "crashes"),
            of("Throttles", "Sum", "throttles"),
            unit="calls",
            width=6,
        ),
        graph(
            "Calls at once",
            of("ConcurrentExecutions", "Maximum", "at once"),
            unit="calls",
            width=6,
            limit=(reserved, "reserved concurrency") if reserved else None,
        ),
    ]


def _load_balancer(doors: Doors) -> list[IWidget]:
    def of(name: str, statistic: str, label: str) -> IMetric:
        return load_balancer_metric(doors.load_balancer, name, statistic=statistic, label=label)

    return [
        graph("Load balancer: requests", of("RequestCount", "Sum", "requests"), unit="requests"),
        graph(
            "Load balancer: errors",
            of("HTTPCode_Target_4XX_Count", "Sum", "4xx of the API"),
            of("HTTPCode_Target_5XX_Count", "Sum", "5xx of the API"),
            of("HTTPCode_ELB_4XX_Count", "Sum", "4xx of its own"),
            of("HTTPCode_ELB_5XX_Count", "Sum", "5xx of its own"),
            unit="answers",
        ),
        graph(
            "Load balancer: time to answer",
            of("TargetResponseTime", "p50", "p50"),
            of("TargetResponseTime", "p95", "p95"),
            unit="seconds",
        ),
    ]


def _http_api(doors: Doors) -> list[IWidget]:
    def of(name: str, statistic: str, label: str) -> IMetric:
        return http_api_metric(doors.http_api, name, statistic=statistic, label=label)

    return [
        graph("HTTP API: requests", of("Count", "Sum", "requests"), unit="requests"),
        graph("HTTP API: errors", of("4xx", "Sum", "4xx"), of("5xx", "Sum", "5xx"), unit="answers"),
        graph(
            "HTTP API: time to answer", of("Latency", "p50", "p50"), of("Latency", "p95", "p95"), unit="ms"
        ),
    ]


def _table(system: System) -> list[IWidget]:
    def of(name: str, label: str) -> IMetric:
        return table_metric(system.jobs.name, name, statistic="Sum", label=label)

    return [
        graph(
            "Capacity used",
            of("ConsumedReadCapacityUnits", "read units"),
            of("ConsumedWriteCapacityUnits", "write units"),
            unit="units",
            width=12,
        ),
        graph(
            "Throttled",
            of("ReadThrottleEvents", "reads"),
            of("WriteThrottleEvents", "writes"),
            unit="requests",
            width=12,
        ),
    ]
