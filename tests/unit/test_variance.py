"""Where spread comes from: the factor that was made slow is named, and noise names none."""

from random import Random

import pytest

from scanfleet.past_runs import Expected, PastRun, Place
from scanfleet.variance import ALPHA, FEWEST_RUNS, GROUPS_SHOWN, analyse
from tests.support.past_jobs import GB

MACHINES = tuple(f"i-{number}" for number in range(8))


def runs_of(count: int = 300, *, seed: int = 1, noise: float = 0.2, slow=lambda run: 1.0) -> list[PastRun]:
    """Return runs of a mixed fleet. slow: how many times as long a run takes as others of its size."""
    random = Random(seed)
    found = []
    for number in range(count):
        machine = random.randrange(len(MACHINES))
        size = int(GB * 2 ** random.uniform(-1, 2))
        run = PastRun(
            300 * (size / GB) ** 0.8 * random.lognormvariate(0, noise),
            input_bytes=size,
            settings=random.choice(["plain", "fine"]),
            place=Place(
                instance_id=MACHINES[machine],
                instance_type="g5.xlarge" if machine % 4 == 3 else "g4dn.xlarge",
                ami_id=random.choice(["ami-1", "ami-2"]),
                driver=random.choice(["537.70", "551.61"]),
                release=random.choice(["4.1", "4.2", "4.3"]),
                busy=random.randrange(4),
            ),
            finished_at=float(number + 1),
        )
        found.append(run.times(slow(run)))
    return found


def named(runs: list[PastRun]) -> list[str]:
    return [found.factor for found in analyse(runs).explained]


def test_one_machine_that_is_twice_as_slow_is_named():
    found = analyse(runs_of(slow=lambda run: 2.0 if run.place.machine == "i-5" else 1.0))

    (machine,) = found.explained
    assert machine.factor == "machine"
    assert machine.share > 0.3
    assert machine.groups[0].name == found.worst_machines[0].name == "i-5"
    assert machine.groups[0].ratio == pytest.approx(2, rel=0.15)
    assert all(group.ratio < 1.2 for group in machine.groups[1:])
    assert found.unexplained == pytest.approx(1 - machine.share)


def test_a_release_that_is_a_third_slower_is_named_and_no_machine_is_blamed():
    found = analyse(runs_of(slow=lambda run: 1.3 if run.place.release == "4.3" else 1.0))

    (release,) = found.explained
    assert (release.factor, release.groups[0].name) == ("release", "4.3")
    assert release.groups[0].ratio / release.groups[-1].ratio == pytest.approx(1.3, rel=0.1)
    assert found.worst_machines[0].ratio < 1.15


@pytest.mark.parametrize(
    ("factor", "is_slow"),
    [
        ("instance_type", lambda run: run.place.instance_type == "g4dn.xlarge"),
        ("ami", lambda run: run.place.ami_id == "ami-2"),
        ("driver", lambda run: run.place.driver == "537.70"),
        ("settings", lambda run: run.settings == "fine"),
        ("neighbours", lambda run: run.place.busy == 3),
    ],
)
def test_every_factor_is_found_and_no_other_beside_it(factor, is_slow):
    assert named(runs_of(slow=lambda run: 1.4 if is_slow(run) else 1.0)) == [factor]


def test_two_causes_are_told_apart_the_larger_first():
    def slow(run: PastRun) -> float:
        return (2.0 if run.settings == "fine" else 1.0) * (1.35 if run.place.release == "4.3" else 1.0)

    assert named(runs_of(slow=slow)) == ["settings", "release"]


def test_noise_names_no_factor():
    innocent = [named(runs_of(120, seed=seed, noise=0.4)) for seed in range(60)]

    false_alarms = sum(bool(names) for names in innocent)
    assert false_alarms <= 60 * ALPHA + 3, "three more by chance"


def test_larger_inputs_are_not_spread():
    found = analyse(runs_of(noise=0.05))

    assert found.spread < 1.25
    assert found.explained == ()


def test_one_run_that_hung_for_ages_blames_nobody():
    runs = runs_of(200)
    stuck = [run.times(200.0) if run is runs[50] else run for run in runs]

    assert named(stuck) == []


def test_machines_with_few_runs_are_not_named():
    runs = [
        PastRun(
            300.0 * Random(n).lognormvariate(0, 0.3), place=Place(instance_id=f"i-{n}"), finished_at=n + 1
        )
        for n in range(60)
    ]

    found = analyse(runs)

    assert found.explained == ()
    assert found.worst_machines == ()
    assert found.looked_at == ()


def test_many_groups_are_shown_the_slowest_first():
    runs = [
        PastRun(100.0 * (1 + n % 12), place=Place(instance_id=f"i-{n % 12:02}"), finished_at=n + 1)
        for n in range(240)
    ]

    groups = analyse(runs).explained[0].groups

    assert len(groups) == GROUPS_SHOWN
    assert [group.name for group in groups] == [f"i-{n:02}" for n in range(11, 11 - GROUPS_SHOWN, -1)]


def test_of_few_runs_nothing_is_said():
    assert analyse(runs_of(FEWEST_RUNS - 1)) is None
    assert analyse([PastRun(100.0)] * FEWEST_RUNS).explained == ()


def test_runs_are_held_against_what_was_predicted_for_them():
    expected = [Expected(80.0, 100.0, 120.0)] * 30 + [None] * 10
    runs = [PastRun(90.0 + n, expected=said, finished_at=n + 1) for n, said in enumerate(expected)]

    against = analyse(runs).against_predictions

    assert against.runs == 30
    assert against.held == 1.0
    assert against.ratio == pytest.approx(1.045)
    assert analyse([PastRun(100.0)] * FEWEST_RUNS).against_predictions is None


def test_the_same_runs_give_the_same_answer():
    runs = runs_of(slow=lambda run: 1.2 if run.place.release == "4.3" else 1.0)

    assert analyse(runs) == analyse(list(reversed(runs)))
