"""Traces: from enqueue through the worker to the statements of the stores, sent by OTLP over HTTP.

Off unless `SAMPLEMIND_TRACING_ENDPOINT` is set; then nothing of OpenTelemetry is imported and a
span costs one comparison. What it needs is the extra `tracing`.

Invariant: the exporter and its thread are made by the process that has the first span, so that
nothing of them passes through a fork; a process that ends in order sends what it has. A receiver
that is away delays and stops nothing. A span never holds a value, a path or a secret.
"""

import atexit
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from samplemind.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan

    from samplemind.settings import TracingSettings

_PARENT_HEADERS = ("traceparent", "tracestate")
_SEND_EVERY_MS = 1_000
_SEND_TIMEOUT_S = 5
_FLUSH_S = 2.0

Attributes = Mapping[str, str | int | float | bool]


class Role(StrEnum):
    """What a span is in its trace."""

    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"
    CLIENT = "CLIENT"
    INTERNAL = "INTERNAL"


class Span(Protocol):
    """What may be said of a step while it is taken."""

    def note(self, name: str, value: str | float) -> None:
        """Add an attribute."""

    def fail(self, error: str) -> None:
        """Say that the step failed, and in a word with what."""

    def end(self) -> None:
        """End it; only for one that `begin_span` began."""


class _NoSpan:
    def note(self, name: str, value: str | float) -> None: ...
    def fail(self, error: str) -> None: ...
    def end(self) -> None: ...


class _OpenSpan:
    def __init__(self, span: "OtelSpan") -> None:
        self._span = span

    def note(self, name: str, value: str | float) -> None:
        self._span.set_attribute(name, value)

    def fail(self, error: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_status(StatusCode.ERROR, error)
        self._span.set_attribute("error.type", error)

    def end(self) -> None:
        self._span.end()


_NO_SPAN: Span = _NoSpan()


@dataclass(slots=True)
class _Tracing:
    settings: "TracingSettings | None" = None
    process: str = "samplemind"
    provider: "TracerProvider | None" = None
    provider_pid: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_tracing = _Tracing()


def configure_tracing(settings: "TracingSettings", process: str) -> None:
    """Send traces from now on, where the settings say to whom.

    Args:
        settings: without an endpoint nothing changes.
        process: what this process is, as the traces name it (`service.name`).

    Raises:
        SettingsError: traces are asked for and the packages that send them are not installed.
    """
    if settings.endpoint is None:
        return
    if not _is_installed():
        message = (
            "SAMPLEMIND_TRACING_ENDPOINT is set, and what sends traces is not installed: "
            "pip install 'samplemind-jobs[tracing]', or unset it"
        )
        raise SettingsError(message)
    _tracing.settings, _tracing.process = settings, process


def is_on() -> bool:
    """Return whether traces are sent."""
    return _tracing.settings is not None


def span(
    name: str,
    role: Role = Role.INTERNAL,
    attributes: Attributes | None = None,
    *,
    sender: Mapping[str, Any] | None = None,
) -> AbstractContextManager[Span]:
    """Return a context in which a step of that name is taken.

    Args:
        sender: headers of the message that asked for it; none: it belongs to the current step.
    """
    if _tracing.settings is None:
        return nullcontext(_NO_SPAN)
    return _span(name, role, attributes, sender)


def begin_span(name: str, role: Role, attributes: Attributes) -> Span:
    """Begin a step that is ended by `end`, and to which no other belongs."""
    if _tracing.settings is None:
        return _NO_SPAN
    from opentelemetry.trace import SpanKind

    kind = SpanKind[role.value]
    tracer = _provider().get_tracer("samplemind")
    return _OpenSpan(tracer.start_span(name, kind=kind, attributes=dict(attributes)))


def is_within_span() -> bool:
    """Return whether a step is being taken here, so that statements belong to something."""
    if _tracing.settings is None:
        return False
    from opentelemetry.trace import get_current_span

    return get_current_span().get_span_context().is_valid


def trace_headers() -> dict[str, str]:
    """Return the W3C headers that tie a message to the current step; none where traces are off."""
    if _tracing.settings is None:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers


def current_trace_id() -> str | None:
    """Return the id of the current trace in hex, as logs show it."""
    if _tracing.settings is None:
        return None
    from opentelemetry.trace import format_trace_id, get_current_span

    context = get_current_span().get_span_context()
    return format_trace_id(context.trace_id) if context.is_valid else None


def flush() -> None:
    """Send what this process has, for not longer than two seconds."""
    if _tracing.provider is not None and _tracing.provider_pid == os.getpid():
        _tracing.provider.force_flush(int(_FLUSH_S * 1000))


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


@contextmanager
def _span(
    name: str, role: Role, attributes: Attributes | None, sender: Mapping[str, Any] | None
) -> Iterator[Span]:
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent = None
    if sender is not None:
        carried = {key: str(sender[key]) for key in _PARENT_HEADERS if sender.get(key)}
        parent = TraceContextTextMapPropagator().extract(carried) if carried else None
    with (
        _provider()
        .get_tracer("samplemind")
        .start_as_current_span(
            name,
            context=parent,
            kind=SpanKind[role.value],
            attributes=dict(attributes or {}),
            # An exception's message may hold a path or a value.
            record_exception=False,
            set_status_on_exception=False,
        ) as opened
    ):
        yield _OpenSpan(opened)


def _provider() -> "TracerProvider":
    with _tracing.lock:
        if _tracing.provider is None or _tracing.provider_pid != os.getpid():
            _tracing.provider, _tracing.provider_pid = _make_provider(), os.getpid()
        return _tracing.provider


def _make_provider() -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    settings = _tracing.settings
    assert settings is not None  # noqa: S101 - callers have looked
    assert settings.endpoint is not None  # noqa: S101 - `configure_tracing` has looked
    exporter = OTLPSpanExporter(
        endpoint=settings.traces_url(),
        headers=settings.header_fields(),
        timeout=_SEND_TIMEOUT_S,
    )
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.share)),
        resource=Resource.create({"service.name": _tracing.process, "process.pid": os.getpid()}),
        # Its own handler waits for a receiver that is away; ours does not for long.
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_SEND_EVERY_MS))
    return provider


def _let_go_of_inherited_lock() -> None:
    # A fork in the middle of `_provider` would leave the child a lock that nobody opens.
    _tracing.lock = threading.Lock()


atexit.register(flush)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_of_inherited_lock)
