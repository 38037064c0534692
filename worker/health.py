"""Whether a worker or a beat does what it is there for: its loop moves, and it takes what waits.

A worker can be alive and useless: its main loop stuck, or its consumption lost in a reconnect,
which an answer to a ping does not show. So the main loop itself looks, every few seconds, at its
queues and at its processes, and what it saw is told three ways: in its sign of life in Redis, in
the file `run/health-ROLE@HOST.json`, and by HTTP:

    /live   200 unless the main loop is stuck; a worker that waits for Redis lives
    /ready  200 if it is connected and takes its messages
    /metrics  what it and its processes have counted, for Prometheus (`worker.metrics`)

    python -m worker.health FILE    exits with 0 if the worker that writes the file is ready

Invariant: only the main loop writes what was seen, so that a loop that stopped cannot look well;
the server's thread only compares the time. Messages that wait are a fault only where a process is
free for them and none was taken for `STALLED_S`.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Thread

from samplemind.log import get_logger
from worker.answering import Answering, AnsweringServer

STUCK_S = 20.0
"""Seconds without a look after which the main loop counts as stuck."""

STALLED_S = 30.0
"""Seconds for which messages may wait beside a free process."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the main loop saw at its last look.

    Attributes:
        looked_at: Unix seconds of the look.
        connected: whether it has a connection to the broker.
        waiting: messages in its queues.
        free: processes without a job.
        taken: messages taken since it started.
        stalled_since: since when messages wait beside a free process and none was taken; None if
            that is not so.
    """

    looked_at: float
    connected: bool = False
    waiting: int = 0
    free: int = 0
    taken: int = 0
    stalled_since: float | None = None

    def is_stuck(self, now: float) -> bool:
        """Whether the main loop has stopped; one that waits for a connection has not."""
        return self.connected and now - self.looked_at > STUCK_S

    def problem(self, now: float) -> str | None:
        """Return what is wrong, in words for an operator; None if nothing is."""
        if self.is_stuck(now):
            return f"its main loop has not moved for {now - self.looked_at:.0f} s"
        if not self.connected:
            return "it has no connection to the broker"
        if self.stalled_since is not None and now - self.stalled_since > STALLED_S:
            return (
                f"{self.waiting} messages wait, {self.free} processes are free, and none was taken "
                f"for {now - self.stalled_since:.0f} s"
            )
        return None


def see(before: Vitals, *, waiting: int, free: int, taken: int, now: float) -> Vitals:
    """Return what a look shows, given what the one before showed."""
    idle = waiting > 0 and free > 0 and taken == before.taken and before.connected
    since = (before.stalled_since or now) if idle else None
    return Vitals(now, True, waiting, free, taken, since)


class Health:
    """What this process tells of itself; made once, before its first connection."""

    def __init__(
        self,
        path: Path,
        host: str,
        port: int,
        *,
        render: Callable[[Vitals], bytes] | None = None,
        token: str | None = None,
    ) -> None:
        """Serve on that address; port 0 is a free one.

        Args:
            render: returns the page of figures; none: there is none.
            token: that /metrics asks for; none: it asks for nothing.
        """
        self.vitals = Vitals(time.time())
        self.render = render
        self.token = token
        self.address: str | None = None
        self._path = path
        self._serve(host, port)

    def look(self, *, waiting: int, free: int, taken: int) -> str | None:
        """Note what the main loop sees now; return what is wrong, if anything is."""
        self.vitals = see(self.vitals, waiting=waiting, free=free, taken=taken, now=time.time())
        self._write()
        return self.vitals.problem(self.vitals.looked_at)

    def disconnected(self) -> None:
        """Note that the connection is lost, or not there yet."""
        self.vitals = replace(self.vitals, connected=False, looked_at=time.time())
        self._write()

    def _write(self) -> None:
        draft = self._path.with_suffix(".new")
        try:
            draft.write_text(json.dumps(asdict(self.vitals)))
            draft.replace(self._path)
        except OSError as error:
            # A full disk must not stop the worker; the file grows old, which is what it tells.
            _log.warning("health_file_not_written", error=str(error))

    def _serve(self, host: str, port: int) -> None:
        try:
            server = _Server((host, port), _Handler)
        except OSError as error:
            _log.warning("health_not_served", host=host, port=port, error=str(error))
            return
        server.health = self
        self.address = server.url
        Thread(target=server.serve_forever, name="health", daemon=True).start()


class _Server(AnsweringServer):
    health: Health


class _Handler(Answering):
    server: _Server

    def do_GET(self) -> None:  # noqa: N802 - the name that the library calls
        health = self.server.health
        if self.path == "/metrics" and (render := health.render) is not None:
            self.answer_figures(health.token, lambda: render(health.vitals))
            return
        vitals, now = health.vitals, time.time()
        problem = vitals.problem(now)
        if self.path == "/live":
            well = not vitals.is_stuck(now)
        elif self.path in ("/ready", "/health"):
            well = problem is None
        else:
            self.send_error(404, "ask for /live, /ready or /metrics")
            return
        body = json.dumps({"ok": well, "problem": problem, **asdict(vitals)}).encode()
        self.answer(200 if well else 503, "application/json", body)


def judge_file(path: Path, now: float) -> str | None:
    """Return what is wrong with the worker that writes this file; None if nothing is."""
    try:
        vitals = Vitals(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        return f"{path} cannot be read: {error}"
    if now - vitals.looked_at > STUCK_S:
        return f"it was written {now - vitals.looked_at:.0f} s ago"
    return vitals.problem(now)


def main(arguments: Iterable[str]) -> int:
    """Judge the files that are named; return 0 if all is well."""
    problems = [judge_file(Path(name), time.time()) for name in arguments]
    for problem in filter(None, problems):
        print(problem, file=sys.stderr)  # noqa: T201
    return 1 if any(problems) or not problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
