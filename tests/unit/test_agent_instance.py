"""The agent on an EC2 instance: instance metadata, and its life in an Auto Scaling group."""

import json
import logging
import sys
import threading
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from moto import mock_aws

from scanfleet import contract
from scanfleet.agent.fleet_member import FleetMember
from scanfleet.agent.instance import (
    IDENTITY_PATH,
    TOKEN_RENEWED_AFTER_SECONDS,
    Instance,
    InstanceMetadata,
    SpotNotice,
)
from scanfleet.agent.main import find_place
from scanfleet.agent.membership import Membership, MembershipRules, give_up
from scanfleet.agent.place import machine_of
from scanfleet.attempts import Machine
from scanfleet.clients import build_autoscaling_client
from scanfleet.errors import Unavailable
from scanfleet.settings import AgentSettings
from tests.support.fake_nvml import Device, FakeNvml
from tests.support.instance_metadata import fake_metadata
from tests.support.lifecycle_hooks import LifecycleActions, create_group

FLEET = "scanfleet-dev-windows-gpu"
RULES = MembershipRules()


@pytest.fixture
def imds():
    with fake_metadata(
        instanceId="i-0abc",
        instanceType="g4dn.xlarge",
        imageId="ami-1",
        availabilityZone="us-east-1a",
        region="us-east-1",
    ) as found:
        yield found


@pytest.fixture
def clock():
    class Clock:
        now = 1_800_000_000.0
        wall_ahead = 0.0

        def __call__(self):
            return self.now

        def wall(self):
            return self.now + self.wall_ahead

        def pass_by(self, time: timedelta):
            self.now += time.total_seconds()

    return Clock()


# --- Instance metadata -------------------------------------------------------------------------------------


def test_the_instance_knows_itself(imds):
    found = InstanceMetadata(imds.url).instance()

    assert found == Instance(
        instance_id="i-0abc",
        instance_type="g4dn.xlarge",
        ami_id="ami-1",
        availability_zone="us-east-1a",
        region="us-east-1",
    )


def test_what_there_is_not_is_none(imds):
    metadata = InstanceMetadata(imds.url)

    assert (metadata.target_state(), metadata.spot_notice()) == (None, None)


def test_one_token_serves_many_questions_until_it_is_half_as_old_as_it_may_get(imds, clock):
    metadata = InstanceMetadata(imds.url, clock=clock)
    for _ in range(3):
        metadata.target_state()
    assert len(imds.tokens) == 1

    clock.now += TOKEN_RENEWED_AFTER_SECONDS + 1
    metadata.target_state()

    assert len(imds.tokens) == 2


def test_a_token_that_is_refused_is_replaced(imds):
    metadata = InstanceMetadata(imds.url)
    imds.want("InService")
    assert metadata.target_state() == "InService"

    imds.forget_tokens()

    assert metadata.target_state() == "InService"


def test_a_spot_notice_says_what_happens_when(imds):
    imds.take_back("2027-01-15T08:22:00Z")

    at = datetime(2027, 1, 15, 8, 22, tzinfo=UTC).timestamp()
    assert InstanceMetadata(imds.url).spot_notice() == SpotNotice(action="terminate", at=at)


@pytest.mark.parametrize("notice", ["", "{}", '{"action": "terminate", "time": "soon"}', "[]"])
def test_a_notice_that_cannot_be_read_is_no_answer(imds, notice):
    imds.documents["/latest/meta-data/spot/instance-action"] = notice

    with pytest.raises(Unavailable, match="spot notice"):
        InstanceMetadata(imds.url).spot_notice()


def test_a_service_that_is_broken_or_not_there_is_no_answer(imds):
    imds.is_broken = True
    with pytest.raises(Unavailable, match="HTTP 503"):
        InstanceMetadata(imds.url).target_state()
    with pytest.raises(Unavailable, match="Connection refused"):
        InstanceMetadata("http://127.0.0.1:1").target_state()


def machine_in(imds) -> Machine:
    settings = AgentSettings(
        fleet=FLEET,
        metadata_url=imds.url,
        pool="windows-gpu",
        slots=3,
        scratch="scratch",
        job_table="jobs",
        queues={"windows-gpu": {"normal": "u", "high": "u"}},
        dead_letters={"windows-gpu": "d"},
        artifacts_bucket="artifacts",
        allowed_prefixes=["s3://data/"],
    )
    place = find_place(settings)
    assert place is not None
    return machine_of(settings, place)


