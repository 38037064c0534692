"""Random tokens that sign a program or a browser in.

Invariant: a token is seen once, by whoever asked for it; the platform keeps its SHA-256 only. It
has 256 random bits, so that a fast hash without salt is as good as a slow one, and a database
index can look it up.
"""

import hashlib
import secrets
from dataclasses import dataclass

from pydantic import SecretStr

API_KEY_START = "smk_"

_RANDOM_BYTES = 32
_SHOWN_CHARACTERS = 6


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A fresh token: itself, what may be shown of it, and what is stored (32 bytes)."""

    token: SecretStr
    prefix: str
    digest: bytes


def issue_token(start: str = "") -> IssuedToken:
    """Make a token that begins with `start`, so that a leak scanner knows it for what it is."""
    text = start + secrets.token_urlsafe(_RANDOM_BYTES)
    return IssuedToken(
        token=SecretStr(text),
        prefix=text[: len(start) + _SHOWN_CHARACTERS],
        digest=token_digest(SecretStr(text)),
    )


def token_digest(token: SecretStr) -> bytes:
    """Return the SHA-256 by which a token is looked up, 32 bytes."""
    return hashlib.sha256(token.get_secret_value().encode()).digest()
