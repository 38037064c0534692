"""Settings whose values lie in files: `SAMPLEMIND_POSTGRES_URL_FILE=/run/secrets/postgres_url`.

That is how Docker and Kubernetes hand out secrets, so that none stands in an environment that
`inspect` shows.

Invariant: a file that cannot be read is a fault that names the variable and the path, never the
content; a value that is given twice is a fault too, because one of the two would be ignored.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SUFFIX = "_FILE"

_LARGEST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Variables:
    """The environment with every file's content in the place of its path, and what was wrong."""

    values: dict[str, str | None] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def read_secret_files(
    environment: Mapping[str, str | None], settings: Collection[str]
) -> Variables:
    """Replace each `NAME_FILE` by `NAME` with the file's content.

    Args:
        environment: variables by name, in any case.
        settings: the upper-case names of all settings; others with the suffix are left alone.
    """
    found = Variables()
    given = {name.upper() for name, value in environment.items() if value}
    for name, value in environment.items():
        setting = name.upper().removesuffix(SUFFIX)
        if not names_a_file(name, settings):
            found.values.setdefault(name, value)
        elif not value:
            continue
        elif setting in given:
            found.faults.append(f"{name}: {setting} is set as well; keep one of the two")
        else:
            try:
                found.values[name[: -len(SUFFIX)]] = _read(Path(value))
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                found.faults.append(f"{name}: {value} cannot be read: {reason}")
    return found


def names_a_file(name: str, settings: Collection[str]) -> bool:
    """Return whether the variable names the file of a setting."""
    upper = name.upper()
    return upper not in settings and upper.removesuffix(SUFFIX) in settings


def _read(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_LARGEST_BYTES + 1)
    if len(content) > _LARGEST_BYTES:
        message = f"it is larger than {_LARGEST_BYTES} bytes"
        raise ValueError(message)
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        message = "it is not UTF-8 text"
        raise ValueError(message) from None  # the cause holds the content
    if not text:
        message = "it is empty"
        raise ValueError(message)
    return text
