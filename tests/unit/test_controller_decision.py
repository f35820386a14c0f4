"""From facts to the numbers that scale a pool: pure, so every rule is tried on thousands of fleets."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanfleet.agent_reports import AgentReport
from scanfleet.contract import LAUNCH_HOOK_TIMEOUT, METRIC_FACTS, Dimension, Metric, Pool
from scanfleet.controller.decision import decide, fleet_cost_per_hour, idle_instances
from scanfleet.controller.facts import Instance, PoolFacts
from scanfleet.prices import windows_prices

NOW = 1_800_000_000.0
STATES = (
    "Pending",
    "Pending:Wait",
    "InService",
    "Terminating:Wait",
    "Standby",
    "Warmed:Stopped",
    "Warmed:Running",
)


def instance(
    name: str = "i-1",
    state: str = "InService",
    *,
    age: timedelta = timedelta(minutes=5),
    is_protected: bool = False,
) -> Instance:
    return Instance(
        instance_id=name,
        instance_type="g4dn.xlarge",
        lifecycle_state=state,
        launched_at=NOW - age.total_seconds(),
        is_protected=is_protected,
    )


def agent(on: str = "i-1", *, slots: int = 1, busy: int = 0, **facts: bool) -> AgentReport:
    return AgentReport(
        agent_id=f"a-{on}",
        pool=Pool.WINDOWS_GPU,
        slots=slots,
        busy=busy,
        started_at=NOW - 60,
        seen_at=NOW,
        instance_id=on,
        **facts,
    )


def pool(
    *members: Instance | AgentReport, waiting: int = 0, slots: int = 1, is_blocked: bool = False
) -> PoolFacts:
    return PoolFacts(
        pool=Pool.WINDOWS_GPU,
        taken_at=NOW,
        waiting=waiting,
        in_flight=0,
        slots_per_instance=slots,
        agents=tuple(m for m in members if isinstance(m, AgentReport)),
        instances=tuple(m for m in members if isinstance(m, Instance)),
        is_blocked=is_blocked,
    )


# --- Backlog per slot --------------------------------------------------------------------------------------


def test_an_empty_fleet_counts_as_one_slot_so_that_it_can_scale_out():
    assert decide(pool(waiting=3))[Metric.BACKLOG_PER_SLOT] == 3


def test_booting_slots_share_no_backlog_because_step_scaling_leaves_them_out_too():
    facts = pool(instance("i-1"), agent("i-1", busy=1), instance("i-2", "Pending:Wait"), waiting=4)

    assert decide(facts)[Metric.BACKLOG_PER_SLOT] == 4


def test_a_fleet_without_a_built_image_asks_for_no_machine_but_shows_its_backlog():
    values = decide(pool(waiting=9, is_blocked=True))

    assert (values[Metric.BACKLOG_PER_SLOT], values[Metric.BACKLOG]) == (0, 9)


# --- Booting -----------------------------------------------------------------------------------------------


def test_an_instance_boots_until_its_agent_reports():
    silent, heard = pool(instance(state="Pending:Wait")), pool(instance(state="Pending:Wait"), agent())

    assert decide(silent)[Metric.SLOTS_BOOTING] == 1
    assert decide(heard)[Metric.SLOTS_BOOTING] == 0
    assert decide(heard)[Metric.SLOTS_IN_SERVICE] == 1


def test_an_instance_that_never_reports_stops_counting_after_the_launch_hooks_limit():
    just_before = pool(instance(age=LAUNCH_HOOK_TIMEOUT), waiting=5, slots=5)
    just_after = pool(instance(age=LAUNCH_HOOK_TIMEOUT + timedelta(seconds=1)), waiting=5, slots=5)

    assert decide(just_before)[Metric.SLOTS_BOOTING] == 5
    assert decide(just_after)[Metric.SLOTS_BOOTING] == 0


def test_an_instance_of_unknown_age_was_launched_a_moment_ago():
    unknown = Instance(instance_id="i-1", instance_type="g4dn.xlarge", lifecycle_state="Pending")

    assert decide(pool(unknown))[Metric.SLOTS_BOOTING] == 1


@pytest.mark.parametrize("state", ["Warmed:Pending:Wait", "Warmed:Stopped", "Terminating:Wait", "Standby"])
def test_instances_that_will_not_serve_now_do_not_boot(state):
    assert decide(pool(instance(state=state)))[Metric.SLOTS_BOOTING] == 0


def test_a_warm_machines_agent_that_holds_back_is_no_slot_in_service():
    values = decide(pool(instance(state="Warmed:Running"), agent(is_on_hold=True)))

    assert values[Metric.SLOTS_IN_SERVICE] == 0


def test_a_suspected_machine_is_no_slot_in_service_and_does_not_boot():
    values = decide(pool(instance(), agent(is_suspended=True), waiting=2))

    assert (values[Metric.SLOTS_IN_SERVICE], values[Metric.SLOTS_BOOTING]) == (0, 0)
    assert values[Metric.BACKLOG_PER_SLOT] == 2


def test_a_machine_from_the_warm_pool_boots_until_its_agent_stops_holding_back():
    values = decide(pool(instance(state="Pending:Wait"), agent(is_on_hold=True)))

    assert (values[Metric.SLOTS_BOOTING], values[Metric.SLOTS_IN_SERVICE]) == (1, 0)


def test_an_agent_that_does_not_name_its_instance_speaks_for_the_oldest_silent_one():
    old, young = instance("i-1", age=timedelta(minutes=9)), instance("i-2", age=timedelta(minutes=1))
    values = decide(pool(old, young, agent("", busy=1)))

    assert (values[Metric.SLOTS_BOOTING], values[Metric.SLOTS_IN_SERVICE], values[Metric.SLOTS_BUSY]) == (
        1,
        1,
        1,
    )


def test_agents_without_any_instance_still_count():
    values = decide(pool(agent("", slots=2), waiting=4))

    assert values[Metric.BACKLOG_PER_SLOT] == 2


# --- Idle --------------------------------------------------------------------------------------------------


def test_idle_is_who_has_nothing_to_do_and_is_not_needed():
    busy, free = (instance("i-1"), agent("i-1", busy=1)), (instance("i-2"), agent("i-2"))

    assert idle_instances(pool(*busy, *free)) == 1
    assert idle_instances(pool(*busy, *free, waiting=1)) == 0


def test_free_slots_of_busy_instances_take_the_backlog_first():
    half = (instance("i-1"), agent("i-1", slots=2, busy=1))

    assert idle_instances(pool(*half, instance("i-2"), agent("i-2", slots=2), waiting=1)) == 1


def test_a_protected_instance_is_not_idle_because_scale_in_could_not_take_it():
    # Auto Scaling would lower the desired capacity all the same, minute by minute, and collect later
    just_done = [instance("i-1", is_protected=True), agent("i-1")]
    silent = instance("i-2", age=timedelta(hours=1), is_protected=True)
    free = [instance("i-3"), agent("i-3")]

    assert idle_instances(pool(*just_done)) == 0
    assert idle_instances(pool(silent)) == 0
    assert idle_instances(pool(*just_done, silent, *free)) == 1
    assert idle_instances(pool(*just_done, *free, waiting=1)) == 1  # the one that stays takes the job


def test_an_instance_whose_agent_never_came_is_idle_once_it_is_overdue():
    assert idle_instances(pool(instance(age=timedelta(hours=1)))) == 1
    assert idle_instances(pool(instance(age=timedelta(minutes=1)))) == 0


@st.composite
def fleets(draw):
    """Fleets of every kind: reporting and silent, young and old, draining, warm, with nameless agents."""
    members: list[Instance | AgentReport] = []
    for number in range(draw(st.integers(0, 6))):
        name = f"i-{number}"
        age = timedelta(seconds=draw(st.integers(0, 7200)))
        members.append(instance(name, draw(st.sampled_from(STATES)), age=age))
        if draw(st.booleans()):
            slots = draw(st.integers(1, 4))
            kinds = ("is_stopping", "is_on_hold", "is_suspended")
            facts = {kind: draw(st.booleans()) for kind in kinds}
            on = draw(st.sampled_from([name, ""]))
            members.append(agent(on, slots=slots, busy=draw(st.integers(0, slots)), **facts))
    return pool(
        *members,
        waiting=draw(st.integers(0, 20)),
        slots=draw(st.integers(1, 4)),
        is_blocked=draw(st.booleans()),
    )


def free_slots(facts: PoolFacts, name: str) -> int:
    on = [a for a in facts.agents if a.instance_id == name]
    takes = [a for a in on if not (a.is_stopping or a.is_on_hold or a.is_suspended)]
    return sum(a.slots - a.busy for a in takes)


@given(fleets())
def test_no_number_is_negative_and_each_is_the_contracts(facts):
    values = decide(facts)

    assert all(value >= 0 for value in values.values())
    assert all(METRIC_FACTS[metric][1] == (Dimension.POOL,) for metric in values)


@given(fleets())
def test_idle_instances_never_count_one_with_a_busy_slot(facts):
    busy = {a.instance_id for a in facts.agents if a.busy}
    without_work = sum(i.is_in_service and i.instance_id not in busy for i in facts.instances)

    assert idle_instances(facts) <= without_work


@given(fleets())
def test_what_stays_when_every_idle_instance_goes_still_takes_the_backlog(facts):
    # the largest idle ones go: whichever Auto Scaling picks, no more slots than these are lost
    serving = [i.instance_id for i in facts.instances if i.is_in_service]
    reporting = [a.instance_id for a in facts.agents]
    busy = {a.instance_id for a in facts.agents if a.busy}
    could_go = sorted(
        (free_slots(facts, name) for name in serving if name in reporting and name not in busy), reverse=True
    )
    overdue = sum(
        i.is_in_service
        and i.instance_id not in reporting
        and NOW - i.launched_at > LAUNCH_HOOK_TIMEOUT.total_seconds()
        for i in facts.instances
    )
    all_free = sum(free_slots(facts, name) for name in serving)
    gone = sum(could_go[: max(0, idle_instances(facts) - overdue)])

    assert all_free - gone >= min(facts.waiting, all_free)


@given(fleets())
def test_more_waiting_jobs_never_make_more_instances_idle(facts):
    more = PoolFacts(**(vars(facts) | {"waiting": facts.waiting + 1}))

    assert idle_instances(more) <= idle_instances(facts)


@given(fleets())
def test_the_overdue_never_count_as_booting(facts):
    young = sum(NOW - i.launched_at <= LAUNCH_HOOK_TIMEOUT.total_seconds() for i in facts.instances)

    assert decide(facts)[Metric.SLOTS_BOOTING] <= young * facts.slots_per_instance


# --- Money -------------------------------------------------------------------------------------------------


def test_every_running_machine_is_paid_for_and_a_stopped_one_is_not():
    facts = pool(instance("i-1"), instance("i-2", "Pending"), instance("i-3", "Warmed:Stopped"))
    prices = windows_prices("us-east-1")

    assert decide(facts)[Metric.INSTANCES] == 2
    assert fleet_cost_per_hour(facts.instances, prices) == pytest.approx(1.42)


def test_a_type_without_a_price_leaves_the_metric_out_instead_of_being_wrong():
    assert fleet_cost_per_hour([instance()], {}) is None


def test_the_operators_prices_replace_the_pinned_ones():
    prices = windows_prices("us-east-1", own={"g4dn.xlarge": 0.5, "g9.xlarge": 2.0})

    assert (prices["g4dn.xlarge"], prices["g9.xlarge"]) == (0.5, 2.0)
    assert prices["g4dn.2xlarge"] == pytest.approx(1.12)


@pytest.mark.parametrize("family", ["g4dn", "g5", "g6", "gr6"])
def test_every_allowed_family_has_a_price_and_other_regions_cost_more(family):
    home, far = windows_prices("us-east-1"), windows_prices("eu-central-1")
    kinds = [kind for kind in home if kind.startswith(f"{family}.")]

    assert kinds
    assert all(home[kind] < far[kind] < 1.3 * home[kind] for kind in kinds)


def test_an_unknown_region_has_no_prices():
    assert windows_prices("mars-north-1") == {}
