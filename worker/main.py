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

from samplemind.audio.threads import limit_threads
from samplemind.errors import SampleMindError
from samplemind.log import configure_logging
from samplemind.settings import Settings, get_settings
from worker.roles import BEAT, CONSOLE, ROLES, Role, run_directory

SCHEDULE = "schedules.beat:BEAT_SCHEDULE"
"""The table of periodic jobs, named as a string because `worker` lies below `schedules`."""

_USAGE = f"usage: python -m worker.main {{{','.join(ROLES)}}} [CELERY ARGUMENT…]"


def main(arguments: list[str]) -> int:
    """Run the process of the role that is named first; return its exit code."""
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
    _prepare(settings)
    if role.name == CONSOLE:
        return _run_console(settings)
    return _run_celery(role, settings, arguments[1:])


def _prepare(settings: Settings) -> None:
    limit_threads()
    run_directory(settings).mkdir(parents=True, exist_ok=True)


def _run_celery(role: Role, settings: Settings, extra: list[str]) -> int:
    from celery.exceptions import CPendingDeprecationWarning
    from celery.platforms import SecurityWarning

    from worker.app import app

    # Running as root is the operator's choice, and no message can bring code: only JSON is taken.
    warnings.simplefilter("ignore", SecurityWarning)
    # At each reconnect, even where the setting that it advises is made.
    warnings.simplefilter("ignore", CPendingDeprecationWarning)
    for module in role.preload:
        importlib.import_module(module)
    if role.name == BEAT:
        app.conf.beat_schedule = _load(SCHEDULE)
    code = app.start([*role.arguments(settings), *extra])
    return int(code or 0)


def _run_console(settings: Settings) -> int:
    from worker.console import serve

    serve(settings)
    return 0


def _load(path: str) -> object:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
