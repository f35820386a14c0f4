"""The monitoring stack: what is shown is emitted, what rings has a runbook, and each rings when it should."""

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cdk.alarms import BAD_INPUT, COMPLETED, FAILED, HANG, PROCESSING
from cdk.config import DeploymentConfig
from cdk.metrics import scanfleet_metric, scanfleet_search
from scanfleet.contract import (
    METRIC_FACTS,
    ROLLBACK_ALARMS,
    Alarm,
    Component,
    Dimension,
    Metric,
    Pool,
    alarm_name,
    fleet_name,
    log_group_name,
    metric_namespace,
)
from scanfleet.jobs import FailureClass, JobState
from tests.support.aws_metrics import DOCUMENTED
from tests.support.cloudwatch_alarms import AlarmClock, MetricId, Samples, State, read_alarm
from tests.support.dashboards import ShownMetric, WrongDashboard, check_dashboard, check_search
from tests.support.template import Resource, StackTemplate

STACKS = ("network", "data", "image", "api", "fleet", "monitoring")
POOL = Pool.WINDOWS_GPU
OF_A_POOL = set(Alarm) - {
    Alarm.API_ERRORS,
    Alarm.API_CRASHES,
    Alarm.API_THROTTLES,
    Alarm.IMAGE_BUILD_FAILED,
    Alarm.BUDGET,
}
METRIC_MATH = {Alarm.HANG_RATE, Alarm.FAILURE_RATE, Alarm.NO_HEALTHY_AGENT}


@pytest.fixture(scope="session")
def monitoring(stack) -> StackTemplate:
    return stack("dev", "monitoring", alarm_email="ops@example.com", monthly_budget_usd=1000)


@pytest.fixture(scope="session")
def stacks(stack) -> list[StackTemplate]:
    settings = {"alarm_email": "ops@example.com", "monthly_budget_usd": 1000}
    return [stack("dev", name, **settings) for name in STACKS]


def text(value: Any) -> str:
    """A text of the template with each intrinsic but joins written as <its JSON>, quotes left out."""
    if isinstance(value, str):
        return value
    if "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return str(separator).join(text(part) for part in parts)
    return "<" + json.dumps(value).replace('"', "") + ">"


def bodies(template: StackTemplate) -> dict[str, str]:
    """Each dashboard's body by its name."""
    return {
        d.properties["DashboardName"]: text(d.properties["DashboardBody"])
        for d in template.all("AWS::CloudWatch::Dashboard")
    }


def alarms(template: StackTemplate) -> dict[str, Resource]:
    return {a.properties["AlarmName"]: a for a in template.all("AWS::CloudWatch::Alarm")}


def alarm_of(template: StackTemplate, alarm: Alarm, pool: Pool | None = None) -> Resource:
    return alarms(template)[alarm_name("dev", alarm, pool)]


# --- Metrics: shown is emitted, emitted is shown -----------------------------------------------------------


def alarm_metrics(resource: Resource) -> Iterator[tuple[ShownMetric, str | None]]:
    """The metrics that an alarm watches, with the unit that it asks for."""
    properties = resource.properties
    stats = [m["MetricStat"] for m in properties.get("Metrics", []) if "MetricStat" in m]
    plain = [{"Metric": properties, "Unit": properties.get("Unit")}] if "MetricName" in properties else []
    for stat in (*stats, *plain):
        metric = stat["Metric"]
        dimensions = {d["Name"]: text(d["Value"]) for d in metric.get("Dimensions", [])}
        yield ShownMetric(metric["Namespace"], metric["MetricName"], dimensions), stat.get("Unit")


def used_metrics(stacks: list[StackTemplate]) -> list[ShownMetric]:
    """Every metric of every dashboard, alarm and scaling policy."""
    shown = [m for s in stacks for body in bodies(s).values() for m in check_dashboard(body)]
    rung = [m for s in stacks for a in s.all("AWS::CloudWatch::Alarm") for m, _ in alarm_metrics(a)]
    return shown + rung


