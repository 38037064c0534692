"""The loopback ports of one stack, the same ones again as long as they are free.

Invariant: ports lie below the range that the kernel gives to outgoing connections (32768 and up
on Linux), which would otherwise take a remembered port now and then.
"""

import json
import random
import socket
from pathlib import Path

from samplemind.errors import ServerStartError

LOOPBACK = "127.0.0.1"
_RANGE = range(20_000, 30_000)
_ATTEMPTS = 200


class Ports:
    """Names and their ports, kept in one file of the home's `run`."""

    def __init__(self, run: Path) -> None:
        self._path = run / "ports.json"

    def known(self) -> dict[str, int]:
        """Return the ports of last time."""
        try:
            ports: dict[str, int] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        return ports

    def claim(self, name: str) -> int:
        """Return a free port for the name, that of last time if possible, and remember it.

        Raises:
            ServerStartError: no free port was found.
        """
        ports = self.known()
        taken = {port for other, port in ports.items() if other != name}
        port = ports.get(name)
        if port is None or not is_free(port):
            port = _free_port(taken)
        self._remember({**ports, name: port})
        return port

    def _remember(self, ports: dict[str, int]) -> None:
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps(ports))
        draft.replace(self._path)


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the port."""
    with socket.socket() as probe:
        # As servers do: connections of the one before may still be in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _free_port(taken: set[int]) -> int:
    # At random, so that two stacks that start at once do not try the same ones.
    for port in random.SystemRandom().sample(_RANGE, _ATTEMPTS):
        if port not in taken and is_free(port):
            return port
    message = f"no free port found between {_RANGE.start} and {_RANGE.stop}"
    raise ServerStartError(message)
