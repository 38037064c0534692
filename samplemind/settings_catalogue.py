"""The catalogue of settings, `docs/settings.md`, made from their tree: `python -m` this module.

Invariant: what the page says follows from the tree alone, so a page that differs is stale.
"""

import inspect
import re
import types
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from samplemind.secret_files import SUFFIX
from samplemind.setting_types import BackupKeys, FernetKeys, OwnerLimits, ScheduleTimes
from samplemind.settings import PREFIX, Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"

_HEAD = f"""\
# Settings

Made by `make docs` from `samplemind/settings.py`; do not edit.

Every setting is an environment variable. It is read once, when a process starts; a wrong value, a
value that does not fit another, or a variable that begins with `{PREFIX}` and is none of these
stops the process with one line for each fault. `samplemind doctor` shows the values that count and
where each comes from. An empty variable is as good as none.

With `{SUFFIX}` behind its name, a variable names the file that holds the value, which is how
Docker and Kubernetes hand out secrets: `{PREFIX}POSTGRES_URL{SUFFIX}=/run/secrets/postgres_url`. A
setting whose own name ends so (`{PREFIX}BACKUP_KEY{SUFFIX}`) is meant as it stands.

A store without a URL is served by the embedded stack: `samplemind up`.
"""

# The ends of names that carry a unit, the longer ones first.
_UNITS = (
    ("_mib_s", "MiB a second"),
    ("_minutes", "minutes"),
    ("_hours", "hours"),
    ("_days", "days"),
    ("_mib", "MiB"),
    ("_ms", "milliseconds"),
    ("_h", "hours"),
    ("_s", "seconds"),
)
_FORMS: tuple[tuple[Any, str], ...] = (
    (FernetKeys, "JSON list of keys, secret"),
    (BackupKeys, "JSON object of keys, secret"),
    (OwnerLimits, "JSON object"),
    (ScheduleTimes, "`job=time; …`"),
)
"""Types whose value has a form of its own, and how to call it."""

_WORDS: dict[type, str] = {
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
    Path: "path",
    SecretStr: "secret",
}


def render() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *_sections(), *_relations()])


def _sections() -> Iterator[str]:
    alone = {name: field for name, field in Settings.model_fields.items() if _group(field) is None}
    yield _section("On their own", "", "", alone)
    for name, field in Settings.model_fields.items():
        group = _group(field)
        if group is not None:
            meaning = inspect.cleandoc(group.__doc__ or "")
            yield _section(f"`{name}`", meaning, f"{name}_", group.model_fields)


def _group(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _section(title: str, meaning: str, prefix: str, fields: dict[str, FieldInfo]) -> str:
    lines = [f"## {title}", "", *([meaning, ""] if meaning else [])]
    lines += ["| variable | value | default | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        cells = (
            f"`{PREFIX}{prefix}{name}`".upper(),
            _value(name, field),
            _default(field),
            field.description or "",
        )
        lines.append(f"| {' | '.join(_escaped(cell) for cell in cells)} |")
    return "\n".join([*lines, ""])


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("*", r"\*")


def _value(name: str, field: FieldInfo) -> str:
    """Return what the variable takes: its kind, or its unit, and its bounds."""
    kind, limits = _kind(field.annotation, field.metadata)
    unit = next((unit for end, unit in _UNITS if name.endswith(end)), None)
    if unit is not None and kind in ("whole number", "number"):
        kind = unit if kind == "whole number" else f"{unit}, also parts"
    return ", ".join([kind, *limits])


def _kind(annotation: Any, metadata: list[Any]) -> tuple[str, list[str]]:
    for form, words in _FORMS:
        if get_args(form)[0] == annotation:
            return words, []
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _kind(inner, [*more, *metadata])
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [_kind(each, metadata) for each in get_args(annotation) if each is not type(None)]
        return " or ".join(kind for kind, _ in kinds), kinds[0][1]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{each}`" for each in get_args(annotation)), []
    if not isinstance(annotation, type):  # a list or an object of something
        return "JSON", []
    if issubclass(annotation, StrEnum):
        # Languages are many; they stand in the code.
        names = [f"`{each.value}`" for each in annotation]
        return " or ".join(names if len(names) <= 6 else [*names[:3], "…"]), []
    return _WORDS.get(annotation, "text"), list(_limits(metadata))


def _limits(metadata: list[Any]) -> Iterator[str]:
    for limit in metadata:
        match limit:
            case Ge(ge=bound):
                yield f"at least {bound:,}"
            case Gt(gt=bound):
                yield f"more than {bound:,}"
            case Le(le=bound):
                yield f"at most {bound:,}"
            case Lt(lt=bound):
                yield f"less than {bound:,}"
            case MinLen(min_length=bound) if bound > 1:
                yield f"{bound} characters at least"
            case MaxLen(max_length=bound):
                yield f"{bound} at most"
            case _:
                pass  # a check of its own form, which its meaning tells


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        # Of a path it depends on who asks, which the page must not.
        return "`~/.local/share/samplemind`" if field.annotation is Path else ""
    value = field.default
    if value is None or value in ((), {}, ""):
        return ""
    return f"`{value.value if isinstance(value, StrEnum) else value}`"


def _relations() -> Iterator[str]:
    """Yield what is checked between settings, as the checks themselves say in their docstrings."""
    yield "## What must fit what\n"
    trees: list[type[BaseModel]] = [Settings]
    trees[:0] = [group for field in Settings.model_fields.values() if (group := _group(field))]
    for group in trees:
        for check in group.__pydantic_decorators__.model_validators.values():
            text = " ".join((getattr(check.func, "__doc__", None) or "").split())
            for sentence in re.split(r"(?<=\.)\s+", text):
                if sentence:
                    yield f"- {sentence}"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(render())
