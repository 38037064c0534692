"""Dead letters from the inbox to PostgreSQL, and from there back into a queue or out of sight."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from samplemind.connections.resources import Connections
from samplemind.errors import ConflictError, InvalidInputError, NotFoundError
from samplemind.jobs import dead_letters
from samplemind.jobs.letters import INBOX, DeathCause, Letter, encode_arguments
from samplemind.models.dead_letter import DeadLetter, DeadLetterState
from samplemind.repositories.audit import AuditLogRepository
from samplemind.repositories.dead_letters import DeadLetterRepository, LetterFilter

INDEX_LIST = "sm:index"


def letter(**changes: Any) -> Letter:
    moment = datetime.now(UTC) - timedelta(seconds=5)
    facts: dict[str, Any] = {
        "job_id": str(uuid4()),
        "task": "search.index_files",
        "body": encode_arguments([], {"ids": [str(uuid4())]}),
        "schema_version": 1,
        "cause": DeathCause.FAILED,
        "error": "ValueError: no",
        "traceback": "Traceback …",
        "attempts": 3,
        "worker": "index@here",
        "first_failed_at": moment,
        "last_failed_at": moment,
        **changes,
    }
    return Letter(**facts)


async def write(connections: Connections, *letters: Letter) -> None:
    for written in letters:
        await connections.broker.xadd(INBOX, written.to_fields())  # type: ignore[arg-type]


async def stored(connections: Connections, **chosen: Any) -> list[DeadLetter]:
    async with connections.postgres.session() as session:
        wanted = LetterFilter(**{"state": None, **chosen})
        return list(await DeadLetterRepository(session).find(wanted, limit=1000))


async def queued(connections: Connections) -> list[dict[str, Any]]:
    return [json.loads(text) for text in await connections.broker.lrange(INDEX_LIST, 0, -1)]


async def test_a_letter_is_collected_whole_and_once(connections: Connections) -> None:
    written = letter()
    await write(connections, written, written)

    assert await dead_letters.collect(connections) == 2

    (row,) = await stored(connections)
    assert (row.id, row.job_id, row.task) == (written.id, written.job_id, written.task)
    assert (row.body, row.payload) == (written.body, json.loads(written.body)[1])
    assert (row.code, row.error, row.attempts, row.worker) == (
        "failed",
        written.error,
        3,
        "index@here",
    )
    assert (row.first_failed_at, row.occurrences) == (written.first_failed_at, 1)
    assert await connections.broker.xlen(INBOX) == 0


async def test_an_inbox_that_was_moved_and_not_cleared_adds_nothing(
    connections: Connections,
) -> None:
    written = letter()
    await write(connections, written)
    await dead_letters.collect(connections)
    await dead_letters.discard(connections, written.id, reason="known")
    await write(connections, written)  # as if the collector was killed before XDEL

    await dead_letters.collect(connections)

    (row,) = await stored(connections)
    assert (row.state, row.occurrences) == ("discarded", 1)


async def test_what_postgresql_cannot_hold_does_not_block_the_inbox(
    connections: Connections,
) -> None:
    args = ["\x00", "\ud800", float("inf"), {"k\x00": "v"}]
    await write(
        connections,
        letter(body=encode_arguments(args, {"n": "\x00"})),
        letter(body="\x00\x01 no JSON", cause=DeathCause.UNDECODABLE, task="\x00" * 5000),
        letter(body="[" * 50_000),
    )
    await connections.broker.xadd(INBOX, {"hostile": b"\xff\x00"})

    assert await dead_letters.collect(connections) == 4

    rows = await stored(connections)
    assert len(rows) == 4
    (exact,) = [row for row in rows if row.payload is not None]
    assert exact.body == encode_arguments(args, {"n": "\x00"})


async def test_a_replay_sends_the_same_arguments_under_an_id_that_follows(
    connections: Connections,
) -> None:
    written = letter()
    await write(connections, written)
    await dead_letters.collect(connections)

    closing = await dead_letters.replay(connections, written.id, actor="ada")

    (message,) = await queued(connections)
    assert message["headers"]["id"] == str(closing.job_ids[0])
    assert message["headers"]["samplemind_replay_of"] == str(written.id)
    (row,) = await stored(connections)
    assert (row.state, row.generation) == ("replayed", 1)
    assert row.published_at is not None
    async with connections.postgres.session() as session:
        (entry,) = await AuditLogRepository(session).of_resource("dead_letter", str(row.id))
    assert entry.action == "dead_letter.replay"
    assert entry.details["by"] == "ada"


async def test_a_letter_that_is_replayed_by_many_at_once_is_sent_once(
    connections: Connections,
) -> None:
    written = letter()
    await write(connections, written)
    await dead_letters.collect(connections)

    async def one() -> bool:
        try:
            await dead_letters.replay(connections, written.id)
        except ConflictError:
            return False
        return True

    many = dead_letters.replay(connections, LetterFilter())
    outcomes = await asyncio.gather(one(), one(), one(), one(), many, return_exceptions=True)

    assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(await queued(connections)) == 1


async def test_a_replay_that_was_killed_before_it_was_sent_is_sent_by_the_collection_once(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = letter()
    await write(connections, written)
    await dead_letters.collect(connections)

    async def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dead_letters, "_publish", die)
        with pytest.raises(KeyboardInterrupt):
            await dead_letters.replay(connections, written.id)
    assert await queued(connections) == []

    assert await dead_letters.publish_replays(connections) == 1
    assert await dead_letters.publish_replays(connections) == 0
    assert len(await queued(connections)) == 1


async def test_a_replay_that_was_killed_after_it_was_sent_is_not_sent_again(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = letter()
    await write(connections, written)
    await dead_letters.collect(connections)

    async def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DeadLetterRepository, "mark_published", die)
        with pytest.raises(KeyboardInterrupt):
            await dead_letters.replay(connections, written.id)

    assert await dead_letters.publish_replays(connections) == 1
    assert len(await queued(connections)) == 1


async def test_a_replayed_job_that_dies_again_opens_its_letter_again(
    connections: Connections,
) -> None:
    written = letter()
    await write(connections, written)
    await dead_letters.collect(connections)
    first = await dead_letters.replay(connections, written.id)
    await write(
        connections,
        letter(
            job_id=str(first.job_ids[0]),
            replay_of=written.id,
            last_failed_at=datetime.now(UTC) + timedelta(seconds=1),
        ),
    )
    await dead_letters.collect(connections)

    (row,) = await stored(connections, state=DeadLetterState.OPEN)
    assert (row.id, row.occurrences) == (written.id, 2)
    second = await dead_letters.replay(connections, written.id)
    assert second.job_ids != first.job_ids


async def test_a_filter_replays_what_it_names_and_leaves_what_cannot_be_sent(
    connections: Connections,
) -> None:
    other = letter(task="search.delete_files")
    broken = letter(cause=DeathCause.UNDECODABLE, body="?")
    await write(connections, other, broken, *(letter() for _ in range(450)))
    await dead_letters.collect(connections)

    closing = await dead_letters.replay(connections, LetterFilter(task="search.index_files"))

    assert (closing.changed, closing.refused) == (450, 1)
    assert len({message["headers"]["id"] for message in await queued(connections)}) == 450
    assert {row.id for row in await stored(connections, state=DeadLetterState.OPEN)} == {
        other.id,
        broken.id,
    }


async def test_a_letter_is_discarded_with_a_reason_and_never_sent(
    connections: Connections,
) -> None:
    written = letter()
    await write(connections, written)
    await dead_letters.collect(connections)
    with pytest.raises(InvalidInputError):
        await dead_letters.discard(connections, written.id, reason="  ")

    await dead_letters.discard(connections, written.id, reason="the file is gone")

    with pytest.raises(ConflictError):
        await dead_letters.replay(connections, written.id)
    with pytest.raises(NotFoundError):
        await dead_letters.replay(connections, uuid4())
    assert await queued(connections) == []
    async with connections.postgres.session() as session:
        (entry,) = await AuditLogRepository(session).of_action("dead_letter.discard")
    assert entry.details["reason"] == "the file is gone"


async def test_letters_are_found_by_task_time_and_text(connections: Connections) -> None:
    old = letter(last_failed_at=datetime.now(UTC) - timedelta(days=3), error="odd 100% thing")
    new = letter(task="search.delete_files")
    await write(connections, old, new)
    await dead_letters.collect(connections)

    async def ids(**chosen: Any) -> set[Any]:
        return {row.id for row in await stored(connections, **chosen)}

    assert await ids(task=new.task) == {new.id}
    assert await ids(since=datetime.now(UTC) - timedelta(days=1)) == {new.id}
    assert await ids(text="100% THING") == {old.id}
    assert await ids(text="10_% thing") == set()
    assert await ids(text=new.job_id) == {new.id}
