"""Limits per key, against a plain model and against workers that die."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from samplemind.connections.resources import Connections
from samplemind.ids import new_id
from samplemind.limit import Limit
from samplemind.limits import Place, enter, extend, leave, owner_key, room
from samplemind.settings import Settings

LONG_S = 60.0
HOLDERS = ("a", "b", "c", "d")


def place(key: str, holder: str) -> Place:
    return Place(key, holder, new_id().hex)


async def test_a_place_is_free_again_when_its_holder_left_or_died(connections: Connections) -> None:
    broker, one = connections.broker, Limit(running=1)
    first = place("k", "first")
    assert await enter(broker, first, one, lease_s=LONG_S) is None
    wait_s = await enter(broker, place("k", "second"), one, lease_s=LONG_S)
    assert wait_s is not None
    assert 0 < wait_s <= LONG_S
    await leave(broker, first)
    assert await enter(broker, place("k", "dies"), one, lease_s=0.2) is None
    deadline = time.monotonic() + 5
    while await enter(broker, place("k", "third"), one, lease_s=LONG_S) is not None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_redelivered_job_takes_its_own_place_over_and_its_first_run_leaves_it(
    connections: Connections,
) -> None:
    broker, one = connections.broker, Limit(running=1, per_minute=1)
    frozen, again = place("k", "job"), place("k", "job")
    assert await enter(broker, frozen, one, lease_s=LONG_S) is None
    assert await enter(broker, again, one, lease_s=LONG_S) is None

    await leave(broker, frozen)
    assert not await extend(broker, frozen, lease_s=LONG_S)

    assert await extend(broker, again, lease_s=LONG_S)
    assert await room(broker, "k", one) == 0


async def test_no_more_begin_in_a_minute_than_allowed_and_keys_do_not_share(
    connections: Connections,
) -> None:
    broker, two = connections.broker, Limit(per_minute=2)
    for holder in ("a", "b"):
        inside = place("k", holder)
        assert await enter(broker, inside, two, lease_s=LONG_S) is None
        await leave(broker, inside)
    wait_s = await enter(broker, place("k", "c"), two, lease_s=LONG_S)
    assert wait_s is not None
    assert 50 < wait_s <= 60
    assert await enter(broker, place("other", "c"), two, lease_s=LONG_S) is None


async def test_of_many_at_once_as_many_enter_as_may(connections: Connections) -> None:
    limit = Limit(running=5)
    asked = [
        enter(connections.broker, place("k", str(number)), limit, lease_s=LONG_S)
        for number in range(40)
    ]
    assert sum(wait is None for wait in await asyncio.gather(*asked)) == 5


async def test_nothing_is_left_of_a_key_that_nobody_uses(connections: Connections) -> None:
    inside = place(owner_key(None), "job")
    await enter(connections.broker, inside, Limit(1, 100), lease_s=LONG_S)
    await leave(connections.broker, inside)
    for key in await connections.broker.keys("sm:limit:*"):
        assert 0 < await connections.broker.ttl(key) <= 61
    assert not await connections.broker.keys("sm:limit:running:*")


class LimitMachine(RuleBasedStateMachine):
    """Holders that enter, extend, leave and die, in any order."""

    loop: asyncio.AbstractEventLoop
    connections: Connections

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    @initialize(running=st.integers(0, 3), per_minute=st.integers(0, 5))
    def begin(self, running: int, per_minute: int) -> None:
        self.limit = Limit(running, per_minute)
        self.key = new_id().hex
        self.inside: dict[str, Place] = {}
        self.left: list[Place] = []
        self.begun = 0

    @rule(holder=st.sampled_from(HOLDERS))
    def enter(self, holder: str) -> None:
        new = place(self.key, holder)
        wait_s = self.run(enter(self.connections.broker, new, self.limit, lease_s=LONG_S))
        again = holder in self.inside
        full = self.limit.running and len(self.inside) >= self.limit.running
        used_up = self.limit.per_minute and self.begun >= self.limit.per_minute
        assert (wait_s is None) == (again or not (full or used_up))
        if wait_s is None:
            self.begun += not again
            self.left += [self.inside[holder]] if again else []
            self.inside[holder] = new

    @rule(holder=st.sampled_from(HOLDERS))
    def leave(self, holder: str) -> None:
        gone = self.inside.pop(holder, None)
        if gone is not None:
            self.run(leave(self.connections.broker, gone))
            self.left.append(gone)

    @rule(holder=st.sampled_from(HOLDERS))
    def die(self, holder: str) -> None:
        """Its lease ends at once, as if its time had passed."""
        gone = self.inside.pop(holder, None)
        if gone is not None:
            key, member = f"sm:limit:running:{self.key}", f"{gone.holder} {gone.token}"
            self.run(self.connections.broker.zadd(key, {member: 1}))
            self.left.append(gone)

    @rule()
    def extend_all(self) -> None:
        for held in self.inside.values():
            assert self.run(extend(self.connections.broker, held, lease_s=LONG_S))
        for gone in self.left:
            assert not self.run(extend(self.connections.broker, gone, lease_s=LONG_S))
            self.run(leave(self.connections.broker, gone))

    @rule()
    def look(self) -> None:
        found = self.run(room(self.connections.broker, self.key, self.limit))
        free = [
            most - used
            for most, used in (
                (self.limit.running, len(self.inside)),
                (self.limit.per_minute, self.begun),
            )
            if most
        ]
        assert found == (max(0, min(free)) if free else None)


def test_any_order_of_entering_leaving_and_dying_keeps_to_the_model(migrated: Settings) -> None:
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        opened = Connections(migrated)
        machine = type("BoundMachine", (LimitMachine,), {"loop": loop, "connections": opened})
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=40,
                    stateful_step_count=30,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(opened.aclose())
