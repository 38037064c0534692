"""Figures by HTTP, in Prometheus' text format.

Invariant: an answer is made from what is in memory. Where a token is set, nothing is told without
it but that the process lives.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from threading import Thread

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
from worker.answering import Answering, AnsweringServer
from worker.metrics.catalogue import Kind, Metric

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
        self.address = server.url
        self._server = server
        Thread(target=server.serve_forever, name="figures", daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(AnsweringServer):
    page: Callable[[], bytes]
    token: str | None


class _Handler(Answering):
    server: _Server

    def do_GET(self) -> None:  # noqa: N802 - the name that the library calls
        if self.path == "/healthcheck":
            self.answer(200, "text/plain", b"OK\n")
        elif self.path == "/metrics":
            self.answer_figures(self.server.token, self.server.page)
        else:
            self.answer(404, "text/plain", b"ask for /metrics or /healthcheck\n")
