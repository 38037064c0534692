"""Kombu's Redis transport, made to outlive Redis.

Kombu 5.7 differs from what a job of any length needs in six places, each mended here:

1. A worker that was partly busy when Redis went away dies: closing the lost connection gives
   unfinished messages back through that same connection, which fails on an attribute of None.
2. Where only the socket was lost, that same step gives back the messages of jobs that still run,
   so that they run twice. Here messages are given back when the worker leaves; otherwise their
   leases are renewed (`worker.lease`) or lapse.
3. An acknowledgement that finds Redis gone, or its channel closed, is logged and dropped, so that
   a finished job runs again. Here it is kept and told later. The same goes for noting a message
   that was already taken from its queue.
4. A message that is given to another worker keeps its delivery tag, so that the acknowledgement
   of its first worker, when that wakes up, takes the message from the second. Here each delivery
   has a tag of its own, and a late acknowledgement meets nothing.
5. Leases are written and judged by the clocks of whichever worker does it, and judged at once
   when Redis is back, before their owners could renew them. Here the server's clock counts, and
   nobody judges before every owner had the time of a lease to renew.
6. A text in a queue that is no message raises after it was taken: it is lost, and the worker
   reconnects. Here it becomes a dead letter.

Invariant: a message is in a queue or on lease, save for the round trip between BRPOP and the note
of its lease, which is Kombu's; what is lost there by a kill is sent again by the rescue of stalled
batches and the reconciliation of the index, which depend on no message.
"""

import json
from queue import Empty
from time import monotonic
from typing import Any
from uuid import uuid4

from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps
from redis import Redis

from worker import dead_letters
from worker.ledger import ledger
from worker.metrics import catalogue, counting

_CONNECTION_ERRORS = kombu_redis.Transport.connection_errors


def install() -> None:
    """Serve redis:// with this transport; to be called before the first connection."""
    path = f"{__name__}:Transport"
    TRANSPORT_ALIASES.update(redis=path, rediss=path)


def read_message(text: bytes) -> dict[str, Any]:
    """Return the message that stands in a queue as this text.

    Raises:
        ValueError: it is none.
    """
    message = json.loads(text)
    problem = "it is no message of Kombu's"
    if not isinstance(message, dict) or not isinstance(message.get("body"), str):
        raise ValueError(problem)
    properties = message.get("properties")
    if not isinstance(properties, dict) or not isinstance(properties.get("delivery_info"), dict):
        raise ValueError(problem)
    if not isinstance(message.get("headers"), dict) or "delivery_tag" not in properties:
        raise ValueError(problem)
    return message


