"""The list of figures, `docs/metrics.md`, made from the catalogue: `python -m` this module.

Invariant: what the page says follows from the catalogue alone, so a page that differs is stale.
"""

from pathlib import Path

from worker.metrics.catalogue import METRICS, Metric, Source

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"

_HEAD = """\
# Metrics

Made by `make docs` from `worker/metrics/catalogue.py`; do not edit. Why it is so is
[decision 7](adr/0007-metrics.md); what to scrape and which alerts there are stands in
`deploy/prometheus/`, what to do about each in [the runbook](runbook.md#alerts).
"""
_SECTIONS = {
    Source.WORKER: """\
## Each worker

At `/metrics` beside `/live` and `/ready` (`SAMPLEMIND_WORKER_HEALTH_HOST`, `…_PORT`). Counted by
the worker and its processes since the worker was started; a process that dies takes nothing along.
""",
    Source.CONSOLE: """\
## The platform

At `/metrics` of `SAMPLEMIND_METRICS_HOST` and `…_PORT`, by the console's process. Read from the
stores every `SAMPLEMIND_METRICS_PACE_S` seconds; a scrape asks nothing of a store. What could not
be read stays as it was, and `samplemind_figures_renewed_timestamp_seconds` says since when.
""",
}


def render() -> str:
    """Return the page."""
    parts = [_HEAD]
    for source, head in _SECTIONS.items():
        rows = [_row(metric) for metric in METRICS if metric.source is source]
        table = ["| metric | type | labels | meaning |", "|---|---|---|---|", *rows, ""]
        parts += [head, "\n".join(table)]
    return "\n".join(parts)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind.value} | {labels} | {metric.meaning} |"


if __name__ == "__main__":
    PAGE.write_text(render())
