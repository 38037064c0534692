"""Batches and dead letters in the stores, for the tests and benchmarks of the console."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from samplemind.connections.resources import Connections
from samplemind.documents.batch_item import WAITING, BatchItem, ItemError, ItemState
from samplemind.documents.batch_job import OPEN_BATCHES, BatchJob, BatchState
from samplemind.ids import new_id
from samplemind.jobs import dead_letters
from samplemind.jobs.letters import INBOX, DeathCause, Letter, encode_arguments
from samplemind.repositories.batch_items import BatchItemRepository
from samplemind.repositories.batch_jobs import BatchJobRepository

TRACEBACK = """Traceback (most recent call last):
  File "/app/tasks/search.py", line 41, in index_files
    await drain(connections)
  File "/app/samplemind/search/indexer.py", line 122, in drain
    await merge(session, rows)
samplemind.errors.StoreUnavailableError: PostgreSQL did not answer: connection refused
"""


async def add_batch(
    connections: Connections,
    state: BatchState,
    *,
    done: int = 0,
    failed: int = 0,
    pending: int = 0,
    name: str = "pack",
    age: timedelta = timedelta(minutes=5),
) -> UUID:
    """Store a batch whose failed files come first."""
    await connections.documents()
    batch_id, created_at = new_id(), datetime.now(UTC) - age
    states = [ItemState.FAILED] * failed + [ItemState.DONE] * done + [ItemState.PENDING] * pending
    items = [
        BatchItem(
            batch_id=batch_id,
            seq=seq,
            path=f"/samples/{name}/sound_{seq:02d}.wav",
            state=each,
            due_at=WAITING if each is ItemState.PENDING else None,
            error=ItemError(code="not_audio", message=f"the file is not audio: {name}")
            if each is ItemState.FAILED
            else None,
        )
        for seq, each in enumerate(states)
    ]
    await BatchItemRepository().insert(items)
    ended = state not in OPEN_BATCHES
    begun = None if state is BatchState.PENDING else created_at + timedelta(seconds=2)
    await BatchJobRepository().add(
        BatchJob(
            id=batch_id,
            roots=[f"/samples/{name}"],
            total=len(items),
            chunk_size=32,
            state=state,
            created_at=created_at,
            started_at=begun,
            paused_at=created_at + timedelta(seconds=60) if state is BatchState.PAUSED else None,
            finished_at=created_at + timedelta(seconds=90) if ended else None,
            counts=await BatchItemRepository().count_by_state(batch_id) if ended else None,
        )
    )
    return batch_id


async def add_letters(
    connections: Connections,
    count: int,
    *,
    task: str = "search.index_files",
    error: str = "StoreUnavailableError: PostgreSQL did not answer: connection refused",
    cause: DeathCause = DeathCause.RETRIES_EXHAUSTED,
) -> list[UUID]:
    """Let as many jobs have died as workers would tell of it; return the letters' ids."""
    now = datetime.now(UTC)
    letters = [
        Letter(
            job_id=str(new_id()),
            task=task,
            body=encode_arguments([], {"ids": [str(new_id())]}),
            schema_version=1,
            cause=cause,
            error=error,
            traceback=TRACEBACK,
            attempts=4,
            worker="index@node-3",
            first_failed_at=now - timedelta(minutes=9 + number),
            last_failed_at=now - timedelta(minutes=number),
        )
        for number in range(count)
    ]
    async with connections.broker.pipeline(transaction=False) as pipe:
        for letter in letters:
            pipe.xadd(INBOX, letter.to_fields())
        await pipe.execute()
    await dead_letters.collect(connections)
    return [letter.id for letter in letters]
