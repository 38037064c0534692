"""Letters about jobs that die in this worker, in a process of the pool or before they reach one.

Invariant: a letter is on its way to the inbox before its message is acknowledged: a pool process
writes it before its job ends, and the main process hands it to the ledger, which tells Redis in
order and never forgets.
"""

import json
import socket
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from samplemind.jobs.envelope import REPLAY_HEADER, SCHEMA_HEADER
from samplemind.jobs.letters import INBOX, DeathCause, Letter, encode_arguments, now
from samplemind.jobs.state import END, JobState
from samplemind.log import get_logger
from samplemind.settings import get_settings
from worker.broker import connect_broker
from worker.ledger import Command, ledger

_log = get_logger(__name__)


def letter_about(
    headers: Mapping[str, Any],
    body: str,
    cause: DeathCause,
    error: str,
    *,
    traceback: str = "",
    attempts: int = 1,
    worker: str = "",
) -> Letter:
    """Return the letter about a message with these headers, whoever sent it."""
    moment = now()
    return Letter(
        job_id=str(headers.get("id", "")),
        task=str(headers.get("task", "")),
        body=body,
        schema_version=schema_version(headers),
        cause=cause,
        error=error,
        traceback=traceback,
        attempts=attempts,
        worker=worker or socket.gethostname(),
        first_failed_at=moment,
        last_failed_at=moment,
        replay_of=_uuid(headers.get(REPLAY_HEADER)),
    )


def schema_version(headers: Mapping[str, Any]) -> int:
    """Return the version of a message's payload: 1 where its producer says none, or nonsense."""
    version = headers.get(SCHEMA_HEADER)
    return version if isinstance(version, int) and 0 < version < 2**31 else 1


def bury_message(
    headers: Mapping[str, Any], args: Any, kwargs: Any, cause: DeathCause, error: str
) -> None:
    """Write about a message that no job takes; in the main process, before it is acknowledged."""
    body = encode_arguments(list(args or ()), dict(kwargs or {}))
    _post(letter_about(headers, body, cause, error))


def bury_text(text: bytes | str, error: str, headers: Mapping[str, Any] | None = None) -> None:
    """Write about a message that cannot be read."""
    shown = text if isinstance(text, str) else text.decode(errors="backslashreplace")
    facts = dict(headers or {})
    # Without an id, the text itself tells one unreadable message from another.
    facts.setdefault("id", f"unreadable {hash(shown):x} {now().isoformat()}")
    _post(letter_about(facts, shown, DeathCause.UNDECODABLE, error))


def post(*commands: Command) -> None:
    """Run commands from the main process, now or as soon as Redis is there."""
    ledger.postpone(*commands)
    with connect_broker(get_settings().broker) as client:
        ledger.try_to_tell(client)


def _post(letter: Letter) -> None:
    _log.error("job_died", job=letter.task, job_id=letter.job_id, cause=letter.cause.value)
    fields = [value for pair in letter.to_fields().items() for value in pair]
    # The job's state is written with its letter, for whoever waits for it.
    ended = (letter.job_id, letter.task, JobState.DEAD.value, letter.error, "", INBOX)
    post(("EVAL", END, 0, *ended, *fields))


def _uuid(text: object) -> UUID | None:
    try:
        return None if text is None else UUID(str(text))
    except ValueError:
        return None


def decode_message(body: bytes | str | memoryview) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a message of protocol 2.

    Raises:
        ValueError: it is none.
    """
    text = bytes(body) if isinstance(body, memoryview) else body
    args, kwargs, _ = json.loads(text)
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        message = "the body has no arguments"
        raise ValueError(message)
    return args, kwargs
