"""The entry of every process of the platform: `python -m worker.main ROLE [ARGUMENT…]`.

Further arguments go to Celery's command line after the role's own and win over them. The process
that is started is the one that works: nothing is forked or executed in between, so its pid is the
worker's.

Invariant: what must be set before a library is loaded is set before it is loaded; therefore Celery
and numpy are imported here only inside the functions that run them.
"""

import importlib
import sys
import warnings
from typing import Any

from samplemind.audio.threads import limit_threads
from samplemind.errors import SampleMindError
from samplemind.jobs.wire import RoleName
from samplemind.log import configure_logging
from samplemind.settings import Settings, get_settings
from samplemind.tracing import configure_tracing
from worker.roles import ROLES, Role, run_directory

SCHEDULE = "schedules.beat:table"
"""The table of periodic jobs, named as a string because `worker` lies below `schedules`."""

_USAGE = f"usage: python -m worker.main {{{','.join(ROLES)}}} [CELERY ARGUMENT…]"


def main(arguments: list[str]) -> int:
    """Run the process of the role that is named first; return its exit code, or exit with it."""
    if not arguments or arguments[0] not in ROLES:
        print(_USAGE, file=sys.stderr)  # noqa: T201
        return 2
    role = ROLES[arguments[0]]
    try:
        settings = get_settings()
    except SampleMindError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    configure_logging(settings.log)
    try:
        configure_tracing(settings.tracing, f"samplemind-{role.name.value}")
    except SampleMindError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    _prepare(settings)
    if role.name is RoleName.CONSOLE:
        _run_console(settings)
    else:
        _run_celery(role, settings, arguments[1:])
    return 0


def _prepare(settings: Settings) -> None:
    limit_threads()
    run = run_directory(settings)
    run.parent.mkdir(parents=True, exist_ok=True)
    # What waits here names jobs and their arguments: for the owner only.
    run.mkdir(mode=0o700, exist_ok=True)


def _run_celery(role: Role, settings: Settings, extra: list[str]) -> None:
    from celery.bin.celery import celery as command_line
    from celery.platforms import SecurityWarning

    from worker.app import app

    # Running as root is the operator's choice, and no message can bring code: only JSON is taken.
    warnings.simplefilter("ignore", SecurityWarning)
    for module in role.preload:
        importlib.import_module(module)
    if role.name is RoleName.BEAT:
        app.conf.beat_schedule = {entry.name: entry for entry in _load(SCHEDULE)(settings)}
    # Not app.start(): it forgets the exit code, and a worker that failed would look well.
    command_line.main(args=["--app=worker.app", *role.arguments(settings), *extra])


def _run_console(settings: Settings) -> None:
    from worker.console.server import serve

    serve(settings)


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