class QoS(kombu_redis.QoS):
    """The messages that a channel took and has not acknowledged."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._judges_from: float | None = None

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note the lease of a message that was just taken from its queue."""
        info = message.delivery_info
        text = dumps([message._raw, info["exchange"], info["routing_key"]])
        virtual.QoS.append(self, message, delivery_tag)
        ledger.add(delivery_tag)
        try:
            with self.channel.conn_or_acquire() as client, client.pipeline() as pipe:
                pipe.hset(self.unacked_key, delivery_tag, text)
                pipe.zadd(self.unacked_index_key, {delivery_tag: ledger.server_time()})
                pipe.execute()
        except _CONNECTION_ERRORS:
            ledger.take_in(delivery_tag, text)
            raise

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge now, or as soon as Redis is there."""
        if self.channel.connection is None:
            ledger.acknowledge(delivery_tag)
        else:
            try:
                self._remove_from_indices(delivery_tag).execute()
            except _CONNECTION_ERRORS:
                ledger.acknowledge(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Refuse a message: for good, or to the end of its queue."""
        if not requeue:
            self.ack(delivery_tag)
            return
        if self.channel.connection is None:
            ledger.give_back([delivery_tag])
        else:
            try:
                self.restore_by_tag(delivery_tag, leftmost=True)
            except _CONNECTION_ERRORS:
                ledger.give_back([delivery_tag])
        virtual.QoS.ack(self, delivery_tag)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give everything back if the worker leaves; otherwise leave it to the leases."""
        if ledger.leaving:
            super().restore_unacked_once(stderr=stderr)
            return
        self._on_collect.cancel()
        self._dirty.clear()
        self._delivered.clear()
        self._delivered.restored = True

    def restore_visible(self, start: int = 0, num: int | None = 10, interval: int = 1) -> None:
        """Put messages whose leases have lapsed back into their queues.

        Args:
            start: how many of the oldest to pass over.
            num: how many at most; none: all.
            interval: act at each so many calls; ours is the timer's, so at each.
        """
        with self.channel.conn_or_acquire() as client:
            now = ledger.compare_clocks(client)
            if not self._may_judge(client):
                return
            try:
                with kombu_redis.Mutex(client, self.unacked_mutex_key, self.unacked_mutex_expire):
                    self._restore_lapsed(client, now - self.visibility_timeout, start, num)
            except kombu_redis.MutexHeld:
                return  # another worker is at it

    def _restore_lapsed(self, client: Redis, before: float, start: int, num: int | None) -> None:
        lapsed = client.zrange(
            self.unacked_index_key,
            0,
            before,
            byscore=True,
            offset=start if num else None,
            num=num,
        )
        for tag in lapsed:
            self.restore_by_tag(tag, client)

    def _may_judge(self, client: Redis) -> bool:
        if self._judges_from is None:
            uptime_s = int(client.info("server")["uptime_in_seconds"])
            lease_s = float(self.visibility_timeout)
            # After a restart of Redis, or a connection that we lost, every lease looks lapsed.
            wait_s = lease_s if self.channel.connection_was_lost else max(0.0, lease_s - uptime_s)
            self._judges_from = monotonic() + wait_s
        return monotonic() >= self._judges_from


class Channel(kombu_redis.Channel):
    """A channel whose messages get a new tag at each delivery."""

    QoS = QoS

    connections_lost = 0
    """How often this process lost a connection on which it consumed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._commands: Any = None
        super().__init__(*arguments, **options)
        self.connection_was_lost = Channel.connections_lost > 0

    def _create_client(self, asynchronous: bool = False) -> Any:
        """Return one client for all commands of the channel.

        Kombu makes one for each, which costs a sixth of the main loop's time: every client builds
        its table of the commands' answers. It holds nothing else but its pool.
        """
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._commands is None or self._commands.connection_pool is not self.pool:
            self._commands = super()._create_client()
        return self._commands

    def close(self) -> None:
        """Close, whatever has become of the connection."""
        if self.active_queues and not ledger.leaving:
            Channel.connections_lost += 1
            counting.add(catalogue.CONNECTIONS_LOST)
        super().close()

    def _brpop_read(self, **options: Any) -> bool:
        """Hand on a message that was taken from its queue; what is none becomes a dead letter.

        Kombu would raise here, after the text has left the queue: it would be lost and the worker
        would reconnect.
        """
        try:
            try:
                found = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not found:
            raise Empty
        queue = found[0].decode().rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        try:
            message = read_message(found[1])
        except (ValueError, RecursionError) as error:
            dead_letters.bury_text(found[1], f"not a message: {error}")
            raise Empty from error
        self.connection._deliver(message, queue)
        return True

    def _do_restore_message(
        self,
        payload: dict[str, Any],
        exchange: str,
        routing_key: str,
        pipe: Any,
        leftmost: bool = False,
    ) -> None:
        properties = payload["properties"]
        properties["delivery_tag"] = str(uuid4())
        if not ledger.leaving:
            # What a leaving worker gives back in order is no sign of a job that kills its worker.
            properties.setdefault("delivery_info", {})["redelivered"] = True
        priority = self._get_message_priority(payload, reverse=False)
        push = pipe.lpush if leftmost else pipe.rpush
        for queue in self._lookup(exchange, routing_key):
            push(self._q_for_pri(queue, priority), dumps(payload))


class Transport(kombu_redis.Transport):
    """Redis, with leases that are kept."""

    Channel = Channel
