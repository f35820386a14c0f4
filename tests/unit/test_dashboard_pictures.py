"""Dashboards as pictures: bodies out of templates, searches, what has data, and what a picture shows."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import matplotlib.image
import pytest
from moto import mock_aws
from typer.testing import CliRunner

from scanfleet.cli import app
from scanfleet.contract import METRIC_FACTS, Metric
from scanfleet.dashboards.assembly import Assembly
from scanfleet.dashboards.body import Line, parse
from scanfleet.dashboards.gaps import ON_ONE_MACHINE, reason_on_one_machine
from scanfleet.dashboards.graphs import short
from scanfleet.dashboards.render import render, reported
from scanfleet.dashboards.search import parse_search
from scanfleet.errors import InvalidRequest

NOW = datetime.now(tz=UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)


def graph(*metrics, **facts):
    properties = {"title": "T", "view": "timeSeries", "region": "r", "metrics": list(metrics)} | facts
    return {"type": "metric", "x": 0, "y": 0, "width": 8, "height": 6, "properties": properties}


def dashboard(*widgets):
    return parse("scanfleet-dev-x", json.dumps({"widgets": list(widgets)}))


# --- Bodies ------------------------------------------------------------------------------------------------


def test_a_graphs_lines_have_their_own_facts_before_the_widgets():
    (widget,) = dashboard(
        graph(
            ["N", "m", "Pool", "p", {"label": "one", "stat": "p95", "yAxis": "right", "color": "#111111"}],
            ["N", "k", {"period": 60}],
            [{"expression": "a / b", "label": "share"}],
            stat="Sum",
            stacked=True,
            yAxis={"left": {"label": "jobs", "min": 0}},
            annotations={"horizontal": [{"value": 3, "label": "alarm"}]},
        )
    ).widgets

    assert widget.lines == (
        Line(
            namespace="N", name="m", dimensions=(("Pool", "p"),), label="one", statistic="p95", is_right=True,
            colour="#111111",
        ),
        Line(namespace="N", name="k", statistic="Sum", period=60),
        Line(expression="a / b", label="share", statistic="Sum"),
    )  # fmt: skip
    assert (widget.is_stacked, widget.left.label, widget.limits) == (True, "jobs", ((3.0, "alarm"),))


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"widgets": [{}]}', '{"widgets": [{"type": "text"}]}'])
def test_what_is_no_body_is_said(body):
    with pytest.raises(InvalidRequest, match="no dashboard's body"):
        parse("d", body)


# --- Searches ----------------------------------------------------------------------------------------------

SEARCH = (
    'SEARCH(\'{"Scanfleet/dev",Pool,State} MetricName="JobFinished" Pool="p" NOT State="failed"\','
    " 'Sum', 300)"
)


@pytest.mark.parametrize(
    ("dimensions", "is_found"),
    [
        ({"Pool": "p", "State": "completed"}, True),
        ({"Pool": "p", "State": "failed"}, False),
        ({"Pool": "q", "State": "completed"}, False),
        ({"Pool": "p"}, False),
        ({"Pool": "p", "State": "completed", "More": "x"}, False),
    ],
)
def test_a_search_finds_exactly_its_dimensions(dimensions, is_found):
    search = parse_search(SEARCH)

    assert search is not None
    assert (search.namespace, search.name, search.statistic, search.period) == (
        "Scanfleet/dev", "JobFinished", "Sum", 300
    )  # fmt: skip
    assert search.finds(dimensions) is is_found
    assert search.told_apart_by({"Pool": "p", "State": "completed"}) == "completed"


@pytest.mark.parametrize(
    "expression",
    [
        "m1 / m2",
        "SUM(METRICS())",
        """SEARCH('MetricName="x"', 'Sum', 300)""",
        """SEARCH('{N,Pool} Pool="p"', 'Sum', 300)""",
        """SEARCH('{N,Pool} MetricName="x" OR Pool="p"', 'Sum', 300)""",
        """SEARCH('{N,Pool} MetricName="x"', 'Sum', 300) * 2""",
    ],
)
def test_other_expressions_are_not_taken_for_searches(expression):
    assert parse_search(expression) is None


# --- Templates ---------------------------------------------------------------------------------------------


def written(folder: Path, **templates) -> Path:
    for name, template in templates.items():
        (folder / f"{name}.template.json").write_text(json.dumps(template))
    return folder


def test_what_a_template_leaves_to_cloudformation_is_filled_in(tmp_path):
    references = [
        {"Ref": "AWS::Region"},
        {"Fn::GetAtt": ["Bell", "Arn"]},
        {"Fn::ImportValue": "scanfleet-dev-data:Queue"},
        {"Fn::ImportValue": "scanfleet-dev-api:Balancer"},
        {"Fn::ImportValue": "scanfleet-dev-api:Gone"},
    ]
    body = {"Fn::Join": ["", ["x ", *[part for r in references for part in (r, " ")]]]}
    data = {
        "Outputs": {
            "Q": {
                "Value": {"Fn::GetAtt": ["Queue", "QueueName"]},
                "Export": {"Name": "scanfleet-dev-data:Queue"},
            }
        }
    }
    api = {"Outputs": {"B": {"Value": {"Ref": "Balancer"}, "Export": {"Name": "scanfleet-dev-api:Balancer"}}}}
    monitoring = {
        "Resources": {
            "Bell": {
                "Type": "AWS::CloudWatch::Alarm",
                "Properties": {"AlarmName": "scanfleet-dev-hang-rate"},
            },
            "Board": {
                "Type": "AWS::CloudWatch::Dashboard",
                "Properties": {"DashboardName": "scanfleet-dev-jobs", "DashboardBody": body},
            },
            "Other": {
                "Type": "AWS::CloudWatch::Dashboard",
                "Properties": {"DashboardName": "scanfleet-prod-jobs", "DashboardBody": body},
            },
        }
    }
    deployed = {
        ("scanfleet-dev-data", "Queue"): "http://127.0.0.1:4566/000000000000/jobs-queue",
        ("scanfleet-dev-api", "Balancer"): "arn:aws:elasticloadbalancing:r:1:loadbalancer/app/lb/50dc6c",
    }
    folder = written(tmp_path, Monitoring=monitoring, Data=data, Api=api)

    def bodies(physical):
        return dict(Assembly(folder, region="r", account="1", physical=physical).bodies("dev"))

    assert bodies(lambda stack, id_: deployed.get((stack, id_))) == {
        "scanfleet-dev-jobs": "x r arn:aws:cloudwatch:r:1:alarm:scanfleet-dev-hang-rate jobs-queue "
        "app/lb/50dc6c <scanfleet-dev-api:Gone> "
    }
    assert "<scanfleet-dev-data: Queue>" in bodies(lambda *_: None)["scanfleet-dev-jobs"]


def test_a_folder_without_templates_is_no_assembly(tmp_path):
    with pytest.raises(InvalidRequest, match="cdk synth"):
        Assembly(tmp_path, region="r", account="1", physical=lambda *_: None)


# --- Data --------------------------------------------------------------------------------------------------


@pytest.fixture
def cloudwatch(monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "t", "AWS_SECRET_ACCESS_KEY": "t", "AWS_DEFAULT_REGION": "eu-west-1"
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with mock_aws():
        yield boto3.client("cloudwatch")


def put(client, name, value, *, minutes=10, **dimensions):
    client.put_metric_data(
        Namespace="Scanfleet/dev",
        MetricData=[
            {
                "MetricName": name,
                "Dimensions": [{"Name": k, "Value": v} for k, v in dimensions.items()],
                "Value": value,
                "Timestamp": NOW - timedelta(minutes=minutes),
            }
        ],
    )


def test_the_report_lists_what_has_data_and_what_has_none(cloudwatch):
    put(cloudwatch, "JobFinished", 1, Pool="p", State="completed")
    put(cloudwatch, "JobFinished", 1, Pool="p", State="failed")
    put(cloudwatch, "Backlog", 7, Pool="p")
    shown = dashboard(
        graph(
            [{"expression": SEARCH}],
            ["Scanfleet/dev", "Backlog", "Pool", "p", {"stat": "Maximum", "period": 60}],
            ["Scanfleet/dev", "Backlog", "Pool", "q", {"stat": "Maximum", "period": 60}],
        )
    )

    lines = reported([shown], cloudwatch, start=NOW - HOUR, end=NOW)

    assert [(line.series, line.points) for line in lines] == [(1, 1), (1, 1), (1, 0)]
    assert lines[2].metric == "Scanfleet/dev Backlog {Pool=q} Maximum"


def red(file: Path) -> int:
    """Return how many of a picture's points have the colour of warnings."""
    pixels = matplotlib.image.imread(file)[:, :, :3]
    wanted = (0xD1 / 255, 0x32 / 255, 0x12 / 255)
    return int((abs(pixels - wanted).max(axis=2) < 0.02).sum())


