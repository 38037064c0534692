"""The process of the operators' console.

Invariant: what Flower has seen, and the secret that signs its cookies, outlive it; both lie in the
home's `run` directory, for its owner only.
"""

import atexit
import os
import signal
from pathlib import Path
from typing import Any

from flower.options import default_options

from samplemind.log import get_logger
from samplemind.settings import Settings
from worker.app import app
from worker.console.access import Accounts
from worker.console.application import Console, new_cookie_secret
from worker.metrics import exporter
from worker.roles import run_directory

_SAVE_MS = 120_000
_MOST_TASKS = 10_000
"""Some 4 KiB each, twice that while they are written, which holds up the pages meanwhile."""
_MOST_WORKERS = 1000
_PURGE_S = 24 * 3600

_log = get_logger(__name__)


def serve(settings: Settings) -> None:
    """Serve the console until SIGTERM."""
    set_options(settings)
    # Jobs are shown by what their events say; their code would only fill this process's memory.
    app.conf.imports = ()
    console = Console(settings, cookie_secret(settings), capp=app, options=default_options)
    port = console.start_http_server()
    exporter.start(settings, console.put_figures)
    atexit.register(console.stop)
    loop = console.io_loop
    loop.asyncio_loop.add_signal_handler(signal.SIGTERM, lambda: loop.add_callback(console.leave))
    _log.info("console_ready", host=settings.console.host, port=port)
    console.start()


def set_options(settings: Settings) -> None:
    """Set Flower's options; it has one set of them in a process."""
    console, accounts = settings.console, Accounts(settings.console)
    options: dict[str, Any] = {
        "address": console.host,
        "port": console.port,
        "persistent": True,
        "db": str(run_directory(settings) / "console"),
        "state_save_interval": _SAVE_MS,
        "max_tasks": _MOST_TASKS,
        "max_workers": _MOST_WORKERS,
        "purge_offline_workers": _PURGE_S,
        "read_only": accounts.open,
        "basic_auth": accounts.credentials,
        "auth": accounts.emails,
        "xheaders": console.behind_proxy,
        # The workers send their events anyway; asking them every five seconds is needless.
        "enable_events": False,
    }
    for name, value in options.items():
        setattr(default_options, name, value)


def cookie_secret(settings: Settings) -> str:
    """Return what signs the cookies: the settings' secret, else one that the home keeps."""
    given = settings.console.cookie_secret
    if given is not None:
        return given.get_secret_value()
    path = run_directory(settings) / "console-cookie-secret"
    if not path.exists():
        _write_secret(path, new_cookie_secret())
    return path.read_text()


def _write_secret(path: Path, secret: str) -> None:
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
    draft.replace(path)
