"""What is done with dead letters: collect them, send them again, discard them.

Invariant: sending again is decided in PostgreSQL, with its audit entry in the same transaction, and
carried out in the broker under a job id that follows from the letter and its generation. Whatever
is killed in between, the collection sends what was decided, and the broker takes each id once.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid5

from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.redis import translating_errors
from samplemind.connections.resources import Connections
from samplemind.errors import ConflictError, InvalidInputError, NotFoundError
from samplemind.jobs.broker import JobBroker, Message
from samplemind.jobs.envelope import encode_body, encode_message, list_key
from samplemind.jobs.letters import INBOX, DeathCause, Letter, decode_arguments
from samplemind.jobs.wire import queue_for
from samplemind.log import get_logger
from samplemind.models.dead_letter import DeadLetter, DeadLetterState
from samplemind.repositories.audit import AuditLogRepository
from samplemind.repositories.dead_letters import DeadLetterRepository, LetterFilter

_LETTERS_AT_ONCE = 200
_NAME_LENGTH = 500
"""Characters of a job's id and name: an index cannot hold whatever a hostile message has."""

# What text and JSONB of PostgreSQL refuse, though JSON may hold it.
_REFUSED = {0: "\N{REPLACEMENT CHARACTER}"} | dict.fromkeys(
    range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}"
)

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Closing:
    """What came of letters that were to be sent again or discarded."""

    changed: int
    refused: int
    job_ids: tuple[UUID, ...] = ()


async def collect(connections: Connections) -> int:
    """Move letters from the inbox into PostgreSQL; return how many.

    Raises:
        StoreUnavailableError: a store did not answer; what was not moved stays in the inbox.
    """
    moved = 0
    while True:
        with translating_errors():
            found = await connections.broker.xrange(INBOX, count=_LETTERS_AT_ONCE)
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", found)
        if not entries:
            return moved
        letters = [_read(entry_id, fields) for entry_id, fields in entries]

        async def keep(session: AsyncSession, letters: Sequence[dict[str, Any]] = letters) -> None:
            repository = DeadLetterRepository(session)
            for letter in letters:
                await repository.keep(letter)

        await connections.postgres.run(keep, idempotent=True)
        with translating_errors():
            await connections.broker.xdel(INBOX, *(entry_id for entry_id, _ in entries))
        moved += len(entries)
        _log.info("dead_letters_collected", letters=len(entries))


async def publish_replays(connections: Connections) -> int:
    """Send the jobs of letters whose replay was decided and not carried out; return how many."""
    sent = 0
    while True:
        async with connections.postgres.session() as session:
            letters = await DeadLetterRepository(session).unpublished(limit=_LETTERS_AT_ONCE)
        if not letters:
            return sent
        await _publish(connections, letters)
        sent += len(letters)


async def replay(
    connections: Connections, chosen: LetterFilter | UUID, *, actor: str | None = None
) -> Closing:
    """Send open letters again: one, or all that the filter takes.

    A letter that was sent again stays so however often this is called, until its job dies anew.
    Those that cannot be sent (an undecodable message) are counted as refused.

    Args:
        connections: to the stores.
        chosen: the id of one letter, or which of the open ones.
        actor: who asked for it, for the audit log.

    Raises:
        NotFoundError: there is no letter with that id.
        ConflictError: the letter was sent again or discarded already, or cannot be sent.
    """
    if isinstance(chosen, UUID):
        async with connections.postgres.session() as session:
            letter = await _open_letter(session, chosen)
            await _send_again(session, letter, actor)
        await _publish(connections, [letter])
        return Closing(1, 0, (cast("UUID", letter.replay_job_id),))
    return await _each(connections, chosen, _send_again, actor)


async def discard(
    connections: Connections,
    chosen: LetterFilter | UUID,
    *,
    reason: str,
    actor: str | None = None,
) -> Closing:
    """Close open letters without sending them: one, or all that the filter takes.

    Raises:
        InvalidInputError: no reason is given.
        NotFoundError: there is no letter with that id.
        ConflictError: the letter was sent again or discarded already.
    """
    if not reason.strip():
        message = "a reason is needed: whoever looks next wants to know it"
        raise InvalidInputError(message)

    async def close(session: AsyncSession, letter: DeadLetter, actor: str | None) -> None:
        letter.state = DeadLetterState.DISCARDED.value
        letter.closed_at = datetime.now(UTC)
        letter.reason = reason
        await _audit(session, letter, "dead_letter.discard", actor, reason=reason)

    if isinstance(chosen, UUID):
        async with connections.postgres.session() as session:
            await close(session, await _open_letter(session, chosen), actor)
        return Closing(1, 0)
    return await _each(connections, chosen, close, actor)