def test_a_widget_without_data_is_red_unless_there_is_a_reason(cloudwatch, tmp_path):
    shown = dashboard(graph(["Scanfleet/dev", "Backlog", "Pool", "q"]))
    times = {"start": NOW - HOUR, "end": NOW}

    bare = render([shown], cloudwatch, folder=tmp_path / "bare", **times)
    excused = render(
        [shown], cloudwatch, folder=tmp_path / "excused", reason=lambda _: "nobody is there", **times
    )

    assert red(Path(bare.files["scanfleet-dev-x"])) > 20
    assert red(Path(excused.files["scanfleet-dev-x"])) == 0
    assert (len(bare.without_data), len(bare.excused)) == (1, 0)
    assert (len(excused.without_data), len(excused.excused)) == (0, 1)


def test_a_picture_has_a_place_for_every_column_and_row_and_draws_colours_that_are_asked_for(
    cloudwatch, tmp_path
):
    put(cloudwatch, "JobFailed", 4, Pool="p", FailureClass="hang")
    failed = ["Scanfleet/dev", "JobFailed", "Pool", "p", "FailureClass", "hang", {"color": "#d13212"}]
    shown = dashboard(
        {"type": "text", "x": 0, "y": 0, "width": 24, "height": 1, "properties": {"markdown": "### Work"}},
        graph(failed, stacked=True) | {"y": 1, "width": 24},
    )

    report = render([shown], cloudwatch, folder=tmp_path, start=NOW - HOUR, end=NOW)

    file = Path(report.files["scanfleet-dev-x"])
    height, width, _ = matplotlib.image.imread(file).shape
    assert (width, height) == (1800, round((7 * 0.55 + 0.7) * 100))
    assert red(file) > 1000


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (12, "12"), (1000, "1k"), (12_345.6, "12.3k"), (2e9, "2G")]
)
def test_numbers_are_short(value, text):
    assert short(value) == text


