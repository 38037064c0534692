"""What a long backup or restore is told and tells while bytes pass: cancel, pace, progress.

Invariant: every stream calls `passed` for each block, so a cancellation takes effect within one
block and a rate limit holds over all streams of the job together. Progress is told a few times a
second at most and never fails the job.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from samplemind.errors import BackupCancelledError

_PACE_S = 0.25


@dataclass(frozen=True, slots=True)
class Step:
    """How far a job is; `total` and `eta_s` are none where that cannot be known yet."""

    phase: str
    done: int
    total: int | None
    elapsed_s: float
    eta_s: float | None


Tell = Callable[[Step], None]


class Control:
    """One job's cancellation, rate limit and progress, shared by all of its threads."""

    def __init__(self, *, tell: Tell | None = None, bytes_per_s: int | None = None) -> None:
        """Take whom to tell of progress, and how many source bytes may pass in a second."""
        self._tell = tell
        self._bytes_per_s = bytes_per_s
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._phase = ""
        self._phase_began = self._began
        self._done = 0
        self._total: int | None = None
        self._told_at = 0.0
        self._free_at = self._began

    def cancel(self) -> None:
        """Stop the job at its next block."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise if the job was cancelled.

        Raises:
            BackupCancelledError: it was.
        """
        if self._cancelled.is_set():
            message = "cancelled before it was done; what it had written is not listed"
            raise BackupCancelledError(message)

    def begin(self, phase: str, total: int | None = None) -> None:
        """Begin a phase with that many units of work, bytes unless the phase says otherwise."""
        self.check()
        with self._lock:
            self._phase, self._total, self._done = phase, total, 0
            self._phase_began = time.monotonic()
            self._told_at = 0.0
        self._report()

    def passed(self, amount: int) -> None:
        """Count work that was done, wait where it went faster than allowed, and tell.

        Raises:
            BackupCancelledError: the job was cancelled.
        """
        self.check()
        with self._lock:
            self._done += amount
            pause_s = self._reserve(amount)
        if pause_s > 0:
            self.pause(pause_s)
        self._report()

    def pause(self, seconds: float) -> None:
        """Wait, unless the job is cancelled meanwhile.

        Raises:
            BackupCancelledError: it was.
        """
        self._cancelled.wait(seconds)
        self.check()

    def watch(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the blocks, counted and paced."""
        for block in blocks:
            self.passed(len(block))
            yield block

    def _reserve(self, amount: int) -> float:
        if self._bytes_per_s is None:
            return 0.0
        now = time.monotonic()
        # Time that was not used is not saved up: a burst would be what the limit is against.
        self._free_at = max(self._free_at, now) + amount / self._bytes_per_s
        return self._free_at - now

    def _report(self) -> None:
        if self._tell is None:
            return
        with self._lock:
            now = time.monotonic()
            if now - self._told_at < _PACE_S:
                return
            self._told_at = now
            step = self._step(now)
        self._tell(step)

    def _step(self, now: float) -> Step:
        spent_s = now - self._phase_began
        eta_s = None
        if self._total is not None and self._done:
            eta_s = max(0.0, spent_s * (self._total - self._done) / self._done)
        return Step(self._phase, self._done, self._total, now - self._began, eta_s)
