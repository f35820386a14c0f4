"""Releases and images: what was built, what rolls out, what each machine runs."""

from aws_cdk.aws_cloudwatch import IWidget

from cdk.aws_events import image_failed_rule_name, image_ready_rule_name
from cdk.aws_metrics import rule_metric
from cdk.config import DeploymentConfig
from cdk.dashboards_parts import COLUMNS, graph, heading, log_table, search
from cdk.queries import AGENTS_STARTED, BOOT_PROBLEMS, ROLLOUTS
from scanfleet.contract import Metric, Parameter, parameter_name

QUARTER = COLUMNS // 4


def rows(config: DeploymentConfig) -> list[list[IWidget]]:
    """Return the dashboard's rows. Parameters' values are no metrics, so the text says where to read them."""
    return [
        [
            heading(
                f"Active release: SSM parameter `{parameter_name(config.stage, Parameter.MEDIT_RELEASE)}` · "
                f"image: `{parameter_name(config.stage, Parameter.AMI_WINDOWS_GPU)}`"
            )
        ],
        [
            graph(
                "Image builds",
                rule_metric(image_ready_rule_name(config.stage), label="ready"),
                rule_metric(image_failed_rule_name(config.stage), label="failed"),
                unit="builds",
                width=QUARTER,
            ),
            graph(
                "Rollouts that failed",
                search(config, Metric.ROLLOUT_FAILED, statistic="Maximum"),
                unit="1: failed",
                limit=(1, "rollout-failed"),
                width=QUARTER,
            ),
            graph(
                "Active release not taken",
                search(config, Metric.RELEASE_FAILED, statistic="Sum"),
                unit="failed looks",
                limit=(1, "release-failed"),
                width=QUARTER,
            ),
            graph(
                "Boots: launch to ready agent",
                search(config, Metric.BOOT_DURATION, statistic="p50", label="p50"),
                search(config, Metric.BOOT_DURATION, statistic="p95", label="p95"),
                unit="seconds",
                width=QUARTER,
            ),
        ],
        [log_table(config, AGENTS_STARTED)],
        [log_table(config, ROLLOUTS)],
        [log_table(config, BOOT_PROBLEMS)],
    ]
