"""The addresses that a running embedded stack leaves in its home.

Invariant: the file is replaced whole and readable by its owner only, because the URLs hold
passwords. It is written by `samplemind.embedded` and read by `samplemind.settings`.
"""

import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from pydantic import SecretStr

from samplemind.errors import StackNotRunningError

_FILE = Path("run") / "endpoints.json"


class Store(StrEnum):
    """The four stores, in the order in which they start."""

    POSTGRES = "postgres"
    MONGO = "mongo"
    BROKER = "broker"
    CACHE = "cache"


def read_endpoints(home: Path) -> dict[Store, SecretStr]:
    """Return the URL of each store that the stack in `home` serves; empty where none runs.

    Raises:
        StackNotRunningError: the home is another user's, who alone may read its passwords.
    """
    try:
        text = (home / _FILE).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError as error:
        message = f"the home {home} belongs to another user: set SAMPLEMIND_HOME to one of yours"
        raise StackNotRunningError(message) from error
    return {Store(name): SecretStr(url) for name, url in json.loads(text).items()}


def write_endpoints(home: Path, urls: Mapping[Store, SecretStr]) -> None:
    """Replace the file of addresses, mode 0600."""
    path = home / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    text = json.dumps({store.value: url.get_secret_value() for store, url in urls.items()})
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def remove_endpoints(home: Path) -> None:
    """Forget the addresses, once nothing serves them; repeating it is harmless."""
    (home / _FILE).unlink(missing_ok=True)
