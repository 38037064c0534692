"""The embedded Valkeys: the broker, which must not forget, and the cache, which may.

They are two because an eviction policy belongs to the whole instance: a broker that evicts loses
jobs.
"""

import glob
import json

import redis
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from samplemind.embedded.binaries import server_binary
from samplemind.embedded.ports import LOOPBACK
from samplemind.embedded.server import Server
from samplemind.endpoints import Store
from samplemind.errors import StoreUnavailableError

_TIMEOUT_S = 5

_COMMON = """\
bind 127.0.0.1
protected-mode yes
daemonize no
databases 4
# RDB snapshots: the broker has its append-only file, the cache nothing to keep.
save ""
"""

_OWN = {
    Store.BROKER: """\
appendonly yes
# At a power cut about a second of messages is lost. A killed process loses none, because each
# command is written to the kernel before it is answered; only if the disk has kept an fsync waiting
# may up to two seconds still be in the process.
appendfsync everysec
aof-use-rdb-preamble yes
# A file that was cut off in a crash is read up to its last whole command.
aof-load-truncated yes
auto-aof-rewrite-min-size 64mb
maxmemory 1gb
# When full, writers get an error; no message is ever evicted.
maxmemory-policy noeviction
""",
    Store.CACHE: """\
appendonly no
maxmemory 128mb
# The least often used entry goes first: a scan of rare keys does not push out popular ones.
maxmemory-policy allkeys-lfu
# The default hardly tells two uses from three, and looks at five keys to find the rarest.
lfu-log-factor 1
maxmemory-samples 10
""",
}


class ValkeyServer(Server):
    """valkey-server as the broker or as the cache."""

    def prepare(self, port: int) -> list[str]:
        """Write the settings of its store."""
        self.make_data_directory(self.data)
        # Its quoting is JSON's, but for escapes of letters.
        directory = json.dumps(str(self.data), ensure_ascii=False)
        settings = (
            f"port {port}\ndir {directory}\n"
            f'requirepass "{self.password.get_secret_value()}"\n{_COMMON}{_OWN[self.store]}'
        )
        path = self.home.write_private(f"{self.store.value}.conf", settings)
        # It takes its argument for a pattern; one that finds nothing would mean no settings at all.
        return [str(server_binary(self.store)), glob.escape(str(path))]

    def complete(self, port: int) -> None:
        """Ping it with the password; it answers once its file is read."""
        try:
            # One connection and no retry: this is asked again anyway, and a start is urgent.
            with redis.Redis(
                host=LOOPBACK,
                port=port,
                password=self.password.get_secret_value(),
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            ) as client:
                client.ping()
        except redis.RedisError as error:
            message = f"Valkey does not answer: {type(error).__name__}"
            raise StoreUnavailableError(message) from error

    def url(self, port: int) -> SecretStr:
        """Return its URL, database 0."""
        return SecretStr(f"redis://:{self.password.get_secret_value()}@{LOOPBACK}:{port}/0")