async def _each(
    connections: Connections, chosen: LetterFilter, close: Any, actor: str | None
) -> Closing:
    """Close what the filter takes, some at a time, so that no transaction is long."""
    # A job that dies anew meanwhile is not sent a second time by the same call.
    before = datetime.now(UTC)
    refused: set[UUID] = set()
    job_ids: list[UUID] = []
    changed = 0
    while True:
        async with connections.postgres.session() as session:
            letters = await DeadLetterRepository(session).lock_some(
                chosen, before=before, limit=_LETTERS_AT_ONCE + len(refused)
            )
            done = []
            for letter in letters:
                if letter.id in refused:
                    continue
                try:
                    await close(session, letter, actor)
                except ConflictError:
                    refused.add(letter.id)
                    continue
                done.append(letter)
        if not done:
            return Closing(changed, len(refused), tuple(job_ids))
        changed += len(done)
        sent = [letter for letter in done if letter.state == DeadLetterState.REPLAYED.value]
        if sent:
            await _publish(connections, sent)
            job_ids += [cast("UUID", letter.replay_job_id) for letter in sent]


async def _open_letter(session: AsyncSession, letter_id: UUID) -> DeadLetter:
    letter = await DeadLetterRepository(session).lock(letter_id)
    if letter is None:
        message = f"no dead letter {letter_id}"
        raise NotFoundError(message)
    if letter.state != DeadLetterState.OPEN.value:
        message = f"dead letter {letter_id} is {letter.state} already"
        raise ConflictError(message)
    return letter


async def _send_again(session: AsyncSession, letter: DeadLetter, actor: str | None) -> None:
    if letter.code == DeathCause.UNDECODABLE.value:
        message = f"dead letter {letter.id} cannot be sent: its message cannot be read"
        raise ConflictError(message)
    letter.generation += 1
    letter.state = DeadLetterState.REPLAYED.value
    letter.replay_job_id = uuid5(letter.id, str(letter.generation))
    letter.published_at = None
    letter.closed_at = datetime.now(UTC)
    await _audit(
        session, letter, "dead_letter.replay", actor, replay_job_id=str(letter.replay_job_id)
    )


async def _audit(
    session: AsyncSession, letter: DeadLetter, action: str, actor: str | None, **facts: str
) -> None:
    await AuditLogRepository(session).record(
        action,
        resource_kind="dead_letter",
        resource_id=str(letter.id),
        details={"task": letter.task, "job_id": letter.job_id, "by": actor or "platform", **facts},
    )


async def _publish(connections: Connections, letters: Sequence[DeadLetter]) -> None:
    messages = [_message(letter) for letter in letters]

    def send() -> None:
        broker = JobBroker(connections.settings.broker)
        try:
            broker.send(messages)
        finally:
            broker.close()

    await asyncio.to_thread(send)
    async with connections.postgres.session() as session:
        await DeadLetterRepository(session).mark_published(
            [UUID(message.job_id) for message in messages]
        )


def _message(letter: DeadLetter) -> Message:
    args, kwargs = decode_arguments(letter.body)
    job_id, queue = str(letter.replay_job_id), queue_for(letter.task).value
    return Message(
        job_id=job_id,
        task=letter.task,
        list_key=list_key(queue),
        text=encode_message(
            letter.task,
            encode_body(kwargs, args),
            job_id=job_id,
            queue=queue,
            schema_version=letter.schema_version,
            replay_of=letter.id,
        ),
    )


def _read(entry_id: bytes, fields: dict[bytes, bytes]) -> dict[str, Any]:
    """Return an entry of the inbox as a row; what is no letter becomes one about itself."""
    try:
        letter = Letter.from_fields(fields)
        arguments = None if letter.cause is DeathCause.UNDECODABLE else _readable(letter.body)
    except (KeyError, ValueError, RecursionError) as error:
        milliseconds = int(entry_id.split(b"-")[0])
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
        letter = Letter(
            job_id=f"inbox {entry_id.decode()}",
            task="",
            body=repr(fields),
            schema_version=1,
            cause=DeathCause.UNDECODABLE,
            error=f"not a letter: {type(error).__name__}: {error}",
            traceback="",
            attempts=0,
            worker="",
            first_failed_at=moment,
            last_failed_at=moment,
        )
        arguments = None
    return {
        "id": letter.id,
        "job_id": letter.job_id.translate(_REFUSED)[:_NAME_LENGTH],
        "task": letter.task.translate(_REFUSED)[:_NAME_LENGTH],
        "body": letter.body.translate(_REFUSED),
        "payload": arguments,
        "schema_version": letter.schema_version,
        "code": letter.cause.value,
        "error": letter.error.translate(_REFUSED),
        "traceback": letter.traceback.translate(_REFUSED) or None,
        "attempts": letter.attempts,
        "worker": letter.worker.translate(_REFUSED),
        "first_failed_at": letter.first_failed_at,
        "last_failed_at": letter.last_failed_at,
    }


def _readable(body: str) -> dict[str, Any]:
    args, kwargs = decode_arguments(body)
    shown = {"args": args, **kwargs} if args else kwargs
    return cast("dict[str, Any]", _without_refused(shown))


def _without_refused(value: Any) -> Any:
    if isinstance(value, str):
        return value.translate(_REFUSED)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name.translate(_REFUSED): _without_refused(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_refused(inner) for inner in value]
    return value
