"""Passwords: hashed with Argon2id, with the parameters of RFC 9106's second recommendation.

Invariant: a password exists in memory only, as a `SecretStr`; what is stored cannot be turned
back. Each function takes some 50 ms and 64 MiB on purpose, so an event loop calls them through
`asyncio.to_thread`.
"""

from functools import cache

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import SecretStr

from samplemind.errors import InvalidInputError

MIN_CHARACTERS = 12
# Enough for any passphrase, and not enough to keep the hash function busy for long.
MAX_BYTES = 1024

# 3 passes over 64 MiB in 4 lanes: RFC 9106 section 4, for machines where memory is dear.
_hasher = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4, type=Type.ID)


def hash_password(password: SecretStr) -> str:
    """Return the encoded hash with its salt and parameters (`$argon2id$…`).

    Raises:
        InvalidInputError: it is shorter than 12 characters or longer than 1,024 bytes.
    """
    text = password.get_secret_value()
    if len(text) < MIN_CHARACTERS or len(text.encode()) > MAX_BYTES:
        message = (
            f"a password has {MIN_CHARACTERS} characters at least and {MAX_BYTES} bytes at most"
        )
        raise InvalidInputError(message)
    return _hasher.hash(text)


def verify_password(password: SecretStr, encoded: str | None) -> bool:
    """Return whether the password is the hashed one; none as a hash fits no password.

    A missing hash takes as long as a wrong password, so that the time does not tell whether an
    account exists.
    """
    text = password.get_secret_value()
    if len(text.encode()) > MAX_BYTES:
        return False
    try:
        fits = _hasher.verify(encoded if encoded is not None else _nobody(), text)
    except (VerificationError, InvalidHashError):
        return False
    return fits and encoded is not None


def needs_rehash(encoded: str) -> bool:
    """Return whether the hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(encoded)


@cache
def _nobody() -> str:
    return _hasher.hash("the password of nobody")