def emitted_by_runtime(repo_root: Path) -> set[Metric]:
    """The metrics that runtime code names in order to emit them; the contract only lists them."""
    runtime = repo_root / "runtime" / "scanfleet"
    sources = [path for path in runtime.rglob("*.py") if path.name != "contract.py"]
    return {
        Metric[node.attr]
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Metric"
    }


def emitted_by_machines(fleet: StackTemplate) -> set[Metric]:
    """The metrics that user-data spells out."""
    scripts = json.dumps([t.properties for t in fleet.all("AWS::EC2::LaunchTemplate")])
    return {metric for metric in Metric if re.search(rf"\b{metric}\b", scripts)}


def test_every_metric_of_the_contract_is_emitted(repo_root, stack):
    emitted = emitted_by_runtime(repo_root) | emitted_by_machines(stack("dev", "fleet"))

    assert set(Metric) - emitted == set()


def test_every_metric_of_the_contract_is_on_a_dashboard(monitoring):
    shown = {m.name for body in bodies(monitoring).values() for m in check_dashboard(body)}

    assert set(Metric) - shown == set()


def test_every_metric_in_use_exists_with_these_dimensions(stacks):
    used = used_metrics(stacks)

    assert len(used) > 100
    assert [metric for metric in used if not exists(metric)] == []


def exists(metric: ShownMetric) -> bool:
    """Whether somebody emits the metric with exactly these dimensions."""
    if metric.namespace == metric_namespace("dev"):
        known = metric.name in set(Metric)
        return known and set(metric.dimensions) == {str(d) for d in METRIC_FACTS[Metric(metric.name)][1]}
    documented = DOCUMENTED.get(metric.namespace, {}).get(metric.name)
    return documented == set(metric.dimensions)


@pytest.mark.parametrize(
    "wrong",
    [
        ShownMetric("Scanfleet/dev", "JobsFinished", {"Pool": "p", "State": "failed"}),
        ShownMetric("Scanfleet/prod", "JobFinished", {"Pool": "p", "State": "failed"}),
        ShownMetric("Scanfleet/dev", "JobFinished", {"Pool": "p"}),
        ShownMetric("AWS/SQS", "OldestMessage", {"QueueName": "q"}),
        ShownMetric("AWS/SQS", "ApproximateAgeOfOldestMessage", {"Queue": "q"}),
        ShownMetric("AWS/Sqs", "ApproximateAgeOfOldestMessage", {"QueueName": "q"}),
    ],
)
def test_a_typo_in_a_metric_is_seen(wrong):
    assert not exists(wrong)


def test_no_alarm_asks_for_another_unit_than_the_emitted_one(stacks):
    for template in stacks:
        for alarm in template.all("AWS::CloudWatch::Alarm"):
            for metric, unit in alarm_metrics(alarm):
                if metric.namespace == metric_namespace("dev"):
                    assert unit == METRIC_FACTS[Metric(metric.name)][0], (
                        alarm.properties["AlarmName"],
                        metric,
                    )


@pytest.mark.parametrize("metric", Metric)
def test_a_metric_with_other_dimensions_cannot_be_made(metric):
    wrong = {Dimension.STAGE.name.lower(): "x", Dimension.ROUTE.name.lower(): "y"}

    with pytest.raises(ValueError, match=metric):
        scanfleet_metric("dev", metric, statistic="Sum", **wrong)
    with pytest.raises(ValueError, match=metric):
        scanfleet_search("dev", metric, statistic="Sum", fixed={Dimension.STAGE: "x", Dimension.ROUTE: "y"})


def test_the_words_of_the_alarms_are_the_runtimes():
    assert {HANG, BAD_INPUT} == {FailureClass.HANG, FailureClass.BAD_INPUT}
    assert {PROCESSING, COMPLETED, FAILED} == {JobState.PROCESSING, JobState.COMPLETED, JobState.FAILED}


# --- Dashboards --------------------------------------------------------------------------------------------