def test_the_machine_of_a_record_is_the_instance_with_its_launch(imds, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(Device()))
    identity = json.loads(imds.documents[IDENTITY_PATH])
    imds.documents[IDENTITY_PATH] = json.dumps(identity | {"pendingTime": "2027-01-15T08:00:00Z"})

    assert machine_in(imds) == Machine(
        instance_id="i-0abc",
        instance_type="g4dn.xlarge",
        ami_id="ami-1",
        region="us-east-1",
        system=sys.platform,
        driver="580.12",
        slots=3,
        booted_at=datetime(2027, 1, 15, 8, tzinfo=UTC).timestamp(),
    )


def test_an_instance_that_does_not_tell_its_launch_still_serves(imds):
    assert machine_in(imds).booted_at is None


# --- Membership --------------------------------------------------------------------------------------------


class StandInWorker:
    """What membership needs of a worker, without jobs."""

    def __init__(self):
        self.busy = 0
        self.is_quiet = False
        self.given_back = 0
        self.condemned = None
        self.suspensions = {}
        self.trouble = None
        self.is_on_hold = False
        self.drains = []
        self.listeners = []

    def problem(self):
        return self.trouble

    def hold(self, is_on_hold):
        self.is_on_hold = is_on_hold

    def suspend(self, cause, reason, *, is_healthy=False):
        assert is_healthy or reason is None, "a load balancer would have the machine replaced"
        self.suspensions[cause] = reason

    def drain(self, grace, *, reason):
        self.drains.append((grace, reason))

    def listen(self, listener):
        self.listeners.append(listener)

    def run(self, jobs):
        self.busy = jobs
        for listener in self.listeners:
            listener()


@pytest.fixture
def worker():
    return StandInWorker()


class Group:
    """An Auto Scaling group of one instance in moto, and the calls that moto lacks."""

    def __init__(self, client, instance_id):
        self.client = client
        self.instance_id = instance_id
        self.actions = LifecycleActions(client)
        self.member = FleetMember(client, fleet=FLEET, instance_id=instance_id)

    def instance(self):
        (group,) = self.client.describe_auto_scaling_groups(AutoScalingGroupNames=[FLEET])[
            "AutoScalingGroups"
        ]
        return next(i for i in group["Instances"] if i["InstanceId"] == self.instance_id)

    @property
    def is_protected(self):
        return self.instance()["ProtectedFromScaleIn"]

    def wait_at(self, hook):
        self.actions.waiting.add((FLEET, hook, self.instance_id))

    def has_completed(self, hook):
        return (FLEET, hook, self.instance_id) in self.actions.completed


