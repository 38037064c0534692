"""The inbox of dead letters: a stream in the broker that takes them at once and in any weather.

Invariant: a letter is in the stream before its message leaves the broker, and leaves the stream
after PostgreSQL has it. Its id follows from what failed, so a letter that is written or moved twice
is one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from samplemind.jobs.payloads import payload_of
from samplemind.jobs.wire import KEY_PREFIX

INBOX = f"{KEY_PREFIX}dead_letters"

_NAMESPACE = uuid5(NAMESPACE_URL, "samplemind:dead-letter")
_TEXT_LENGTH = 20_000
"""Characters kept of an error and of a traceback: its end, which names the cause."""


class DeathCause(StrEnum):
    """Why a job will not run again by itself."""

    FAILED = "failed"  # an error that trying again does not mend
    RETRIES_EXHAUSTED = "retries_exhausted"
    GIVEN_UP = "given_up"  # its workers died with it, again and again
    TIMED_OUT = "timed_out"
    INVALID_PAYLOAD = "invalid_payload"
    UNKNOWN_TASK = "unknown_task"
    UNDECODABLE = "undecodable"  # it cannot be sent again: nobody can tell what it is


@dataclass(frozen=True, slots=True)
class Letter:
    """What is told of one job that died.

    `body` is the JSON of the job's arguments and named arguments, or an undecodable message as far
    as it is text.
    """

    job_id: str
    task: str
    body: str
    schema_version: int
    cause: DeathCause
    error: str
    traceback: str
    attempts: int
    worker: str
    first_failed_at: datetime
    last_failed_at: datetime
    replay_of: UUID | None = None

    @property
    def id(self) -> UUID:
        """What a job dies of once is one letter; so is what housekeeping dies of all night, and
        what dies again after it was sent again.
        """
        if self.replay_of is not None:
            return self.replay_of
        payload = payload_of(self.task)
        again = payload is not None and payload.housekeeping
        return uuid5(_NAMESPACE, f"{self.task if again else self.job_id}\n{self.cause.value}")

    def to_fields(self) -> dict[str, str]:
        """Return the letter as the stream holds it."""
        return {
            "job_id": self.job_id,
            "task": self.task,
            "body": self.body,
            "schema_version": str(self.schema_version),
            "cause": self.cause.value,
            "error": self.error[-_TEXT_LENGTH:],
            "traceback": self.traceback[-_TEXT_LENGTH:],
            "attempts": str(self.attempts),
            "worker": self.worker,
            "first_failed_at": self.first_failed_at.isoformat(),
            "last_failed_at": self.last_failed_at.isoformat(),
            "replay_of": str(self.replay_of or ""),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> "Letter":
        """Read a letter from the stream."""
        text = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
        return cls(
            job_id=text["job_id"],
            task=text["task"],
            body=text["body"],
            schema_version=int(text["schema_version"]),
            cause=DeathCause(text["cause"]),
            error=text["error"],
            traceback=text["traceback"],
            attempts=int(text["attempts"]),
            worker=text["worker"],
            first_failed_at=datetime.fromisoformat(text["first_failed_at"]),
            last_failed_at=datetime.fromisoformat(text["last_failed_at"]),
            replay_of=UUID(text["replay_of"]) if text["replay_of"] else None,
        )


def encode_arguments(args: list[Any], kwargs: Mapping[str, Any]) -> str:
    """Return a letter's body."""
    return json.dumps([args, dict(kwargs)])


def decode_arguments(body: str) -> tuple[list[Any], dict[str, Any]]:
    """Read a letter's body.

    Raises:
        ValueError: it is no such JSON.
    """
    args, kwargs = json.loads(body)
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        message = "the body is not a list of arguments and an object of named ones"
        raise ValueError(message)
    return args, kwargs


def now() -> datetime:
    """Return the time that a letter is dated with."""
    return datetime.now(UTC)