def test_there_is_a_dashboard_for_each_view_and_each_pool(stack, monitoring):
    topics = ("fleet", "jobs", "releases", "api", "pool-windows-gpu")
    local = bodies(stack("local", "monitoring"))

    assert set(bodies(monitoring)) == {f"scanfleet-dev-{topic}" for topic in topics}
    assert {"scanfleet-local-pool-windows-gpu", "scanfleet-local-pool-linux-cpu"} <= set(local)


@pytest.mark.parametrize("stage", ["dev", "prod", "local"])
def test_every_dashboard_is_one_that_cloudwatch_takes(stack, stage):
    for name, body in bodies(stack(stage, "monitoring")).items():
        assert check_dashboard(body), name


def test_widgets_leave_no_holes_in_a_row(monitoring):
    for name, body in bodies(monitoring).items():
        rows: dict[int, int] = {}
        for widget in json.loads(body)["widgets"]:
            rows[widget["y"]] = rows.get(widget["y"], 0) + widget["width"]
        assert set(rows.values()) == {24}, name


def test_alarm_widgets_show_alarms_that_exist(stacks, monitoring):
    by_id = {a.logical_id: name for name, a in alarms(monitoring).items()}
    known = {name for template in stacks for name in alarms(template)}

    for name, body in bodies(monitoring).items():
        for widget in json.loads(body)["widgets"]:
            for arn in widget["properties"].get("alarms", []):
                own = re.fullmatch(r"<\{Fn::GetAtt: \[(\w+), Arn\]\}>", arn)
                shown = by_id[own[1]] if own else arn.rpartition(":")[2]
                assert shown in known, (name, shown)


def test_values_without_bound_are_searched_for_and_never_written_out(monitoring):
    open_ended = {Dimension.STAGE, Dimension.ROUTE}

    for body in bodies(monitoring).values():
        for metric in check_dashboard(body):
            assert not any(metric.dimensions.get(name) for name in open_ended), metric


FAULTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "wider than the grid": lambda w: w.update(x=20, width=8),
    "over its neighbour": lambda w: w.update(y=w["y"] - 1),
    "no region": lambda w: w["properties"].pop("region"),
    "unknown view": lambda w: w["properties"].update(view="lines"),
    "unknown type": lambda w: w.update(type="graph"),
    "finer than what is kept": lambda w: w["properties"].update(period=10),
    "no metrics": lambda w: w["properties"].update(metrics=[]),
    "a dimension without value": lambda w: w["properties"].update(metrics=[["AWS/SQS", "X", "QueueName"]]),
    "unknown statistic": lambda w: w["properties"].update(
        metrics=[["AWS/SQS", "X", "QueueName", "q", {"stat": "P95"}]]
    ),
    "unknown rendering": lambda w: w["properties"].update(
        metrics=[["AWS/SQS", "X", "QueueName", "q", {"statistic": "Sum"}]]
    ),
    "a search without quotes": lambda w: w["properties"].update(
        metrics=[[{"expression": "SEARCH('{Scanfleet/dev,Pool} MetricName=\"X\"', 'Sum', 60)"}]]
    ),
    "a search by no dimension of its schema": lambda w: w["properties"].update(
        metrics=[[{"expression": "SEARCH('{N,Pool} MetricName=\"X\" State=\"s\"', 'Sum', 60)"}]]
    ),
    "a search that is not closed": lambda w: w["properties"].update(
        metrics=[[{"expression": "SEARCH('{N,Pool} MetricName=\"X', 'Sum', 60)"}]]
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_widget_is_seen(monitoring, fault):
    tree = json.loads(bodies(monitoring)["scanfleet-dev-fleet"])
    widget = next(w for w in tree["widgets"] if w["properties"].get("view") == "timeSeries")

    FAULTS[fault](widget)

    with pytest.raises(WrongDashboard):
        check_dashboard(json.dumps(tree))


def test_a_search_names_what_it_finds():
    expression = scanfleet_search(
        "dev", Metric.JOB_FAILED, statistic="Sum", fixed={Dimension.FAILURE_CLASS: "hang"}
    )

    assert check_search(expression) == ShownMetric(
        "Scanfleet/dev", "JobFailed", {"Pool": None, "FailureClass": "hang"}
    )


# --- Alarms ------------------------------------------------------------------------------------------------


def test_there_is_every_alarm_of_the_contract(monitoring):
    budget = monitoring.only("AWS::Budgets::Budget").properties["Budget"]["BudgetName"]
    expected = {alarm_name("dev", a, POOL if a in OF_A_POOL else None) for a in Alarm}

    assert {*alarms(monitoring), budget} == expected


def test_the_local_stage_leaves_out_what_its_emulator_refuses_and_no_more(stack):
    local = stack("local", "monitoring")
    kinds = {resource.kind for resource in local.resources()}
    left_out = {alarm_name("local", a, p) for a in METRIC_MATH for p in Pool}
    everything = {alarm_name("local", a, p) for a in OF_A_POOL for p in Pool}

    assert not kinds & {
        "AWS::Logs::QueryDefinition",
        "AWS::Budgets::Budget",
        "AWS::CloudWatch::CompositeAlarm",
    }
    assert not any("Metrics" in a.properties for a in local.all("AWS::CloudWatch::Alarm"))
    assert everything - set(alarms(local)) == left_out


def test_every_alarm_leads_to_a_section_of_the_runbook(repo_root, monitoring):
    runbook = (repo_root / "docs" / "runbook.md").read_text(encoding="utf-8")
    sections = {
        re.sub(r"[^\w -]", "", line).strip(" #").lower().replace(" ", "-") for line in headings(runbook)
    }

    for name, alarm in alarms(monitoring).items():
        link = re.search(r"Runbook: docs/runbook\.md#([\w-]+)$", alarm.properties["AlarmDescription"])
        assert link, name
        assert link[1] in sections, f"{name} leads to #{link[1]}"
    assert Alarm.BUDGET in sections


def headings(markdown: str) -> Iterator[str]:
    return (line.lstrip("#") for line in markdown.splitlines() if line.startswith("#"))


@pytest.mark.parametrize("alarm", Alarm)
def test_every_section_of_an_alarm_tells_what_to_do(repo_root, alarm):
    runbook = (repo_root / "docs" / "runbook.md").read_text(encoding="utf-8")
    section = runbook.partition(f"\n### {alarm}\n")[2].partition("\n### ")[0].partition("\n## ")[0]

    for part in ("Means", "Users feel", "Look first", "Likely causes", "Fix", "Over when"):
        assert f"**{part}.**" in section, f"{alarm} lacks {part}"


def test_every_alarm_tells_people_when_it_rings_and_when_it_is_over(monitoring):
    topic = {"Ref": monitoring.only("AWS::SNS::Topic").logical_id}

    for name, alarm in alarms(monitoring).items():
        assert alarm.properties["AlarmActions"] == [topic], name
        assert alarm.properties["OKActions"] == [topic], name


def test_every_alarm_says_what_no_data_means(monitoring):
    for name, alarm in alarms(monitoring).items():
        assert alarm.properties["TreatMissingData"] in {"breaching", "notBreaching"}, name
        assert "No data: " in alarm.properties["AlarmDescription"], name


def test_alarms_of_other_stacks_only_scale(stacks):
    for template in stacks[:-1]:
        policies = {p.logical_id for p in template.all("AWS::AutoScaling::ScalingPolicy")}
        for name, alarm in alarms(template).items():
            assert {action["Ref"] for action in alarm.properties["AlarmActions"]} <= policies, name


def test_the_alarms_that_take_a_rollout_back_exist(monitoring):
    names = set(alarms(monitoring))

    assert {alarm_name("dev", a, POOL) for a in ROLLBACK_ALARMS} <= names


# --- When they ring ----------------------------------------------------------------------------------------


class Watch:
    """One alarm and the samples that it sees, second 0 being the start of a period of every length."""

    def __init__(self, resource: Resource) -> None:
        self._clock = AlarmClock(read_alarm(resource))
        self._samples = Samples()

    def publish(self, metric: Metric, *values: float, at: float = 1.0, **dimensions: str) -> None:
        """Publish values one after the other within a second."""
        names = {Dimension[name.upper()].value: value for name, value in dimensions.items()}
        names[Dimension.POOL.value] = POOL.value
        found = MetricId(metric_namespace("dev"), metric.value, tuple(sorted(names.items())))
        for value in values:
            self._samples.publish(found, at=at, value=value)

    def after(self, minutes: float) -> State:
        """Return the alarm's state when it was evaluated each minute until then."""
        for second in range(60, int(minutes * 60) + 1, 60):
            self._clock.tick(self._samples, now=second)
        return self._clock.state


@pytest.fixture
def watch(monitoring) -> Callable[[Alarm], Watch]:
    return lambda alarm: Watch(alarm_of(monitoring, alarm, POOL))


@pytest.mark.parametrize(
    ("runs", "retried", "failed", "rings"),
    [
        (1, 1, 0, False),
        (2, 1, 1, True),
        (5, 1, 0, False),
        (20, 5, 0, False),
        (20, 4, 2, True),
        (20, 0, 0, False),
    ],
)
def test_the_hang_rate_rings_above_a_quarter_and_never_for_a_single_hang(watch, runs, retried, failed, rings):
    watched = watch(Alarm.HANG_RATE)
    watched.publish(Metric.STATE_DURATION, *[600.0] * runs, state="processing")
    watched.publish(Metric.JOB_RETRIED, *[1.0] * retried, failure_class="hang")
    watched.publish(Metric.JOB_FAILED, *[1.0] * failed, failure_class="hang")

    assert watched.after(60) is (State.ALARM if rings else State.OK)


@pytest.mark.parametrize(
    ("done", "failed", "bad_input", "rings"),
    [
        (0, 1, 0, False),
        (0, 2, 0, True),
        (10, 3, 0, False),
        (10, 4, 0, True),
        (0, 9, 9, False),
        (5, 9, 2, True),
    ],
)
def test_the_failure_rate_leaves_out_what_clients_did_wrong(watch, done, failed, bad_input, rings):
    watched = watch(Alarm.FAILURE_RATE)
    watched.publish(Metric.JOB_FINISHED, *[1.0] * done, state="completed")
    watched.publish(Metric.JOB_FINISHED, *[1.0] * failed, state="failed")
    watched.publish(Metric.JOB_FAILED, *[1.0] * bad_input, failure_class="bad_input")

    percent = 100 * (failed - bad_input) / max(done + failed, 5)
    assert (percent > 25) is rings, "the case itself"
    assert watched.after(60) is (State.ALARM if rings else State.OK)


@pytest.mark.parametrize(("slots_from_minute", "rings"), [(20, False), (None, True)])
def test_waiting_jobs_ring_only_when_no_agent_comes_within_a_boot(watch, slots_from_minute, rings):
    watched = watch(Alarm.NO_HEALTHY_AGENT)
    for minute in range(35):
        serves = slots_from_minute is not None and minute >= slots_from_minute
        watched.publish(Metric.BACKLOG, 3.0, at=minute * 60)
        watched.publish(Metric.SLOTS_IN_SERVICE, float(serves), at=minute * 60)

    assert watched.after(35) is (State.ALARM if rings else State.OK)


def test_an_empty_fleet_without_work_is_fine(watch):
    watched = watch(Alarm.NO_HEALTHY_AGENT)
    for minute in range(40):
        watched.publish(Metric.BACKLOG, 0.0, at=minute * 60)
        watched.publish(Metric.SLOTS_IN_SERVICE, 0.0, at=minute * 60)

    assert watched.after(40) is State.OK


def test_a_silent_controller_rings_within_minutes_and_a_short_gap_does_not(watch):
    gap = watch(Alarm.CONTROLLER_SILENT)
    for minute in (0, 1, 2, 5, 6):
        gap.publish(Metric.CONTROLLER_SAMPLES, 1.0, at=minute * 60)
    silent = watch(Alarm.CONTROLLER_SILENT)
    silent.publish(Metric.CONTROLLER_SAMPLES, 1.0, at=0)

    assert gap.after(5) is State.OK
    # CloudWatch looks at a few older datapoints, too, before it believes in silence.
    assert silent.after(6) is State.ALARM


@pytest.mark.parametrize(("failures", "rings"), [(1, False), (2, True)])
def test_one_failed_boot_is_replaced_in_silence_and_two_ring(watch, failures, rings):
    watched = watch(Alarm.BOOT_FAILURES)
    watched.publish(Metric.BOOT_FAILED, *[1.0] * failures)

    assert watched.after(30) is (State.ALARM if rings else State.OK)


def test_the_oldest_job_may_wait_for_a_boot_and_two_jobs(monitoring):
    normal, urgent = (
        alarm_of(monitoring, alarm, POOL).properties for alarm in (Alarm.OLDEST_JOB, Alarm.OLDEST_URGENT_JOB)
    )

    assert normal["Threshold"] >= (25 + 2 * 15) * 60
    assert (25 + 15) * 60 <= urgent["Threshold"] < normal["Threshold"]


# --- Events, topic, budget ---------------------------------------------------------------------------------


def test_events_are_counted_by_the_rules_that_alarms_watch(monitoring):
    rules = {rule.properties["Name"] for rule in monitoring.all("AWS::Events::Rule")}
    watched = {
        m.dimensions["RuleName"]
        for a in monitoring.all("AWS::CloudWatch::Alarm")
        for m, _ in alarm_metrics(a)
        if m.namespace == "AWS/Events"
    }

    assert watched
    assert watched <= rules


def test_failed_launches_of_this_fleet_alone_are_told(monitoring):
    (rule,) = [
        r
        for r in monitoring.all("AWS::Events::Rule")
        if r.properties["EventPattern"]["source"] == ["aws.autoscaling"]
    ]

    assert rule.properties["EventPattern"]["detail"] == {"AutoScalingGroupName": [fleet_name("dev", POOL)]}


def test_images_of_the_image_stack_are_the_ones_that_are_watched(stacks, monitoring):
    recipes = [r for s in stacks for r in s.all("AWS::ImageBuilder::ImageRecipe")]
    patterns = [
        r.properties["EventPattern"]["resources"][0]["wildcard"]
        for r in monitoring.all("AWS::Events::Rule")
        if r.properties["EventPattern"]["source"] == ["aws.imagebuilder"]
    ]

    assert recipes
    for recipe in recipes:
        # An image's ARN has its recipe's name in lower case.
        arn = f"arn:aws:imagebuilder:us-east-1:123456789012:image/{recipe.properties['Name'].lower()}/1.0.0/1"
        for pattern in patterns:
            assert re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), arn), (pattern, arn)


