"""Publishing a job at most once, whoever tries and however often.

Invariant: the broker takes the message and notes that it did in one step, so there is no moment in
which one is true and the other is not.
"""

from typing import Any
from uuid import UUID

from celery import Celery
from kombu import Producer
from kombu.exceptions import KombuError
from kombu.utils.json import dumps
from redis.exceptions import RedisError

from samplemind.errors import StoreUnavailableError
from samplemind.jobs.wire import KEY_PREFIX, queue_for

_REMEMBERED_S = 7 * 24 * 3600

# KEYS: marker, queue. ARGV: seconds, message.
_PUSH_ONCE = """
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[1]) then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[2])
return 1
"""


def publish_once(app: Celery, name: str, kwargs: dict[str, Any], job_id: UUID) -> bool:
    """Publish a job unless one of this id was, within a week; return whether this call did it.

    Raises:
        StoreUnavailableError: the broker did not answer; it may have taken it, so call it again.
    """
    try:
        with app.connection_for_write() as connection, connection.channel() as channel:
            text = _message(app, channel, name, kwargs, job_id)
            # Kombu's client puts its prefix before the keys of no script: ours have it already.
            keys = (f"{KEY_PREFIX}published:{job_id}", f"{KEY_PREFIX}{queue_for(name).value}")
            with channel.conn_or_acquire() as client:
                return bool(client.eval(_PUSH_ONCE, 2, *keys, _REMEMBERED_S, text))
    except (KombuError, RedisError, OSError) as error:
        message = "the broker did not answer"
        raise StoreUnavailableError(message) from error


def _message(app: Celery, channel: Any, name: str, kwargs: dict[str, Any], job_id: UUID) -> str:
    """Return the message just as Kombu would have put it into the queue."""
    caught: list[str] = []
    channel._put = lambda _queue, message, **_: caught.append(dumps(message))
    app.send_task(
        name,
        kwargs=kwargs,
        queue=queue_for(name).value,
        task_id=str(job_id),
        producer=Producer(channel),
    )
    return caught[0]
