"""The passwords of one stack's servers, made once.

Invariant: the file is complete from the moment it exists, and readable by its owner only. The
passwords are letters and digits of the URL-safe alphabet, so they stand in a URL as they are.
"""

import json
import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from samplemind.endpoints import Store

_FILE = "passwords.json"
_BYTES = 24


def load_passwords(home: Path) -> dict[Store, SecretStr]:
    """Return each store's password; make the missing ones and keep them."""
    path = home / _FILE
    known = _read(path)
    missing = [store for store in Store if store.value not in known]
    if missing:
        known.update({store.value: secrets.token_urlsafe(_BYTES) for store in missing})
        _replace(path, json.dumps(known, indent=1))
    return {store: SecretStr(known[store.value]) for store in Store}


def _read(path: Path) -> dict[str, str]:
    try:
        known: dict[str, str] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return known


def _replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        # The databases are initialised with these: losing them in a crash would lock us out.
        os.fsync(file.fileno())
    draft.replace(path)
