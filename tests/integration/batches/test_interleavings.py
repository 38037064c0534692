"""Any order of claims, crashes, late writes, cancellations and retries, against a plain model."""

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from samplemind.batches import (
    Claim,
    cancel,
    claim,
    finish,
    plan,
    progress,
    record,
    release,
    retry_failed,
    stalled,
)
from samplemind.batches.outcomes import ItemOutcome
from samplemind.connections.resources import Connections
from samplemind.documents import BatchItem, ItemError, ItemState
from samplemind.errors import ConflictError
from samplemind.settings import Settings

SIZE = 6
JOBS = ("one", "two")


@dataclass
class ModelItem:
    state: str = "pending"
    token: object = None
    job: str | None = None
    expired: bool = False


class Loop:
    """An event loop in a thread, as a worker process has one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class BatchMachine(RuleBasedStateMachine):
    """One batch, two jobs that may each be delivered many times, and a rescuer."""

    loop: Loop
    connections: Connections
    claims: Bundle[Claim] = Bundle("claims")

    @initialize()
    def submit(self) -> None:
        paths = [Path(f"/music/{number}.wav") for number in range(SIZE)]
        self.batch = self.loop.run(plan(self.connections, paths, owner_id=None, chunk_size=SIZE))
        self.items = [ModelItem() for _ in range(SIZE)]
        self.state = "pending"

    @rule(target=claims, job=st.sampled_from(JOBS), first=st.integers(0, SIZE - 1))
    def deliver(self, job: str, first: int) -> Any:
        taken = self.loop.run(
            claim(self.connections, self.batch.batch_id, first, SIZE - 1, job_id=job)
        )
        free = [
            seq
            for seq, item in enumerate(self.items)
            if seq >= first
            and self.state in ("pending", "running")
            and (
                item.state == "pending"
                or (item.state == "claimed" and (item.expired or item.job == job))
            )
        ]
        assert [item.seq for item in taken.items] == free
        for seq in free:
            self.items[seq] = ModelItem("claimed", taken.token, job)
        if self.state == "pending":
            self.state = "running"
        return taken if taken.items else multiple()

    @rule(taken=claims, data=st.data())
    def store(self, taken: Claim, data: st.DataObject) -> None:
        """A worker stores some outcomes, however late, and maybe not for the first time."""
        some = data.draw(st.lists(st.sampled_from(taken.items), unique=True))
        failed = data.draw(st.booleans())
        state = ItemState.FAILED if failed else ItemState.DONE
        error = ItemError(code="rejected:empty", message="It is empty.") if failed else None
        outcomes = [ItemOutcome(item, state, error) for item in some]
        stored = self.loop.run(record(self.connections, taken, outcomes))
        held = [item.seq for item in some if self.items[item.seq].token == taken.token]
        assert stored.finished == len(held)
        for seq in held:
            self.items[seq] = ModelItem(state.value)

    @rule(taken=claims)
    def give_back(self, taken: Claim) -> None:
        released = self.loop.run(release(self.connections, taken))
        held = [seq for seq, item in enumerate(self.items) if item.token == taken.token]
        assert released == len(held)
        for seq in held:
            self.items[seq] = ModelItem()

    @rule()
    def let_time_pass(self) -> None:
        self.loop.run(self._expire())
        for item in self.items:
            item.expired = item.state in ("pending", "claimed")

    @rule()
    def rescue(self) -> None:
        handed_out = self.loop.run(stalled(self.connections))
        lost = [seq for seq, item in enumerate(self.items) if item.expired]
        assert handed_out == ([(self.batch.batch_id, 0, SIZE - 1)] if lost else [])
        for seq in lost:
            self.items[seq] = ModelItem()
        if self._may_end():
            self.state = "finished"

    @rule()
    def end(self) -> None:
        expected = self._may_end()
        assert self.loop.run(finish(self.connections, self.batch.batch_id)) == expected
        if expected:
            self.state = "finished"

    @rule(sure=st.integers(0, 9))
    def cancel_all(self, sure: int) -> None:
        if sure:  # seldom, because little can happen afterwards
            return
        expected = self.state in ("pending", "running")
        assert self.loop.run(cancel(self.connections, self.batch.batch_id)) == expected
        if expected:
            self.state = "cancelled"
            for seq, item in enumerate(self.items):
                if item.state in ("pending", "claimed"):
                    self.items[seq] = ModelItem("cancelled")

    @precondition(lambda self: any(item.state == "failed" for item in self.items))
    @rule()
    def retry(self) -> None:
        try:
            chunks = self.loop.run(retry_failed(self.connections, self.batch.batch_id))
        except ConflictError:
            assert self.state == "cancelled"
            return
        assert chunks == [(0, SIZE - 1)]
        self.state = "running"
        for seq, item in enumerate(self.items):
            if item.state == "failed":
                self.items[seq] = ModelItem()

    @invariant()
    def every_item_is_where_the_model_says(self) -> None:
        if not hasattr(self, "batch"):
            return
        state = self.loop.run(progress(self.connections, self.batch.batch_id))
        assert state.state == self.state
        counted = {name: getattr(state, name) for name in map(str, ItemState)}
        assert counted == {
            name: sum(item.state == name for item in self.items) for name in map(str, ItemState)
        }
        assert sum(counted.values()) == state.total == SIZE

    def teardown(self) -> None:
        if hasattr(self, "batch"):
            self.loop.run(self._forget())

    def _may_end(self) -> bool:
        is_open = any(item.state in ("pending", "claimed") for item in self.items)
        return self.state in ("pending", "running") and not is_open

    async def _expire(self) -> None:
        await BatchItem.get_pymongo_collection().update_many(
            {"batch_id": self.batch.batch_id, "due_at": {"$ne": None}},
            [{"$set": {"due_at": {"$subtract": ["$$NOW", 60_000]}}}],
        )

    async def _forget(self) -> None:
        await BatchItem.get_pymongo_collection().delete_many({"batch_id": self.batch.batch_id})


def test_any_interleaving_keeps_to_the_model(migrated: Settings) -> None:
    loop = Loop()
    opened = Connections(migrated)
    try:
        loop.run(opened.documents())
        machine = type("BoundMachine", (BatchMachine,), {"loop": loop, "connections": opened})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=25,
                stateful_step_count=25,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        loop.run(opened.aclose())
        loop.close()
