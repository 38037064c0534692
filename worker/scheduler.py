"""The scheduler that beat runs: any number of beats may run, one leads and sends.

The leader holds a lease in Redis and renews it at each look at the table; a beat that finds the
lease free takes it. What was sent last is kept beside it, so a new leader goes on where the old
one was killed. A slot is marked as sent after its message was published: a leader that dies between
the two leaves a slot that its successor sends again, under the same job id, and of two messages
with one slot one runs (`worker.periodic`).

Invariant: no slot is lost, and none runs twice. Of several slots that were missed the last is sent:
the earlier messages would be void by now. The clock is that of Redis, which all beats share. A beat
that loses Redis or its lease stays and tries again; it never exits for that.
"""

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from celery.beat import Scheduler
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from samplemind.jobs.periodic import (
    LEADER_KEY,
    SLOTS_KEY,
    TABLE_KEY,
    Periodic,
    read_table,
    slot_headers,
    slot_job_id,
    slot_text,
)
from samplemind.jobs.wire import RoleName
from samplemind.log import get_logger
from samplemind.settings import get_settings
from worker.broker import connect_broker
from worker.health import Health
from worker.heartbeat import beat
from worker.roles import run_directory

_LONGEST_SLEEP_S = 1.0
_BROKER_ERRORS = (KombuError, RedisError, OSError)

# Takes the lease where it is free, renews it where it is ours; returns whether we hold it, and the
# server's time.
_LEAD = """
local holder = redis.call('GET', KEYS[1])
local leads = 0
if not holder or holder == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  leads = 1
end
local time = redis.call('TIME')
return {leads, time[1], time[2]}
"""
# A beat that slept past its lease and wakes up late must not set a slot back.
_MARK = """
local known = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if tonumber(ARGV[2]) > known then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
"""
_RESIGN = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"

_log = get_logger(__name__)


def due_slots(
    table: Mapping[str, Periodic], sent: Mapping[str, int], now: datetime
) -> list[tuple[Periodic, datetime]]:
    """Return each job whose last slot was not sent yet, with that slot, the longest due first."""
    due = [
        (entry, slot)
        for name, entry in table.items()
        if int((slot := entry.when.latest(now)).timestamp()) > sent[name]
    ]
    return sorted(due, key=lambda pair: pair[1])


class LeaderScheduler(Scheduler):
    """Sends what is due while it leads; otherwise it watches whether the leader lives."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        settings = get_settings()
        self._lease_ms = settings.schedule.lease_s * 1000
        self._token = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"
        self._leads = False
        # Never closed: Celery closes the scheduler in a signal handler, in the middle of whatever
        # the client is doing, and the process ends there.
        self._client = connect_broker(settings.broker)
        self._health = Health(
            run_directory(settings) / f"health-{RoleName.BEAT}@{socket.gethostname()}.json",
            settings.worker.health_host,
            settings.worker.health_port,
        )
        super().__init__(*arguments, **options)

    def setup_schedule(self) -> None:
        """Take the table; what Celery would keep of it is kept in Redis."""
        self._table: dict[str, Periodic] = dict(self.app.conf.beat_schedule)

    def tick(self, *_: Any, **__: Any) -> float:
        """Send what is due if this beat leads; return seconds until the next look."""
        try:
            now = self._lead()
            if self._leads:
                self._send_due(now)
        except _BROKER_ERRORS as error:
            # Whatever was not marked is sent at a later look, by this beat or another.
            _log.warning("beat_without_broker", error=f"{type(error).__name__}: {error}")
            self._leads = False
            self._health.disconnected()
            return _LONGEST_SLEEP_S
        self._health.look(waiting=0, free=0, taken=0)
        beat(self._client, RoleName.BEAT, (), address=self._health.address)
        return self._seconds_to_next(now)

    def close(self) -> None:
        """Give the lease back, so that another beat need not wait for its end."""
        if not self._leads:
            return
        client = connect_broker(get_settings().broker)  # the other one may be in mid-command
        try:
            client.eval(_RESIGN, 1, LEADER_KEY, self._token)
        except RedisError as error:
            _log.warning("beat_lease_not_returned", error=str(error))

    def _lead(self) -> datetime:
        reply = self._client.eval(_LEAD, 1, LEADER_KEY, self._token, str(self._lease_ms))
        leads, seconds, microseconds = (int(part) for part in cast("list[Any]", reply))
        led, self._leads = self._leads, bool(leads)
        if self._leads and not led:
            self._leave_table(datetime.fromtimestamp(seconds, UTC))
            _log.info("beat_leads", token=self._token)
        elif led and not self._leads:
            _log.warning("beat_lost_its_lease")
        return datetime.fromtimestamp(seconds + microseconds / 1e6, UTC)

    def _leave_table(self, now: datetime) -> None:
        """Tell Redis what recurs; a job that is new there is due at its next slot."""
        stored = cast("dict[bytes, bytes]", self._client.hgetall(TABLE_KEY))
        known = {
            entry.name: entry
            for entry in read_table({k.decode(): v.decode() for k, v in stored.items()})
        }
        with self._client.pipeline(transaction=True) as pipe:
            pipe.delete(TABLE_KEY)
            for name, entry in self._table.items():
                same = name in known and known[name].when == entry.when
                since = known[name].since if same else None
                pipe.hset(TABLE_KEY, name, replace(entry, since=since or now).to_json())
                pipe.hsetnx(SLOTS_KEY, name, int(entry.when.latest(now).timestamp()))
            pipe.execute()

    def _send_due(self, now: datetime) -> None:
        for entry, slot in due_slots(self._table, self._sent(now), now):
            self._send(entry, slot)
            self._client.eval(_MARK, 1, SLOTS_KEY, entry.name, str(int(slot.timestamp())))
            # Publishing may take its time: a lease that lapsed meanwhile is somebody else's.
            self._lead()
            if not self._leads:
                return

    def _sent(self, now: datetime) -> dict[str, int]:
        stored = cast("dict[bytes, bytes]", self._client.hgetall(SLOTS_KEY))
        sent = {name.decode(): int(slot) for name, slot in stored.items()}
        if self._table.keys() - sent.keys():
            # Redis was emptied under us: start over as at the first start.
            self._leave_table(now)
            sent |= {
                name: int(entry.when.latest(now).timestamp())
                for name, entry in self._table.items()
                if name not in sent
            }
        return sent

    def _send(self, entry: Periodic, slot: datetime) -> None:
        text = slot_text(slot)
        self.app.send_task(
            entry.name,
            kwargs=dict(entry.kwargs),
            queue=entry.queue,
            task_id=str(slot_job_id(entry.name, text)),
            headers=slot_headers(text),
            retry=False,  # what failed is sent at the next look, as a publication of its own
            expires=entry.expires_s(slot),
            producer=self.producer,
        )
        _log.debug("beat_sent", job=entry.name, slot=text)

    def _seconds_to_next(self, now: datetime) -> float:
        if not self._leads:
            return _LONGEST_SLEEP_S
        upcoming = min(
            (entry.when.following(now) for entry in self._table.values()),
            default=None,
        )
        if upcoming is None:
            return _LONGEST_SLEEP_S
        return min(_LONGEST_SLEEP_S, max(0.01, (upcoming - now).total_seconds()))
