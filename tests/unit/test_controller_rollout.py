"""Rollouts: what is started, with which preferences, and what is left alone."""

from datetime import UTC, datetime, timedelta

import pytest

from scanfleet.contract import INSTANCE_WARM_UP, Metric, Pool
from scanfleet.controller.rollout import REPEAT_AFTER, Outcome, desired_configuration
from scanfleet.controller.templates import PIN_MARK, SETTLES_AFTER, TemplateVersion
from tests.support.fleet_account import ALARM, GROUP, FleetAccount, fleet_account

NEW, NEWER = "ami-00000000000000002", "ami-00000000000000003"


@pytest.fixture
def account(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with fleet_account() as made:
        made.write_image(NEW)
        yield made


def pass_a_minute(account: FleetAccount) -> float:
    """Let the controller look once; return RolloutFailed as CloudWatch then has it."""
    account.clock.forward(timedelta(minutes=1))
    account.controller.roll_out()
    return account.published()[Metric.ROLLOUT_FAILED]


def version_of(account: FleetAccount) -> str:
    return account.group()["LaunchTemplate"]["Version"]


def image_of(account: FleetAccount, version: str) -> str:
    (found,) = account.client["ec2"].describe_launch_template_versions(
        LaunchTemplateId=account.template_id, Versions=[version]
    )["LaunchTemplateVersions"]
    return found["LaunchTemplateData"]["ImageId"]


@pytest.fixture
def rolled_out(account: FleetAccount):
    """A fleet of two machines at the first image, with a quiet alarm."""
    account.set_alarm("OK")
    account.scale(2)
    pass_a_minute(account)
    account.refreshes.finish()
    return account


def test_the_first_rollout_gives_the_group_a_numbered_image(account: FleetAccount):
    account.scale(1)

    pass_a_minute(account)
    (refresh,) = account.refreshes.all
    account.refreshes.finish()

    assert image_of(account, version_of(account)) == NEW
    # AWS would refuse it: the group's version so far names its image by the parameter
    assert refresh["Preferences"]["AutoRollback"] is False


def test_a_finished_rollout_is_left_alone(rolled_out: FleetAccount):
    pass_a_minute(rolled_out)
    pass_a_minute(rolled_out)

    assert len(rolled_out.refreshes.all) == 1


def test_a_new_image_rolls_out_with_a_way_back(rolled_out: FleetAccount):
    before = version_of(rolled_out)
    rolled_out.write_image(NEWER)

    pass_a_minute(rolled_out)
    refresh = rolled_out.refreshes.all[-1]

    wanted = refresh["DesiredConfiguration"]["LaunchTemplate"]["Version"]
    assert image_of(rolled_out, wanted) == NEWER
    assert version_of(rolled_out) == before  # until it has succeeded: that is what a rollback goes back to
    assert refresh["Preferences"] == {
        "MinHealthyPercentage": 100,
        "MaxHealthyPercentage": 110,
        "InstanceWarmup": int(INSTANCE_WARM_UP.total_seconds()),
        "SkipMatching": True,
        "ScaleInProtectedInstances": "Refresh",
        "StandbyInstances": "Ignore",
        "AutoRollback": True,
        "AlarmSpecification": {"Alarms": [ALARM]},
        "BakeTime": 600,
    }


def test_a_new_template_of_the_stack_rolls_out_with_the_present_image(rolled_out: FleetAccount):
    rolled_out.deploy_template()
    rolled_out.clock.forward(SETTLES_AFTER)

    pass_a_minute(rolled_out)
    refresh = rolled_out.refreshes.all[-1]

    wanted = refresh["DesiredConfiguration"]["LaunchTemplate"]["Version"]
    assert image_of(rolled_out, wanted) == NEW
    assert refresh["Preferences"]["AutoRollback"] is True


def test_a_deploy_may_change_the_group_before_its_template_rolls_out(rolled_out: FleetAccount):
    # AWS refuses that while a refresh to another configuration runs, and the deploy would fail
    rolled_out.deploy_template()
    settled_at = (
        datetime.now(tz=UTC).timestamp() + SETTLES_AFTER.total_seconds()
    )  # moto's time is the real one

    while rolled_out.clock() + 120 < settled_at:
        pass_a_minute(rolled_out)
        assert len(rolled_out.refreshes.all) == 1
    while rolled_out.clock() < settled_at:
        pass_a_minute(rolled_out)
    assert len(rolled_out.refreshes.all) == 2


def test_a_new_image_rolls_out_while_a_template_settles(rolled_out: FleetAccount):
    rolled_out.deploy_template()
    rolled_out.write_image(NEWER)

    pass_a_minute(rolled_out)

    wanted = rolled_out.refreshes.all[-1]["DesiredConfiguration"]["LaunchTemplate"]["Version"]
    assert image_of(rolled_out, wanted) == NEWER


def test_one_pinned_version_is_made_however_often_it_is_looked_for(account: FleetAccount):
    account.scale(1)
    for _ in range(3):
        pass_a_minute(account)

    versions = account.client["ec2"].describe_launch_template_versions(LaunchTemplateId=account.template_id)
    descriptions = [v.get("VersionDescription") or "" for v in versions["LaunchTemplateVersions"]]
    assert [text.startswith(PIN_MARK) for text in sorted(descriptions)] == [False, True]


def test_no_second_refresh_starts_while_one_runs(rolled_out: FleetAccount):
    rolled_out.write_image(NEWER)
    pass_a_minute(rolled_out)
    rolled_out.deploy_template()

    pass_a_minute(rolled_out)

    assert len(rolled_out.refreshes.all) == 2


def test_a_rolled_back_image_is_not_tried_again_and_rings_until_there_is_a_newer_one(
    rolled_out: FleetAccount, caplog
):
    rolled_out.write_image(NEWER)
    started = pass_a_minute(rolled_out)
    rolled_out.refreshes.fail()

    failed = [pass_a_minute(rolled_out) for _ in range(3)]
    tries = len(rolled_out.refreshes.all)
    rolled_out.write_image("ami-00000000000000004")
    repaired = pass_a_minute(rolled_out)

    assert (started, failed, repaired) == (0, [1, 1, 1], 0)
    assert (tries, len(rolled_out.refreshes.all)) == (2, 3)
    assert image_of(rolled_out, version_of(rolled_out)) == NEW
    assert "rollout_failed" in {getattr(r, "action", "") for r in caplog.records}


def test_a_repair_rolls_out_while_what_it_repairs_still_rings(rolled_out: FleetAccount, caplog):
    # such as boots that fail until there is another image: waiting for them would wait for ever
    rolled_out.set_alarm("ALARM")
    rolled_out.write_image(NEWER)

    pass_a_minute(rolled_out)

    refresh = rolled_out.refreshes.all[-1]
    wanted = refresh["DesiredConfiguration"]["LaunchTemplate"]["Version"]
    assert image_of(rolled_out, wanted) == NEWER
    # AWS would fail the refresh at once
    assert "AlarmSpecification" not in refresh["Preferences"]
    assert "rollout_unwatched" in {getattr(r, "action", "") for r in caplog.records}


def test_an_alarm_that_does_not_exist_is_left_out(account: FleetAccount, caplog):
    account.scale(1)

    pass_a_minute(account)

    assert "AlarmSpecification" not in account.refreshes.all[0]["Preferences"]
    assert "rollback_alarm_missing" in {getattr(r, "action", "") for r in caplog.records}


def test_an_empty_fleet_is_moved_on_without_watching_anything(account: FleetAccount):
    pass_a_minute(account)

    assert "BakeTime" not in account.refreshes.all[0]["Preferences"]


def test_a_group_that_cloudformation_reset_is_put_right(rolled_out: FleetAccount):
    good = version_of(rolled_out)
    rolled_out.clock.forward(REPEAT_AFTER)
    rolled_out.refreshes.move(
        GROUP, {"LaunchTemplate": {"LaunchTemplateId": rolled_out.template_id, "Version": "1"}}
    )

    pass_a_minute(rolled_out)
    refresh = rolled_out.refreshes.all[-1]

    assert refresh["DesiredConfiguration"]["LaunchTemplate"]["Version"] == good
    assert refresh["Preferences"]["AutoRollback"] is False  # AWS refuses it from a version with the parameter


def test_before_the_first_image_nothing_rolls_out(monkeypatch):
    with fleet_account() as seeded:
        seeded.scale(1)

        assert pass_a_minute(seeded) == 0
        assert seeded.refreshes.all == []


def test_a_mixed_group_keeps_its_own_policy_but_for_the_version():
    policy = {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": {
                "LaunchTemplateId": "lt-1",
                "LaunchTemplateName": "fleet",
                "Version": "1",
            },
            "Overrides": [{"InstanceType": "g4dn.xlarge"}, {"InstanceType": "g5.xlarge"}],
        },
        "InstancesDistribution": {"OnDemandPercentageAboveBaseCapacity": 50},
    }

    desired = desired_configuration({"MixedInstancesPolicy": policy}, TemplateVersion("lt-1", "7"))

    mixed = desired["MixedInstancesPolicy"]
    assert mixed["LaunchTemplate"] == {
        "LaunchTemplateSpecification": {"LaunchTemplateId": "lt-1", "Version": "7"},
        "Overrides": policy["LaunchTemplate"]["Overrides"],
    }
    assert mixed["InstancesDistribution"] == policy["InstancesDistribution"]


def test_a_pool_without_an_image_of_ours_has_nothing_to_roll_out(account: FleetAccount):
    outcome = account.rollout.advance(
        Pool.LINUX_CPU, account.fleets[Pool.WINDOWS_GPU], None, now=account.clock()
    )

    assert outcome is Outcome.BLOCKED
