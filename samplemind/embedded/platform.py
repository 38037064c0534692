"""The platform's own processes: which there are, and what the supervisor says of itself.

Invariant: the file of state belongs to the supervisor; whoever else reads it checks that the
supervisor is alive.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from enum import StrEnum

from samplemind.embedded.home import HomeLock, StackHome
from samplemind.embedded.process import ProcessRecord
from samplemind.jobs.wire import RoleName
from samplemind.settings import Settings

# Beat stops first, so that no new jobs come; the workers drain side by side; the console, which
# shows that, is last. They start in reverse.
STOP_ORDER: tuple[tuple[RoleName, ...], ...] = (
    (RoleName.BEAT,),
    (RoleName.AUDIO, RoleName.INDEX, RoleName.MAINTENANCE),
    (RoleName.CONSOLE,),
)
ROLES: tuple[str, ...] = tuple(role for group in reversed(STOP_ORDER) for role in group)

_FILE = "supervisor.json"


class Phase(StrEnum):
    """How far `up` has come."""

    STORES = "starting the stores"
    MIGRATIONS = "migrating"
    PROCESSES = "starting the processes"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class SupervisorState:
    """What the supervisor left for others: its pid, its phase, what it runs, why it failed."""

    pid: int
    phase: Phase
    roles: tuple[str, ...]
    message: str = ""


def write_state(home: StackHome, state: SupervisorState) -> None:
    """Replace the state."""
    draft = home.run / f"{_FILE}.new"
    draft.write_text(json.dumps(asdict(state)))
    draft.replace(home.run / _FILE)


def read_state(home: StackHome) -> SupervisorState | None:
    """Return the last state that a supervisor left, which need not be alive; none if never."""
    try:
        fields = json.loads((home.run / _FILE).read_text())
    except FileNotFoundError:
        return None
    return SupervisorState(
        fields["pid"], Phase(fields["phase"]), tuple(fields["roles"]), fields["message"]
    )


def living_supervisor(home: StackHome) -> ProcessRecord | None:
    """Return the supervisor that owns the home; none where nobody does, or something else."""
    owner = HomeLock(home).owner()
    state = read_state(home)
    return owner if owner is not None and state is not None and state.pid == owner.pid else None


def supervised_roles(home: StackHome) -> tuple[str, ...] | None:
    """Return what the living supervisor runs; none without one."""
    if living_supervisor(home) is None:
        return None
    state = read_state(home)
    return None if state is None else state.roles


def role_command(role: str) -> list[str]:
    """Return the command line of a role's process."""
    # -P: the directory in which `up` was called must not shadow a package.
    return [sys.executable, "-P", "-m", "worker.main", role]


def process_environment(settings: Settings, *, console_port: int | None = None) -> dict[str, str]:
    """Return the variables with which a process elsewhere in the file system sees the same."""
    environment = {**os.environ, "SAMPLEMIND_HOME": str(settings.home), "PYTHONUNBUFFERED": "1"}
    if settings.audio.root is not None:
        environment["SAMPLEMIND_AUDIO_ROOT"] = str(settings.audio.root.absolute())
    if console_port is not None:
        environment["SAMPLEMIND_CONSOLE_PORT"] = str(console_port)
    return environment
