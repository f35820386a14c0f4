"""Questions to the monitoring stack's template: its dashboards' bodies and its alarms, by name."""

from tests.support.deployment import spelled
from tests.support.template import Resource, StackTemplate

SETTINGS = {"alarm_email": "ops@example.com", "monthly_budget_usd": 1000}
"""A stage that has everything which can be configured to be monitored."""


def bodies(template: StackTemplate) -> dict[str, str]:
    """Return each dashboard's body by its name."""
    return {
        d.properties["DashboardName"]: spelled(d.properties["DashboardBody"])
        for d in template.all("AWS::CloudWatch::Dashboard")
    }


def alarms(template: StackTemplate) -> dict[str, Resource]:
    """Return the alarms by their names."""
    return {a.properties["AlarmName"]: a for a in template.all("AWS::CloudWatch::Alarm")}
