"""The types of single settings whose value has a form of its own.

Invariant: each is checked when the settings are read, and no message repeats the value, which may
be a secret.
"""

import base64
import json
import re
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints

from samplemind.endpoints import Store
from samplemind.errors import InvalidInputError, SettingsError
from samplemind.jobs.times import When, parse_when
from samplemind.urls import read_address

_FERNET_KEY_BYTES = 32
_BACKUP_KEY_BYTES = 32
_EMAIL = re.compile(r"[^@|*\s]+@[^@|*\s]+")
_STANDARD_BASE64 = str.maketrans("-_", "+/")


def url_of(store: Store) -> AfterValidator:
    """Return the check that a value is a URL of that store; none is fine."""

    def check(value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            read_address(store, value)
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return value

    return AfterValidator(check)


def _check_fernet_key(value: SecretStr) -> SecretStr:
    try:
        size_bytes = len(base64.urlsafe_b64decode(value.get_secret_value()))
    except ValueError:
        size_bytes = 0
    if size_bytes != _FERNET_KEY_BYTES:
        message = (
            "a Fernet key is needed, 32 bytes as url-safe base64; this prints one: python -c 'from "
            "cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
        )
        raise ValueError(message)
    return value


def _check_user_and_password(value: SecretStr) -> SecretStr:
    if not all(value.get_secret_value().partition(":")):
        message = "user:password is needed, both not empty"
        raise ValueError(message)
    return value


def _read_accounts(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.strip()
    # Lines suit a file, a list a variable. A password may begin with a bracket, a name may not.
    return _read_list(text) if text.startswith("[") else tuple(filter(None, text.splitlines()))


def _check_names(accounts: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    names = [account.get_secret_value().partition(":")[0] for account in accounts]
    if len(set(names)) < len(names):
        message = "a user is named twice"
        raise ValueError(message)
    return accounts


def _read_emails(value: Any) -> Any:
    emails = value.replace(",", " ").split() if isinstance(value, str) else value
    for email in emails if isinstance(emails, list | tuple) else ():
        if not _EMAIL.fullmatch(str(email)):
            message = "e-mail addresses are needed, with commas or spaces between"
            raise ValueError(message)
    return emails


def _read_list(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        message = 'a JSON list is needed, as in ["…", "…"]'
        raise ValueError(message) from None  # the cause holds the text


def _read_times(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    times: dict[str, When | None] = {}
    for part in filter(None, (part.strip() for part in value.split(";"))):
        name, sign, when = (piece.strip() for piece in part.partition("="))
        if not sign:
            message = f"job=time is needed, several with ; between: {part!r} has no ="
            raise ValueError(message)
        try:
            times[name] = None if when == "off" else parse_when(when, name=name)
        except InvalidInputError as error:
            message = f"{name}: {error}"
            raise ValueError(message) from None
    return times


def _read_keys(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        message = 'a JSON object of keys by their ids is needed, as in {"2026-11": "…"}'
        raise ValueError(message) from None  # the cause holds the text


def read_backup_key(value: str) -> bytes:
    """Return a backup key from its base64, of either alphabet.

    Raises:
        ValueError: it is not 32 bytes; the message does not repeat it.
    """
    try:
        key = base64.b64decode(value.strip().translate(_STANDARD_BASE64), validate=True)
    except ValueError:
        key = b""
    if len(key) != _BACKUP_KEY_BYTES:
        message = "a backup key is needed, 32 bytes as base64: openssl rand -base64 32 prints one"
        raise ValueError(message)
    return key


def _check_backup_key(value: SecretStr) -> SecretStr:
    read_backup_key(value.get_secret_value())
    return value


def _read_limits(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, dict) or not all(map(_names_owner, value)):
        message = 'a JSON object is needed, as in {"<user id>": {"running": 4}}, or "library"'
        raise ValueError(message)
    return value


def _names_owner(key: str) -> bool:
    try:
        return key == "library" or str(UUID(key)) == key
    except ValueError:
        return False


FernetKey = Annotated[SecretStr, AfterValidator(_check_fernet_key)]
"""What `cryptography.fernet` takes as a key."""

FernetKeys = Annotated[tuple[FernetKey, ...], BeforeValidator(_read_list)]
"""Several of them, as a JSON list in a variable."""

OwnerLimits = Annotated[
    dict[str, dict[Literal["running", "per_minute"], Annotated[int, Field(ge=0, le=10_000)]]],
    BeforeValidator(_read_limits),
]
"""Limits of some owners, as JSON in a variable."""

UserAndPassword = Annotated[SecretStr, AfterValidator(_check_user_and_password)]
"""As in HTTP's Basic authentication."""

UsersAndPasswords = Annotated[
    tuple[UserAndPassword, ...], BeforeValidator(_read_accounts), AfterValidator(_check_names)
]
"""Several of them: one a line, or as a JSON list."""

Emails = Annotated[tuple[str, ...], BeforeValidator(_read_emails)]
"""E-mail addresses, with commas or spaces between."""

ScheduleTimes = Annotated[dict[str, When | None], BeforeValidator(_read_times)]
"""Times of periodic jobs by name, none for one that is off; in a variable `job=time; job=off`."""

BackupKeys = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z_.-]{0,63}$")],
        Annotated[SecretStr, AfterValidator(_check_backup_key)],
    ],
    BeforeValidator(_read_keys),
]
"""Keys of 32 bytes in base64 by their ids, as a JSON object in a variable; the first is current."""