def test_the_topic_is_encrypted_and_takes_messages_from_aws_alone(monitoring):
    topic = monitoring.only("AWS::SNS::Topic")
    key = monitoring.only("AWS::KMS::Key")
    statements = monitoring.only("AWS::SNS::TopicPolicy").properties["PolicyDocument"]["Statement"]
    allowed = [s for s in statements if s["Effect"] == "Allow"]
    denied = [s for s in statements if s["Effect"] == "Deny"]

    assert topic.properties["KmsMasterKeyId"] == {"Fn::GetAtt": [key.logical_id, "Arn"]}
    assert key.properties["EnableKeyRotation"] is True
    assert {name for s in allowed for name in principals(s)} == services("events", "cloudwatch", "budgets")
    assert {s["Action"] for s in allowed} == {"sns:Publish"}
    assert [principals(s) for s in allowed if "Condition" not in s] == [["events.amazonaws.com"]]
    assert [s["Condition"] for s in denied] == [{"Bool": {"aws:SecureTransport": "false"}}]


def test_whoever_publishes_to_the_topic_may_use_its_key(monitoring):
    statements = monitoring.only("AWS::KMS::Key").properties["KeyPolicy"]["Statement"]
    users = {name: s["Action"] for s in statements for name in principals(s)}

    assert set(users) == services("events", "cloudwatch", "budgets")
    assert all(actions == ["kms:Decrypt", "kms:GenerateDataKey*"] for actions in users.values())


