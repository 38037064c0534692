"""What a job's message says of itself beside its payload."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from samplemind.jobs.envelope import SENT_HEADER
from worker import deliveries

if TYPE_CHECKING:
    from worker.task import Job


def header(job: "Job", name: str) -> str | None:
    """Return a header of the running job's message; none where it has none."""
    # Celery spreads what is not its own over the request; a retry carries it in `headers`.
    value = getattr(job.request, name, None) or (job.request.headers or {}).get(name)
    return str(value) if value else None


def log_names(
    name: str, job_id: str, kwargs: Mapping[str, Any], traceparent: str | None
) -> dict[str, str]:
    """Return what every line about a job names: itself, its batch, and its trace where it has one.

    Args:
        name: the task's.
        job_id: the job's.
        kwargs: its payload.
        traceparent: the W3C header of its message, `version-trace-span-flags`.
    """
    names = {"job": name, "job_id": job_id}
    if isinstance(kwargs.get("batch_id"), str):
        names["batch_id"] = kwargs["batch_id"]
    parts = (traceparent or "").split("-")
    return {**names, "trace_id": parts[1]} if len(parts) == 4 else names


def waited_s(job: "Job") -> float | None:
    """Return how many seconds the job that starts now waited for its first start."""
    return wait_before(time.time(), header(job, SENT_HEADER), job.request.delivery_info)


def wait_before(
    started: float, sent: str | float | None, delivery_info: Mapping[str, Any] | None
) -> float | None:
    """Return how many seconds a job waited for its first start, by this machine's clock.

    None where its producer did not say when it was sent, or where it was started before: the time
    of the run that was lost is no waiting.

    Args:
        started: when, as a Unix time.
        sent: what the message's header `SENT_HEADER` says.
        delivery_info: of its message.
    """
    if sent is None or deliveries.was_redelivered(delivery_info):
        return None
    try:
        return max(0.0, started - float(sent))
    except ValueError:
        return None
