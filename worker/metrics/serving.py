"""Figures by HTTP, in Prometheus' text format.

Invariant: an answer is made from what is in memory. Where a token is set, nothing is told without
it but that the process lives.
"""

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from threading import Thread
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)  # fmt: skip
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.registry import Collector

from samplemind.log import get_logger
from worker.metrics.catalogue import Kind, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Samples = Mapping[Metric, Sequence[tuple[tuple[str, ...], Sequence[float]]]]
"""Figures by metric: label values, and the number; of a histogram its cells and its sum."""

_log = get_logger(__name__)


class _Once(Collector):
    """Hands families that are ready to the library that prints them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Family]:
        return self._families


def render(samples: Samples) -> bytes:
    """Return the page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(_family(metric, rows) for metric, rows in samples.items()))
    return generate_latest(registry)


def is_allowed(authorization: str | None, token: str | None) -> bool:
    """Return whether a request may see the figures."""
    if token is None:
        return True
    return hmac.compare_digest((authorization or "").encode(), f"Bearer {token}".encode())


def _family(metric: Metric, rows: Sequence[tuple[tuple[str, ...], Sequence[float]]]) -> Family:
    if metric.kind is Kind.HISTOGRAM:
        family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        bounds = [*map(str, map(float, metric.buckets)), "+Inf"]
        for values, cells in rows:
            reached = accumulate(cells[:-1])
            family.add_metric(values, list(zip(bounds, reached, strict=True)), cells[-1])
        return family
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    plain = kind(metric.name, metric.meaning, labels=metric.labels)
    for values, numbers in rows:
        plain.add_metric(values, numbers[0])
    return plain


class FiguresServer:
    """`/metrics` and `/healthcheck` on an address of their own."""

    def __init__(
        self, host: str, port: int, *, token: str | None, page: Callable[[], bytes]
    ) -> None:
        """Serve in a daemon thread from now on; port 0 is a free one.

        Raises:
            OSError: the address is taken, or none of this machine's.
        """
        server = _Server((host, port), _Handler)
        server.page, server.token = page, token
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{server.server_address[1]}"
        self._server = server
        Thread(target=server.serve_forever, name="figures", daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    page: Callable[[], bytes]
    token: str | None


class _Handler(BaseHTTPRequestHandler):
    timeout = 5
    server: _Server

    def do_GET(self) -> None:
        if self.path == "/healthcheck":
            self._send(200, "text/plain", b"OK\n")
        elif self.path != "/metrics":
            self._send(404, "text/plain", b"ask for /metrics or /healthcheck\n")
        elif not is_allowed(self.headers.get("Authorization"), self.server.token):
            self._send(401, "text/plain", b"the bearer token of SAMPLEMIND_METRICS_TOKEN\n")
        else:
            self._send(200, CONTENT_TYPE, self.server.page())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Leave no line for each scrape."""
