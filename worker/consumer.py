"""Messages that no job of this worker takes: they become dead letters instead of a line in a log.

Invariant: the letter is on its way to the inbox before the message is acknowledged.
"""

from typing import Any

from celery.worker.consumer import Consumer

from samplemind.jobs.letters import DeathCause
from worker.dead_letters import bury_message, bury_text, decode_message


class JobConsumer(Consumer):
    """Celery's consumer, which loses nothing that it cannot read."""

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Bury a message whose task is not known here."""
        _bury(message, DeathCause.UNKNOWN_TASK, f"no job of that name: {exc}")
        super().on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Bury a message whose arguments have the wrong form."""
        _bury(message, DeathCause.INVALID_PAYLOAD, f"{type(exc).__name__}: {exc}")
        super().on_invalid_task(body, message, exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Bury a message that is none of Celery's."""
        bury_text(_text(message), "not a message of Celery's", message.headers)
        super().on_unknown_message(body, message)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Bury a message whose content cannot be read."""
        bury_text(_text(message), f"{type(exc).__name__}: {exc}", message.headers)
        super().on_decode_error(message, exc)


def _bury(message: Any, cause: DeathCause, error: str) -> None:
    try:
        args, kwargs = decode_message(message.body)
    except (ValueError, TypeError, RecursionError) as problem:
        bury_text(_text(message), f"{error}; {problem}", message.headers)
    else:
        bury_message(message.headers, args, kwargs, cause, error)


def _text(message: Any) -> bytes | str:
    body = message.body
    return body if isinstance(body, (bytes, str)) else repr(body)
