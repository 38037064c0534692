"""One structlog pipeline for every process: readable on a terminal, JSON elsewhere.

Invariant: logs go to stderr, so that stdout carries results only. Event names are static; data
goes in keywords. Secrets, tokens, passwords and vectors are never logged.
"""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import Processor

from samplemind.settings import LogFormat, LogSettings


def configure_logging(settings: LogSettings) -> None:
    """Send structlog's and the standard library's records through one formatter to stderr."""
    shared = _shared_processors()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *_renderers(settings.format),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level)
    # Their INFO lines repeat what our own events say, once for each request.
    for name in ("alembic", "pymongo", "tornado.access", "amqp", "kombu"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def get_logger(name: str) -> Any:
    """Return the bound logger of a module; pass `__name__`."""
    return structlog.stdlib.get_logger(name)


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]


def _renderers(log_format: LogFormat) -> list[Processor]:
    readable = log_format is LogFormat.CONSOLE or (
        log_format is LogFormat.AUTO and sys.stderr.isatty()
    )
    if readable:
        return [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # The default prints the local variables of every frame, and with them passwords.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
