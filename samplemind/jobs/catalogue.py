"""The catalogue of jobs, `docs/tasks.md`, made from the payload models: `python -m` this module.

Invariant: what the page says follows from the models alone, so a page that differs is stale.
"""

import inspect
import json
from pathlib import Path
from typing import Any

from samplemind.jobs.envelope import SCHEMA_HEADER
from samplemind.jobs.payloads import PAYLOADS, Payload
from samplemind.jobs.wire import KEY_PREFIX, queue_for

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"

_HEAD = f"""\
# Jobs

Made by `make docs` from `samplemind/jobs/payloads.py`; do not edit.

From Python, with the client, which checks the payload before it is sent:

```python
from samplemind.jobs.client import SyncJobs
from samplemind.jobs.payloads import RefreshVocabulary

with SyncJobs() as jobs:
    job_id = jobs.enqueue(RefreshVocabulary(), idempotency_key="tonight")
    print(jobs.result(job_id, timeout=600))
```

From any other Celery client, by name, to the queue given below, with the payload as named
arguments. The broker's keys start with `{KEY_PREFIX}`; the header `{SCHEMA_HEADER}` says which
version of the payload it is, and without it, it is 1:

```python
app.conf.broker_transport_options = {{"global_keyprefix": "{KEY_PREFIX}"}}
app.send_task("search.index_files", kwargs={{"ids": ["0190c6a8-…"]}}, queue="index")
```

A payload that does not fit is refused by the client, and by the worker, where it becomes a dead
letter: `samplemind jobs dead`.
"""


def render() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *(_section(payload) for payload in PAYLOADS)])


def _section(payload: type[Payload]) -> str:
    schema = payload.model_json_schema()
    required = set(schema.get("required", ()))
    notes = "; comes again by itself, so its state is not kept" if payload.housekeeping else ""
    lines = [
        f"## `{payload.job_name}`",
        "",
        inspect.cleandoc(payload.__doc__ or ""),
        "",
        (
            f"Model `{payload.__name__}`, version {payload.schema_version}, "
            f"queue `{queue_for(payload.job_name).value}`{notes}."
        ),
        "",
    ]
    fields = schema.get("properties", {})
    if fields:
        lines += ["| field | JSON | needed |", "|---|---|---|"]
        for name, field in fields.items():
            needed = "yes" if name in required else f"no, `{json.dumps(field.get('default'))}`"
            lines.append(f"| `{name}` | {_type(field)} | {needed} |")
    else:
        lines.append("No fields: `{}`.")
    return "\n".join([*lines, ""])


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(choice) for choice in field["anyOf"])
    name = str(field.get("type", "any"))
    if "enum" in field:
        name = " or ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    if "format" in field:
        name += f" ({field['format']})"
    if "items" in field:
        name += f" of {_type(field['items'])}"
    bounds = (
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("minItems", "at least"),
        ("maxItems", "at most"),
        ("minLength", "at least"),
        ("maxLength", "at most"),
    )
    limits = [f"{word} {field[bound]}" for bound, word in bounds if bound in field]
    return f"{name}, {', '.join(limits)}" if limits else name


if __name__ == "__main__":
    PAGE.write_text(render())
