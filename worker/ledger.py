"""What this process holds of the broker's messages, and what it still has to tell the broker.

A message that a worker took is on lease: it stands in two keys, its text in `unacked` and the time
of its last renewal in `unacked_index`. The transport writes both, the lease keeper renews, and
whoever finds a lease too old puts the message back into its queue.

Invariant: a lease is renewed for exactly the messages whose jobs this process may still run, and
nothing that Redis did not take is forgotten before it was told again. Times are those of the
Redis server, so that workers whose clocks differ agree on what has lapsed.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import cast

from redis import Redis
from redis.exceptions import RedisError

from samplemind.jobs.wire import KEY_PREFIX

UNACKED = f"{KEY_PREFIX}unacked"
UNACKED_INDEX = f"{KEY_PREFIX}unacked_index"

Command = tuple[str | bytes | float, ...]
"""One Redis command that may run twice, with whole key names."""


class Ledger:
    """The leases of one process.

    The main loop alone changes what is held; every other method may be called from any thread.
    """

    def __init__(self) -> None:
        self.leaving = False
        """Whether the worker is going down, so that what it holds is given back at once."""
        self._offset_s = 0.0
        self._held: frozenset[str] = frozenset()
        self._untold: deque[tuple[Command, ...]] = deque()
        self._telling = threading.Lock()

    def server_time(self) -> float:
        """Return the Redis server's clock in Unix seconds, as last compared with ours."""
        return time.time() + self._offset_s

    def compare_clocks(self, client: Redis) -> float:
        """Ask the server for its time, remember how ours differs, and return it."""
        seconds, microseconds = client.time()
        now = seconds + microseconds / 1_000_000
        self._offset_s = now - time.time()
        return now

    def add(self, tag: str) -> None:
        """Renew the lease of a message that was just taken, too."""
        self._held |= {tag}

    def hold(self, tags: Iterable[str]) -> None:
        """Replace the set of messages whose leases are renewed."""
        self._held = frozenset(tags)

    @property
    def held(self) -> frozenset[str]:
        """The delivery tags of the messages whose leases are renewed."""
        return self._held

    def renew(self, client: Redis) -> int:
        """Renew every lease that is held; return how many the broker still knew.

        An acknowledged message, or one given to another worker, is not brought back: only what
        is in the index is renewed.
        """
        now = self.compare_clocks(client)
        held = self._held
        if not held:
            return 0
        renewed = client.zadd(UNACKED_INDEX, dict.fromkeys(held, now), xx=True, ch=True)
        return cast("int", renewed)

    def acknowledge(self, tag: str) -> None:
        """Note that a message is done with."""
        self.postpone(("ZREM", UNACKED_INDEX, tag), ("HDEL", UNACKED, tag))

    def give_back(self, tags: Iterable[str]) -> None:
        """Note that messages shall go to another worker at its next search for lapsed leases."""
        commands: list[Command] = [("ZADD", UNACKED_INDEX, "XX", 0, tag) for tag in tags]
        if commands:
            self.postpone(*commands)

    def take_in(self, tag: str, text: str) -> None:
        """Note that a message left its queue, so that its lease lapses unless a job holds it."""
        self.postpone(
            ("HSET", UNACKED, tag, text),
            ("ZADD", UNACKED_INDEX, "NX", self.server_time(), tag),
        )

    def postpone(self, *commands: Command) -> None:
        """Keep commands that belong together until `tell` finds Redis."""
        self._untold.append(commands)

    def tell(self, client: Redis) -> None:
        """Run what was postponed, the oldest first.

        Raises:
            RedisError: Redis did not take it; what is left is kept for the next time.
        """
        with self._telling:
            while self._untold:
                commands = self._untold[0]
                with client.pipeline(transaction=True) as pipe:
                    for command in commands:
                        pipe.execute_command(*command)  # type: ignore[no-untyped-call]
                    pipe.execute()
                self._untold.popleft()

    def try_to_tell(self, client: Redis) -> bool:
        """Do as `tell`; return whether nothing is left."""
        try:
            self.tell(client)
        except RedisError:
            return False
        return True


ledger = Ledger()
"""This process's own. A pool process inherits it in the fork and never uses it."""
