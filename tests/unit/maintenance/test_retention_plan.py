from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from samplemind.maintenance.retention import (
    Group,
    Holds,
    Policy,
    cutoff,
    plan_policy,
    policies,
)
from samplemind.settings import RetentionSettings

NOW = datetime(2026, 11, 25, 3, 30, tzinfo=UTC)
USERS = [UUID(int=number) for number in range(4)]
TAGS = ["kick", "snare", "pad"]


@st.composite
def groups(draw: st.DrawFn) -> Group:
    oldest = NOW - timedelta(seconds=draw(st.integers(0, 400 * 86_400)))
    return Group(
        oldest=oldest,
        newest=min(NOW, oldest + timedelta(seconds=draw(st.integers(0, 86_400)))),
        rows=draw(st.integers(1, 1000)),
        size_bytes=draw(st.integers(0, 10_000)),
        owner=draw(st.sampled_from([None, *USERS])),
        tags=draw(st.frozensets(st.sampled_from(TAGS))),
        ownerless=draw(st.booleans()),
    )


holds = st.builds(
    Holds, st.frozensets(st.sampled_from(USERS)), st.frozensets(st.sampled_from(TAGS))
)
kept_days = st.integers(1, 500).map(lambda days: Policy("a", timedelta(days=days), "old things"))


def may_go(group: Group, held: Holds) -> bool:
    if group.ownerless:  # whose it was can't be told, so any hold may be on it
        return not held.users and not held.tags
    return group.owner not in held.users and group.tags.isdisjoint(held.tags)


@given(kept_days, st.lists(groups()), holds)
def test_nothing_young_and_nothing_held_goes_and_all_else_does(policy, found, held):
    plan = plan_policy(policy, found, held, NOW)
    going = [group for group in found if group.newest < plan.cutoff and may_go(group, held)]
    assert plan.rows == sum(group.rows for group in going)
    assert plan.size_bytes == sum(group.size_bytes for group in going)
    assert plan.newest is None or plan.newest < plan.cutoff <= NOW - policy.keep
    old = sum(group.rows for group in found if group.newest < plan.cutoff)
    assert plan.held_rows == old - plan.rows


@given(kept_days, st.lists(groups()), holds, st.sampled_from(USERS))
def test_one_more_hold_never_lets_more_go(policy, found, held, user):
    more = Holds(held.users | {user}, held.tags)
    plan, held_plan = (plan_policy(policy, found, each, NOW) for each in (held, more))
    assert held_plan.rows <= plan.rows
    assert held_plan.rows + held_plan.held_rows == plan.rows + plan.held_rows


@given(st.lists(groups()), st.integers(1, 300), st.integers(0, 200))
def test_keeping_longer_never_takes_more(found, days, longer):
    short = Policy("a", timedelta(days=days), "old things")
    long = Policy("a", timedelta(days=days + longer), "old things")
    assert (
        plan_policy(long, found, Holds(), NOW).rows <= plan_policy(short, found, Holds(), NOW).rows
    )


def test_a_cutoff_is_the_start_of_a_day_so_that_days_go_whole():
    policy = Policy("a", timedelta(days=30), "old things")
    assert cutoff(policy, NOW) == datetime(2026, 10, 26, tzinfo=UTC)


def test_every_policy_says_what_it_takes_and_keeps_it_for_a_while():
    for policy in policies(RetentionSettings()).values():
        assert policy.keep >= timedelta(hours=1)
        assert policy.reason