# --- What has no data on one machine -----------------------------------------------------------------------


def test_every_metric_with_a_reason_is_the_contracts_or_awss():
    for gap in ON_ONE_MACHINE:
        assert gap.namespace.startswith(("AWS/", "Scanfleet/"))
        assert gap.metric == "*" or METRIC_FACTS[Metric(gap.metric)]


def test_jobs_of_a_pool_that_nobody_serves_have_a_reason_and_its_backlog_has_none():
    def line(name, pool):
        return Line(namespace="Scanfleet/local", name=name, dimensions=(("Pool", pool),))

    assert reason_on_one_machine(line("JobCpuMean", "windows-gpu"))
    assert reason_on_one_machine(line("JobCpuMean", "linux-cpu")) is None
    assert reason_on_one_machine(line("Backlog", "windows-gpu")) is None
    assert reason_on_one_machine(line("BootDuration", "linux-cpu"))


# --- The command -------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, ["dashboard", "render", *map(str, arguments)])


def test_the_command_draws_what_is_deployed(cloudwatch, tmp_path):
    put(cloudwatch, "Backlog", 1, Pool="p")
    body = {
        "widgets": [
            graph(["Scanfleet/dev", "Backlog", "Pool", "p"], ["Scanfleet/dev", "Backlog", "Pool", "q"])
        ]
    }
    for name in ("jobs", "fleet"):
        cloudwatch.put_dashboard(DashboardName=f"scanfleet-dev-{name}", DashboardBody=json.dumps(body))

    done = run("--stage", "dev", "--out", tmp_path, "--dashboard", "jobs", "--json")
    strict = run("--stage", "dev", "--out", tmp_path, "--strict")

    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["files"] == {"scanfleet-dev-jobs": str(tmp_path / "scanfleet-dev-jobs.png")}
    assert [line["metric"] for line in document["without_data"]] == ["Scanfleet/dev Backlog {Pool=q} Average"]
    assert (strict.exit_code, (tmp_path / "scanfleet-dev-fleet.png").exists()) == (1, True)


def test_a_dashboard_that_is_not_there_is_not_found(cloudwatch, tmp_path):
    none = run("--stage", "dev", "--out", tmp_path)
    cloudwatch.put_dashboard(DashboardName="scanfleet-dev-jobs", DashboardBody='{"widgets": []}')
    other = run("--stage", "dev", "--out", tmp_path, "--dashboard", "jbos")

    assert (none.exit_code, other.exit_code) == (3, 3)
    assert "--assembly" in none.stderr
    assert "there are: jobs" in other.stderr
