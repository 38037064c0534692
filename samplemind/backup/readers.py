"""Those who use the stores that a restore replaces: asked whether they run, and told afterwards.

Invariant: a restore that is done stays done: who cannot be told is named in the result, with what
an operator can do instead.
"""

from itertools import islice

import redis

from samplemind.cache.keys import Keys
from samplemind.connections.redis import translating_errors
from samplemind.errors import ConflictError, SampleMindError
from samplemind.jobs.payloads import ReconcileIndex
from samplemind.jobs.publishing import producer, publish
from samplemind.jobs.wire import HEARTBEAT_LIFE_S, HEARTBEAT_PATTERN, RoleName
from samplemind.settings import BrokerSettings, Settings

_TIMEOUT_S = 5
_SCAN_COUNT = 1000


def tell_readers(settings: Settings) -> list[str]:
    """Empty the cache and have the search index reconciled; return what could not be done."""
    return [fault for fault in (_empty_cache(settings), _reconcile(settings)) if fault is not None]


def require_no_workers(broker: BrokerSettings) -> None:
    """Check that no worker and no beat has left a sign of life.

    Raises:
        ConflictError: some have; the message names them and says what to do.
        StoreUnavailableError: the broker, which knows, did not answer.
    """
    if broker.url is None:
        return
    with (
        translating_errors(),
        redis.Redis.from_url(
            broker.url.get_secret_value(),
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
        ) as client,
    ):
        keys = [key.decode() for key in client.scan_iter(HEARTBEAT_PATTERN, count=_SCAN_COUNT)]
    # The key ends in role, host and process; the console only reads.
    parts = [key.split(":")[-3:] for key in sorted(keys)]
    alive = [f"{role}@{host}" for role, host, _ in parts if role != RoleName.CONSOLE]
    if alive:
        message = (
            f"{len(alive)} workers run ({', '.join(alive[:3])}) and would write into what is "
            "replaced: stop them (`samplemind down`, then `samplemind up --stores-only`; where "
            f"they were killed, wait {HEARTBEAT_LIFE_S} s), or restore elsewhere (--into), or "
            "beside them (--beside-workers: what they write until the switch is lost)"
        )
        raise ConflictError(message)


def _empty_cache(settings: Settings) -> str | None:
    url = settings.cache.url
    if url is None:
        return None
    try:
        with redis.Redis.from_url(
            url.get_secret_value(),
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
        ) as client:
            # What was computed, and nothing else: one Redis may serve as the broker too.
            found = client.scan_iter(Keys().value("*"), count=_SCAN_COUNT)
            while keys := list(islice(found, _SCAN_COUNT)):
                client.unlink(*keys)
    except redis.RedisError as error:
        return f"the cache was not emptied ({type(error).__name__}): `samplemind cache clear '*'`"
    return None


def _reconcile(settings: Settings) -> str | None:
    if settings.broker.url is None:
        return None
    app = producer(settings)
    try:
        publish(app, [ReconcileIndex()])
    except SampleMindError as error:
        return f"the search index was not told ({error}): `samplemind index reconcile`"
    finally:
        app.close()
    return None
