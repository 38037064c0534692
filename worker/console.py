"""The operators' console: Flower.

Invariant: without a password the console shows and does nothing: Flower's interface for sending
and revoking jobs answers only to whoever signed in.
"""

import atexit
import signal
import sys
from typing import Any

from flower.app import Flower
from flower.options import default_options
from flower.urls import settings as flower_settings

from samplemind.log import get_logger
from samplemind.settings import Settings
from worker.app import app
from worker.metrics import exporter
from worker.roles import run_directory

_SAVE_MS = 30_000

_log = get_logger(__name__)


def serve(settings: Settings) -> None:
    """Serve the console until SIGTERM."""
    _set_options(settings)
    # Jobs are shown by what their events say; their code would only fill this process's memory.
    app.conf.imports = ()
    console = Flower(capp=app, options=default_options, **flower_settings)
    port = console.start_http_server()
    exporter.start(settings)
    atexit.register(console.stop)
    signal.signal(signal.SIGTERM, _exit)
    _log.info("console_ready", host=settings.console.host, port=port)
    console.start()


def _set_options(settings: Settings) -> None:
    console = settings.console
    options: dict[str, Any] = {
        "address": console.host,
        "port": console.port,
        "persistent": True,
        "db": str(run_directory(settings) / "console"),
        "state_save_interval": _SAVE_MS,
        "read_only": console.basic_auth is None,
        "basic_auth": [console.basic_auth.get_secret_value()] if console.basic_auth else [],
        # The workers send their events anyway; asking them every five seconds is needless.
        "enable_events": False,
    }
    for name, value in options.items():
        setattr(default_options, name, value)


def _exit(*_: object) -> None:
    sys.exit(0)
