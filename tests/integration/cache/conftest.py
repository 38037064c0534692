import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from samplemind.cache.computed import ComputedCache
from samplemind.cache.redis_cache import RedisCache
from samplemind.embedded.binaries import server_binary
from samplemind.endpoints import Store
from samplemind.settings import Settings


@pytest.fixture
async def cache(stack: Settings) -> AsyncIterator[ComputedCache]:
    """A cache on an empty Redis, without a local layer."""
    redis_cache = RedisCache(stack.cache, with_local_layer=False)
    await redis_cache.redis.flushdb()
    computed = ComputedCache(redis_cache)
    yield computed
    await computed.aclose()
    await redis_cache.aclose()


@pytest.fixture
def unused_url() -> SecretStr:
    """A Redis URL at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    return SecretStr(f"redis://127.0.0.1:{port}/0")


class OwnRedis:
    """A Valkey of the test's own, to be killed, frozen and started again at the same port."""

    def __init__(self, url: SecretStr, directory: Path) -> None:
        self.url = url
        self._port = url.get_secret_value().split(":")[-1].split("/")[0]
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = ["--port", self._port, "--bind", "127.0.0.1", "--save", ""]
        self._process = subprocess.Popen(
            [server_binary(Store.CACHE), *arguments, "--dir", self._directory],
            stdout=subprocess.DEVNULL,
        )
        with redis.Redis.from_url(self.url.get_secret_value()) as client:
            deadline = time.monotonic() + 20
            while True:
                try:
                    client.ping()
                except redis.ConnectionError:
                    assert time.monotonic() < deadline, "Valkey did not start"
                    time.sleep(0.02)
                else:
                    return

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@pytest.fixture
def own_redis(unused_url: SecretStr, tmp_path: Path) -> Iterator[OwnRedis]:
    server = OwnRedis(unused_url, tmp_path)
    server.start()
    yield server
    server.kill()
