"""A Redis that answers and takes nothing is not well."""

from collections.abc import Iterator

import pytest
import redis
from pydantic import SecretStr

from samplemind.embedded.probes import ask, refusal
from samplemind.endpoints import Store
from tests.worker.processes import Broker

_WELL = {
    "role": "master",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "used_memory": 900,
    "maxmemory": 1000,
    "maxmemory_policy": "noeviction",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"maxmemory": 0}, None),
        ({"used_memory": 1001, "maxmemory_policy": "allkeys-lfu"}, None),
        ({"aof_enabled": 0, "aof_last_write_status": "err"}, None),
        ({"used_memory": 1001}, "maxmemory"),
        ({"aof_last_write_status": "err"}, "append-only file"),
        ({"role": "slave"}, "replica"),
    ],
    ids=["well", "unbounded", "evicting", "no file", "full", "disk", "replica"],
)
def test_why_it_refuses_is_told(change, said):
    found = refusal(_WELL | change)
    assert (found is None) == (said is None)
    assert said is None or said in (found or "")


@pytest.fixture
def broker(tmp_path) -> Iterator[Broker]:
    server = Broker(tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_a_full_one_says_so_until_it_has_room_again(broker):
    url = SecretStr(broker.url)
    assert ask(Store.BROKER, url).refusal is None
    broker.client.config_set("maxmemory", "1mb")
    with pytest.raises(redis.RedisError):
        broker.client.set("key", "value")
    assert "maxmemory" in (ask(Store.BROKER, url).refusal or "")
    broker.client.config_set("maxmemory", "100mb")
    broker.client.set("key", "value")
    assert ask(Store.BROKER, url).refusal is None