@pytest.fixture(scope="module")
def instance_id():
    """One account for all tests: `group` brings its instance back to the beginning for each."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "test")
        with mock_aws():
            yield create_group(boto3.Session(region_name="us-east-1"), FLEET)


@pytest.fixture
def group(instance_id):
    found = Group(build_autoscaling_client("us-east-1"), instance_id)
    found.member.protect(False)
    found.client.set_instance_health(InstanceId=instance_id, HealthStatus="Healthy")
    return found


@pytest.fixture
def membership(group, imds, worker, clock):
    imds.want("InService")
    return Membership(group.member, InstanceMetadata(imds.url), worker, clock=clock, wall=clock.wall)


def test_a_machine_that_comes_from_the_warm_pool_without_a_boot_says_that_it_is_ready(
    membership, group, imds, worker
):
    imds.want("Warmed:Hibernated")
    membership.look()
    group.wait_at(contract.LAUNCH_HOOK)
    membership.look()
    assert not group.has_completed(contract.LAUNCH_HOOK)

    imds.want("InService")
    worker.trouble = "the queue does not answer"
    membership.look()
    assert not group.has_completed(contract.LAUNCH_HOOK)
    worker.trouble = None
    membership.look()
    membership.look()

    assert group.actions.completed == [(FLEET, contract.LAUNCH_HOOK, group.instance_id)]


def test_after_a_boot_the_ready_word_is_user_datas(membership, group):
    group.wait_at(contract.LAUNCH_HOOK)

    membership.look()

    assert group.actions.completed == []


def test_the_ready_word_is_said_again_until_the_group_has_heard_it(membership, group, imds, clock):
    imds.want("Warmed:Running")
    membership.look()
    group.wait_at(contract.LAUNCH_HOOK)
    group.actions.is_down = True
    imds.want("InService")
    membership.look()

    group.actions.is_down = False
    clock.pass_by(RULES.retry)
    membership.look()

    assert group.has_completed(contract.LAUNCH_HOOK)


def test_nobody_waiting_for_the_ready_word_is_no_error(membership, group, imds, caplog):
    imds.want("Warmed:Running")
    membership.look()
    imds.want("InService")
    membership.look()

    assert group.actions.completed == []
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_an_agent_that_never_gets_ready_has_its_instance_replaced_and_says_why(
    membership, group, worker, clock, caplog
):
    worker.trouble = "the queue does not answer"
    clock.pass_by(RULES.ready - timedelta(seconds=1))
    membership.look()
    assert group.instance()["HealthStatus"] == "Healthy"

    clock.pass_by(timedelta(seconds=1))
    membership.look()

    assert group.instance()["HealthStatus"] == "Unhealthy"
    (record,) = [r for r in caplog.records if getattr(r, "action", "") == "instance_unhealthy"]
    assert "the queue does not answer" in record.reason


@pytest.mark.parametrize("hours", [8, -8])
def test_a_wall_clock_that_is_set_right_after_the_boot_changes_no_wait(
    membership, group, worker, clock, hours
):
    worker.trouble = "the machine is being checked"
    membership.look()
    clock.wall_ahead = 3600.0 * hours
    membership.look()
    assert group.instance()["HealthStatus"] == "Healthy"

    worker.trouble = None
    worker.run(1)
    membership.look()
    assert group.is_protected is True
    worker.run(0)
    clock.pass_by(RULES.idle)
    membership.look()
    assert group.is_protected is False


def test_trouble_after_a_good_start_is_left_to_the_health_check(membership, group, worker, clock):
    membership.look()
    worker.trouble = "the queue does not answer"
    clock.pass_by(RULES.ready * 2)

    membership.look()

    assert group.instance()["HealthStatus"] == "Healthy"


def test_a_busy_instance_is_protected_until_it_has_been_idle_for_a_while(membership, group, worker, clock):
    membership.look()
    assert group.is_protected is False

    worker.run(1)
    membership.look()
    assert group.is_protected is True

    worker.run(0)
    clock.pass_by(RULES.idle - timedelta(seconds=1))
    membership.look()
    assert group.is_protected is True

    clock.pass_by(timedelta(seconds=1))
    membership.look()
    assert group.is_protected is False


def test_protection_left_by_an_agent_that_crashed_is_taken_off(membership, group):
    group.member.protect(True)

    membership.look()

    assert group.is_protected is False


def test_protection_is_tried_again_when_auto_scaling_does_not_answer(
    membership, group, worker, clock, caplog
):
    membership.look()
    worker.run(1)
    group.actions.is_down = True
    membership.look()
    assert "protect not said" in caplog.text

    group.actions.is_down = False
    membership.look()
    assert group.is_protected is False, "too soon: it waits before it tries again"
    clock.pass_by(RULES.retry)
    membership.look()
    assert group.is_protected is True


def test_an_instance_that_is_terminated_drains_once_and_keeps_the_hook_waiting(
    membership, group, imds, worker, clock
):
    group.wait_at(contract.TERMINATE_HOOK)
    worker.run(1)
    membership.look()

    imds.want("Terminated")
    for _ in range(5):
        membership.look()
        clock.pass_by(RULES.look)
    clock.pass_by(RULES.heartbeat)
    membership.look()

    assert worker.drains == [(contract.DRAIN_GRACE, "Auto Scaling terminates the instance")]
    assert len(group.actions.kept_alive) == 2
    assert not group.has_completed(contract.TERMINATE_HOOK)

    membership.leave()

    assert group.has_completed(contract.TERMINATE_HOOK)


def test_an_agent_that_stops_for_another_reason_completes_no_hook(membership, group):
    group.wait_at(contract.TERMINATE_HOOK)
    membership.look()

    membership.leave()

    assert not group.has_completed(contract.TERMINATE_HOOK)


@pytest.mark.parametrize(("seconds_left", "grace"), [(120, 90), (3600, 900), (10, 0)])
def test_a_spot_notice_drains_within_the_time_that_is_left(
    membership, imds, worker, clock, seconds_left, grace
):
    clock.wall_ahead = 5000.0
    at = datetime.fromtimestamp(clock.wall() + seconds_left, tz=UTC)
    imds.take_back(at.strftime("%Y-%m-%dT%H:%M:%SZ"))

    membership.look()
    membership.look()

    assert worker.drains == [(timedelta(seconds=grace), "spot terminate")]


@pytest.mark.parametrize("target", ["Warmed:Stopped", "Warmed:Running", "Standby", "Detached"])
def test_an_instance_that_is_set_aside_takes_no_job_until_it_is_in_service(membership, imds, worker, target):
    imds.want(target)
    membership.look()
    assert (worker.is_on_hold, worker.drains) == (True, [])

    imds.want("InService")
    membership.look()

    assert not worker.is_on_hold


# --- Rebalance recommendations -----------------------------------------------------------------------------


def text_of(epoch_seconds):
    return datetime.fromtimestamp(epoch_seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_rebalance_recommendation_says_since_when(imds):
    imds.advise_to_leave("2027-01-15T08:22:00Z")

    at = datetime(2027, 1, 15, 8, 22, tzinfo=UTC).timestamp()
    assert InstanceMetadata(imds.url).rebalance_advised_at() == at


@pytest.mark.parametrize("advice", ["", "{}", '{"noticeTime": 5}'])
def test_a_recommendation_that_cannot_be_read_is_no_answer(imds, advice):
    imds.documents["/latest/meta-data/events/recommendations/rebalance"] = advice

    with pytest.raises(Unavailable, match="rebalance"):
        InstanceMetadata(imds.url).rebalance_advised_at()


def test_after_ec2s_advice_nothing_new_is_taken_until_the_group_ends_the_machine(
    membership, imds, worker, clock
):
    worker.run(1)
    imds.advise_to_leave(text_of(clock.now))
    membership.look()
    assert worker.suspensions["rebalance"]
    assert worker.drains == [], "what runs may take its time: no end is announced yet"

    imds.want("Terminated")
    membership.look()

    assert len(worker.drains) == 1


def test_advice_that_no_end_follows_is_forgotten_after_a_while(membership, imds, worker, clock):
    imds.advise_to_leave(text_of(clock.now))
    membership.look()
    clock.pass_by(RULES.rebalance - timedelta(seconds=1))
    membership.look()
    assert worker.suspensions["rebalance"]

    clock.pass_by(timedelta(seconds=1))
    membership.look()
    assert worker.suspensions == {"rebalance": None}
    imds.advise_to_leave(text_of(clock.now))
    membership.look()

    assert worker.suspensions["rebalance"], "a fresh advice counts again"


# --- Condemned and idle machines ---------------------------------------------------------------------------


def test_a_condemned_machine_is_said_to_be_unhealthy_until_the_group_has_heard_it(
    membership, group, worker, clock, caplog
):
    membership.look()
    assert group.instance()["HealthStatus"] == "Healthy"
    worker.condemned = "3 different jobs in a row failed here"
    group.actions.is_down = True
    membership.look()
    assert "not given up" in caplog.text

    group.actions.is_down = False
    clock.pass_by(timedelta(minutes=1))
    membership.look()

    assert group.instance()["HealthStatus"] == "Unhealthy"
    reasons = {r.reason for r in caplog.records if getattr(r, "action", "") == "instance_unhealthy"}
    assert reasons == {"3 different jobs in a row failed here"}


IDLE = timedelta(minutes=10)


@pytest.fixture
def idle_machine(group, imds, worker, clock):
    """A membership that ends its instance when it is idle, after it has been so for long."""
    imds.want("InService")
    rules = MembershipRules(end_idle=IDLE)
    found = Membership(
        group.member, InstanceMetadata(imds.url), worker, rules=rules, clock=clock, wall=clock.wall
    )
    found.look()
    clock.pass_by(IDLE)
    found.look()
    return found


def ended(caplog):
    return [r.action for r in caplog.records if getattr(r, "action", "").startswith("instance_")]


def test_by_default_no_instance_ends_itself(membership, worker, clock):
    membership.look()
    clock.pass_by(timedelta(days=7))
    membership.look()

    assert "idle" not in worker.suspensions


def test_an_idle_instance_stops_receiving_before_it_ends(idle_machine, group, worker, clock):
    assert worker.suspensions["idle"]
    assert group.instance()["LifecycleState"] == "InService"

    idle_machine.look()
    assert group.instance()["LifecycleState"] == "InService", "the last poll has not come back"


def test_at_the_groups_minimum_an_idle_instance_stays_and_says_so_once(
    idle_machine, group, worker, clock, caplog
):
    caplog.set_level(logging.INFO)
    worker.is_quiet = True
    idle_machine.look()
    assert worker.suspensions["idle"] is None

    for _ in range(3):
        clock.pass_by(IDLE)
        idle_machine.look()
        idle_machine.look()

    assert group.instance()["LifecycleState"] == "InService"
    assert ended(caplog) == ["instance_idle_at_minimum"]


def test_a_job_that_came_with_the_last_poll_keeps_the_instance(idle_machine, group, worker):
    worker.is_quiet = True
    worker.given_back = 1

    idle_machine.look()

    assert worker.suspensions["idle"] is None
    assert group.instance()["LifecycleState"] == "InService"


def test_a_job_that_came_before_the_last_poll_keeps_the_instance(idle_machine, group, worker, clock):
    worker.run(1)
    idle_machine.look()
    assert worker.suspensions["idle"] is None

    worker.run(0)
    worker.is_quiet = True
    idle_machine.look()
    assert worker.suspensions["idle"] is None, "the idle time begins anew"


def test_silence_of_auto_scaling_keeps_the_instance(idle_machine, group, worker, caplog):
    group.actions.is_down = True
    worker.is_quiet = True

    idle_machine.look()

    assert worker.suspensions["idle"] is None
    assert "idle, not ended" in caplog.text


def test_an_instance_above_the_minimum_ends_and_the_group_gets_smaller(group, worker, clock, imds, caplog):
    caplog.set_level(logging.INFO)
    name = f"{FLEET}-that-may-be-empty"
    instance_id = create_group(boto3.Session(region_name="us-east-1"), name)
    group.client.update_auto_scaling_group(AutoScalingGroupName=name, MinSize=0)
    member = FleetMember(group.client, fleet=name, instance_id=instance_id)
    imds.want("InService")
    rules = MembershipRules(end_idle=IDLE)
    machine = Membership(member, InstanceMetadata(imds.url), worker, rules=rules, clock=clock)
    machine.look()
    clock.pass_by(IDLE)
    machine.look()
    worker.is_quiet = True

    machine.look()
    machine.look()

    (found,) = group.client.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    assert (found["DesiredCapacity"], found["Instances"]) == (0, [])
    assert worker.suspensions["idle"], "it takes nothing while its end comes"
    assert "instance_ends_idle" in ended(caplog)


# --- Metadata that is silent -------------------------------------------------------------------------------


def test_silent_metadata_is_said_once_and_changes_nothing(membership, imds, worker, caplog):
    membership.look()
    imds.is_broken = True

    membership.look()
    membership.look()

    assert [r.action for r in caplog.records if r.levelno >= logging.WARNING] == ["metadata_failed"]
    assert (worker.is_on_hold, worker.drains) == (False, [])


def test_a_change_of_the_running_jobs_is_seen_at_once(group, imds, worker):
    imds.want("InService")
    protected = threading.Event()

    class Watched(FleetMember):
        def protect(self, is_protected):
            super().protect(is_protected)
            if is_protected:
                protected.set()

    member = Watched(group.client, fleet=FLEET, instance_id=group.instance_id)
    rules = MembershipRules(look=timedelta(hours=1))
    membership = Membership(member, InstanceMetadata(imds.url), worker, rules=rules)
    membership.start()
    try:
        worker.run(1)
        assert protected.wait(20)
    finally:
        membership.stop()


def test_a_machine_that_cannot_be_given_up_is_logged(group, caplog):
    group.actions.is_down = True

    give_up(group.member, "no licence")

    assert "no licence" in caplog.text
    assert "not given up" in caplog.text


def test_drain_and_heartbeats_fit_the_hook():
    assert RULES.drain + RULES.look + RULES.hand_back < contract.TERMINATE_HOOK_TIMEOUT
    assert RULES.heartbeat * 2 < contract.TERMINATE_HOOK_TIMEOUT