def principals(statement: Mapping[str, Any]) -> list[str]:
    """The AWS services that a statement is about."""
    names = statement["Principal"].get("Service", [])
    return [names] if isinstance(names, str) else list(names)


def services(*names: str) -> set[str]:
    return {f"{name}.amazonaws.com" for name in names}


def test_the_configured_address_is_told_and_none_without_one(stack, monitoring):
    subscription = monitoring.only("AWS::SNS::Subscription").properties

    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "ops@example.com")
    assert stack("dev", "monitoring").all("AWS::SNS::Subscription") == []


def test_the_budget_counts_the_stage_alone_and_tells_at_80_at_100_and_by_forecast(stack, monitoring):
    budget = monitoring.only("AWS::Budgets::Budget").properties
    tags = monitoring.only("AWS::SNS::Topic").tags
    told = {
        (n["Notification"]["NotificationType"], n["Notification"]["Threshold"])
        for n in budget["NotificationsWithSubscribers"]
    }

    assert budget["Budget"]["BudgetLimit"] == {"Amount": 1000, "Unit": "USD"}
    assert budget["Budget"]["CostFilters"] == {"TagKeyValue": ["user:scanfleet:stage$dev"]}
    assert tags["scanfleet:stage"] == "dev", "the tag that it filters by"
    assert told == {("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100)}
    assert stack("dev", "monitoring").all("AWS::Budgets::Budget") == []


# --- Saved queries -----------------------------------------------------------------------------------------


def queries(template: StackTemplate) -> Mapping[str, dict[str, Any]]:
    return {q.properties["Name"]: q.properties for q in template.all("AWS::Logs::QueryDefinition")}


def test_saved_queries_read_log_groups_that_exist(monitoring):
    groups = {log_group_name("dev", component) for component in Component}

    for name, query in queries(monitoring).items():
        assert set(query["LogGroupNames"]) <= groups, name
        assert name.startswith("scanfleet-dev/")


def test_there_is_a_question_to_every_log_group(monitoring):
    asked = {group for query in queries(monitoring).values() for group in query["LogGroupNames"]}

    assert asked == {log_group_name("dev", component) for component in Component}


def test_saved_queries_filter_by_actions_and_metrics_that_are_logged(repo_root, monitoring):
    logged = (repo_root / "docs" / "logging-and-metrics.md").read_text(encoding="utf-8")
    asked: set[str] = set()
    for query in queries(monitoring).values():
        for command in re.findall(r"action (?:!?=|in) (\[[^\]]+\]|'[^']+')", query["QueryString"]):
            asked |= set(re.findall(r"'([a-z_]+)'", command))

    assert "job_state_changed" in asked
    assert {action for action in asked if f"`{action}`" not in logged} == set()


LOG_COMMANDS = {"fields", "filter", "stats", "sort", "limit", "parse", "display", "dedup"}


def test_saved_queries_are_made_of_commands_that_logs_insights_knows(monitoring):
    for name, query in queries(monitoring).items():
        for command in query["QueryString"].split("\n| "):
            assert command.split()[0] in LOG_COMMANDS, (name, command)


# --- References --------------------------------------------------------------------------------------------


def test_other_stacks_are_found_by_name_but_for_generated_ones(monitoring):
    text_of_all = json.dumps(monitoring.body)
    imports = set(re.findall(r'"Fn::ImportValue": "([^"]+)"', text_of_all))

    assert all(re.search(r"QueueName|LoadBalancerFullName|Jobs|HttpApi|Api", name) for name in imports), (
        imports
    )
    assert len(imports) <= 6


def test_a_metric_takes_the_whole_configuration_or_the_stages_name():
    config = DeploymentConfig(stage="dev", region="us-east-1")

    by_config = scanfleet_metric(config, Metric.BACKLOG, statistic="Sum", pool=POOL.value)
    assert (
        by_config.namespace
        == scanfleet_metric("dev", Metric.BACKLOG, statistic="Sum", pool=POOL.value).namespace
    )
