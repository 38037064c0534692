"""What each process of the platform is there for: one role a resource class.

Invariant: importing this module imports no Celery, so that whoever starts the processes can know
them without loading what they run.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from samplemind.jobs.wire import Queue, RoleName
from samplemind.settings import Settings


@dataclass(frozen=True)
class Role:
    """One kind of process, started as `python -m worker.main NAME`."""

    name: RoleName
    purpose: str
    queues: tuple[Queue, ...] = ()
    """What it takes jobs from, the most urgent first; none: it runs no jobs."""
    processes: Callable[[Settings], int] = lambda _: 1
    """How many jobs it runs at once, each in a process of its own."""
    preload: tuple[str, ...] = ()
    """Modules loaded before the processes are forked, so that they share the memory."""

    def arguments(self, settings: Settings) -> list[str]:
        """Return the arguments for Celery's command line; the console takes none."""
        if self.queues:
            return self._worker_arguments(settings)
        if self.name is RoleName.BEAT:
            return ["--quiet", "beat"]
        return []

    def _worker_arguments(self, settings: Settings) -> list[str]:
        # Celery expands a % in this path (not in beat's): one in the home's name is doubled.
        directory = str(run_directory(settings)).replace("%", "%%")
        return [
            "--quiet",  # the banner would go to stdout, past the log
            "worker",
            f"--hostname={self.name}@%h",
            f"--queues={','.join(self.queues)}",
            f"--concurrency={self.processes(settings)}",
            # Workers need not know each other: gossip and mingle only cost messages, and gossip
            # fails on a reconnect.
            "--without-gossip",
            "--without-mingle",
            # A job that was cancelled stays cancelled after a restart.
            # %p is the node's name: a file that two workers open is refused to the second.
            f"--statedb={directory}/%p.state",
        ]


_ROLES = (
    Role(
        RoleName.AUDIO,
        "analyses audio, one process for each core",
        queues=(Queue.AUDIO,),
        processes=lambda settings: settings.worker.audio_concurrency or available_cores(),
        preload=("samplemind.audio.analysis",),
    ),
    Role(
        RoleName.INDEX,
        "writes the search index and runs everything short",
        queues=(Queue.INTERACTIVE, Queue.INDEX, Queue.DEFAULT),
        processes=lambda settings: settings.worker.index_concurrency,
    ),
    Role(
        RoleName.MAINTENANCE,
        "runs backups, upkeep and retention, one at a time",
        queues=(Queue.MAINTENANCE,),
    ),
    Role(RoleName.BEAT, "sends the periodic jobs"),
    Role(RoleName.CONSOLE, "shows workers and jobs to operators"),
)

ROLES: dict[str, Role] = {role.name: role for role in _ROLES}
"""Every role by its name, in the order in which they start."""


def run_directory(settings: Settings) -> Path:
    """Return where a process leaves what it must find again, such as the schedule's state."""
    return settings.home / "run"


def available_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return how many cores this process may use, which in a container is not all there are.

    Args:
        quota: where Linux tells a container's share of the processors' time: microseconds, or
            max, and the period that they are of.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        share, _, period = quota.read_text().partition(" ")
        allowed = int(share) // int(period)
    except (OSError, ValueError):  # no such share, or max
        allowed = cores or 1
    return max(1, min(cores or 1, allowed))
