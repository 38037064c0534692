"""What retention promises, over thousands of random histories."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samplemind.backup.manifest import BackupKind
from samplemind.backup.retention import Kept, Policy, Reason, plan_retention

_EXAMPLES = int(os.environ.get("RETENTION_EXAMPLES", "40"))
_NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@st.composite
def histories(draw: st.DrawFn) -> list[Kept]:
    backups: list[Kept] = []
    for number in range(draw(st.integers(0, 25))):
        kind = draw(st.sampled_from(list(BackupKind)))
        cluster = draw(st.sampled_from(["a", "b"]))
        bases = [
            one.id
            for one in backups
            if one.cluster == cluster and one.kind in (BackupKind.PHYSICAL, BackupKind.INCREMENTAL)
        ]
        parent = None
        if kind is BackupKind.INCREMENTAL:
            parent = draw(st.sampled_from([*bases, "gone"]))
        backups.append(
            Kept(
                id=f"{draw(st.integers(0, 99))}-{number}",
                cluster=cluster,
                kind=kind,
                started_at=_NOW - timedelta(hours=draw(st.integers(-48, 24 * 900))),
                good=draw(st.booleans()),
                held=draw(st.integers(0, 9)) == 0,
                parent=parent,
            )
        )
    return draw(st.permutations(backups))


policies = st.builds(
    Policy,
    days=st.integers(0, 60),
    last=st.integers(0, 4),
    daily=st.integers(0, 7),
    weekly=st.integers(0, 5),
    monthly=st.integers(0, 12),
    yearly=st.integers(0, 3),
)


def _whole(one: Kept, by_id: dict[str, Kept]) -> bool:
    while one.parent is not None:
        if one.parent not in by_id or not by_id[one.parent].good:
            return False
        one = by_id[one.parent]
    return True


@settings(max_examples=_EXAMPLES, deadline=None)
@given(histories(), policies)
def test_what_is_needed_is_never_deleted(backups: list[Kept], policy: Policy):
    plan = plan_retention(backups, policy, _NOW)
    by_id = {one.id: one for one in backups}
    assert plan.keep.keys() | plan.delete.keys() == by_id.keys()
    assert not plan.keep.keys() & plan.delete.keys()
    for one in backups:
        if one.held or one.started_at > _NOW - timedelta(days=policy.days):
            assert one.id in plan.keep
        if one.id in plan.keep and one.parent in by_id:
            assert one.parent in plan.keep
    for cluster in ("a", "b"):
        for kinds in (
            {BackupKind.DUMP},
            {BackupKind.LOGICAL},
            {BackupKind.PHYSICAL, BackupKind.INCREMENTAL},
        ):
            good = [
                one
                for one in backups
                if one.cluster == cluster
                and one.kind in kinds
                and one.good
                and one.started_at <= _NOW
                and _whole(one, by_id)
            ]
            if good:
                newest = max(good, key=lambda one: one.started_at)
                kept = [one for one in good if one.id in plan.keep]
                assert max(one.started_at for one in kept) == newest.started_at


@settings(max_examples=_EXAMPLES, deadline=None)
@given(histories(), policies)
def test_a_plan_that_was_carried_out_has_nothing_more_to_delete(
    backups: list[Kept], policy: Policy
):
    plan = plan_retention(backups, policy, _NOW)
    rest = [one for one in backups if one.id in plan.keep]
    assert not plan_retention(rest, policy, _NOW).delete


@settings(max_examples=_EXAMPLES, deadline=None)
@given(histories(), policies)
def test_an_interrupted_deletion_never_leaves_an_incremental_without_its_base(
    backups: list[Kept], policy: Policy
):
    going = list(plan_retention(backups, policy, _NOW).delete)
    by_id = {one.id: one for one in backups}
    for place, backup_id in enumerate(going):
        for other in going[place + 1 :]:
            assert by_id[other].parent != backup_id


@settings(max_examples=_EXAMPLES, deadline=None)
@given(histories(), policies, st.randoms(use_true_random=False))
def test_names_and_order_decide_nothing(backups: list[Kept], policy: Policy, random):
    shuffled = list(backups)
    random.shuffle(shuffled)
    assert plan_retention(shuffled, policy, _NOW) == plan_retention(backups, policy, _NOW)


def _daily(days: int) -> list[Kept]:
    return [
        Kept(f"b{day:03}", "a", BackupKind.LOGICAL, _NOW - timedelta(days=day))
        for day in range(days)
    ]


def test_grandfather_father_son_keeps_the_newest_of_each_period():
    plan = plan_retention(_daily(800), Policy(0, 0, 7, 4, 12, 3), _NOW)
    reasons = list(plan.keep.values())
    assert reasons.count(Reason.DAY) == 6  # today's is the last good one
    # 2026-11-22 is a Sunday: this week's newest is today's, so three weeks more.
    assert reasons.count(Reason.WEEK) == 3
    assert reasons.count(Reason.MONTH) == 11
    # That of 2025 is the newest of its month too.
    assert reasons.count(Reason.YEAR) == 1
    assert plan.keep["b000"] is Reason.LAST_GOOD


def test_a_failed_backup_does_not_push_a_good_one_out():
    backups = _daily(5)
    failed = [replace(one, good=False) for one in backups[:3]]
    plan = plan_retention([*failed, *backups[3:]], Policy(days=0, last=1), _NOW)
    assert plan.keep == {"b003": Reason.LAST_GOOD}


def test_a_clock_that_ran_ahead_does_not_make_the_last_good_one():
    future = replace(_daily(1)[0], id="future", started_at=_NOW + timedelta(days=400))
    plan = plan_retention([future, *_daily(3)], Policy(days=0), _NOW)
    assert plan.keep == {"future": Reason.FUTURE, "b000": Reason.LAST_GOOD}


def test_recovery_to_any_moment_of_the_window_keeps_its_base():
    weekly = [
        Kept(f"p{week}", "a", BackupKind.PHYSICAL, _NOW - timedelta(weeks=week))
        for week in range(9)
    ]
    plan = plan_retention(weekly, Policy(days=30), _NOW)
    assert plan.keep["p5"] is Reason.WINDOW
    assert set(plan.delete) == {"p6", "p7", "p8"}


def test_what_cannot_be_read_is_kept():
    unreadable = replace(_daily(1)[0], started_at=_NOW - timedelta(days=900), readable=False)
    assert plan_retention([unreadable], Policy(), _NOW).keep == {"b000": Reason.UNREADABLE}


@pytest.mark.parametrize("days", [0, 30])
def test_the_only_backup_stays_however_old_it_is(days: int):
    old = replace(_daily(1)[0], started_at=_NOW - timedelta(days=3000))
    assert not plan_retention([old], Policy(days=days), _NOW).delete
