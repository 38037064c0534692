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
    hand_out,
    pause,
    plan,
    progress,
    record,
    release,
    resume,
    retry_failed,
    stalled,
)
from samplemind.batches.outcomes import ItemOutcome
from samplemind.connections.resources import Connections
from samplemind.documents import BatchItem, BatchJob, ItemError, ItemState
from samplemind.documents.batch_item import WAITING
from samplemind.errors import ConflictError
from samplemind.ids import new_id
from samplemind.settings import Settings

SIZE = 6
CHUNK = 2
WINDOW = 2
JOBS = ("one", "two")


@dataclass
class ModelItem:
    state: str = "pending"
    token: object = None
    job: str | None = None
    expired: bool = False
    waiting: bool = False


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
        self.owner = new_id()  # other tests' batches have other owners
        self.batch = self.loop.run(
            plan(self.connections, paths, owner_id=self.owner, chunk_size=CHUNK)
        )
        self.items = [ModelItem(waiting=True) for _ in range(SIZE)]
        self.state = "pending"
        self.begun = False

    @rule(target=claims, job=st.sampled_from(JOBS), first=st.integers(0, SIZE - 1))
    def deliver(self, job: str, first: int) -> Any:
        taken = self.loop.run(
            claim(self.connections, self.batch.batch_id, first, SIZE - 1, job_id=job)
        )
        free = [
            seq
            for seq, item in enumerate(self.items)
            if seq >= first
            and self._may_begin()
            and (
                item.state == "pending"
                or (item.state == "claimed" and (item.expired or item.job == job))
            )
        ]
        assert [item.seq for item in taken.items] == free
        for seq in free:
            self.items[seq] = ModelItem("claimed", taken.token, job)
        if self.state == "pending":
            self.state, self.begun = "running", True
        return taken if taken.items else multiple()

    @rule()
    def feed(self) -> None:
        """Whoever feeds hands out the first chunks that wait, up to the window."""
        handed_out = self.loop.run(hand_out(self.connections, self.owner))
        queued = sum(item.state == "pending" and not item.waiting for item in self.items)
        room = WINDOW - -(-queued // CHUNK) if self._may_begin() else 0
        numbers = sorted({seq // CHUNK for seq, item in enumerate(self.items) if item.waiting})
        expected = numbers[: max(0, room)]
        assert [each.chunk.first // CHUNK for each in handed_out] == expected
        for seq, item in enumerate(self.items):
            if item.waiting and seq // CHUNK in expected:
                self.items[seq] = ModelItem()

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
            item.expired = item.state in ("pending", "claimed") and not item.waiting

    @rule()
    def rescue(self) -> None:
        handed_out = self.loop.run(stalled(self.connections))
        lost = [seq for seq, item in enumerate(self.items) if item.expired]
        paused = self.state == "paused"
        numbers = [] if paused else sorted({seq // CHUNK for seq in lost})
        assert [each.chunk.first // CHUNK for each in handed_out] == numbers
        for seq in lost:
            self.items[seq] = ModelItem(waiting=paused)
        if self._may_end():
            self.state = "finished"

    @rule()
    def end(self) -> None:
        expected = self._may_end()
        assert self.loop.run(finish(self.connections, self.batch.batch_id)) == expected
        if expected:
            self.state = "finished"

    @rule()
    def pause_all(self) -> None:
        expected = self._may_begin()
        assert self.loop.run(pause(self.connections, self.batch.batch_id)) == expected
        self._take_back()
        if expected:
            self.state = "paused"

    @rule()
    def resume_all(self) -> None:
        expected = self.state == "paused"
        assert self.loop.run(resume(self.connections, self.batch.batch_id)) == expected
        self._take_back()
        if expected:
            self.state = "running" if self.begun else "pending"

    @rule(sure=st.integers(0, 9))
    def cancel_all(self, sure: int) -> None:
        if sure:  # seldom, because little can happen afterwards
            return
        expected = self.state in ("pending", "running", "paused")
        assert self.loop.run(cancel(self.connections, self.batch.batch_id)) == expected
        if expected:
            self.state = "cancelled"
            for seq, item in enumerate(self.items):
                if item.state in ("pending", "claimed"):
                    self.items[seq] = ModelItem("cancelled")

    @precondition(lambda self: any(item.state == "failed" for item in self.items))
    @rule()
    def retry(self) -> None:
        failed = [seq for seq, item in enumerate(self.items) if item.state == "failed"]
        try:
            opened = self.loop.run(retry_failed(self.connections, self.batch.batch_id))
        except ConflictError:
            assert self.state == "cancelled"
            return
        assert opened == len(failed)
        self.state = "paused" if self.state == "paused" else "running"
        for seq in failed:
            self.items[seq] = ModelItem()
        self._take_back()

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

    def _may_begin(self) -> bool:
        return self.state in ("pending", "running")

    def _may_end(self) -> bool:
        is_open = any(item.state in ("pending", "claimed") for item in self.items)
        return self.state in ("pending", "running", "paused") and not is_open

    def _take_back(self) -> None:
        for seq, item in enumerate(self.items):
            if item.state == "pending":
                self.items[seq] = ModelItem(waiting=True)

    async def _expire(self) -> None:
        await BatchItem.get_pymongo_collection().update_many(
            {"batch_id": self.batch.batch_id, "due_at": {"$lt": WAITING}},
            [{"$set": {"due_at": {"$subtract": ["$$NOW", 60_000]}}}],
        )

    async def _forget(self) -> None:
        await BatchJob.get_pymongo_collection().delete_one({"_id": self.batch.batch_id})
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
