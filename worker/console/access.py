"""Who may look and who may act, and how often somebody may guess.

Failures count against an address, so whoever guesses behind the proxy that an operator is behind
too would keep the operator out. A right password that is let in while others wait would let anybody
guess without end. So a browser that has signed in before is told apart: it carries a signed mark,
and its failures are counted by themselves, as are those of all others.

Invariant: a password is compared in constant time and never logged; whoever fails too often waits,
marked or not; and what is remembered of failures is bounded.
"""

import hmac
import time
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from pydantic import SecretStr

from samplemind.settings import ConsoleSettings

LOOPBACK_NAMES = frozenset(("127.0.0.1", "localhost", "::1", "[::1]"))

_FREE_FAILURES = 5
_FREE_FAILURES_OF_AN_ADDRESS = 50
_FIRST_WAIT_S = 2.0
_LONGEST_WAIT_S = 300.0
_FORGOTTEN_AFTER_S = 900.0
_MOST_REMEMBERED = 10_000


class Role(IntEnum):
    """What somebody may do; a higher one may all that a lower one may."""

    NOBODY = 0
    VIEWER = 1
    OPERATOR = 2


@dataclass(frozen=True, slots=True)
class User:
    """Who is signed in; `name` is what the audit log tells."""

    name: str
    role: Role


ANYONE = User("anyone on this machine", Role.VIEWER)
"""Whoever looks at a console that asks for no password, which listens on loopback only."""


class Accounts:
    """The users that the settings name."""

    def __init__(self, console: ConsoleSettings) -> None:
        """Read them once; passwords stay in the settings' own secrets."""
        self._passwords: dict[str, tuple[SecretStr, Role]] = {}
        for role, accounts in (
            (Role.OPERATOR, console.basic_auth),
            (Role.VIEWER, console.basic_auth_viewers),
        ):
            for account in accounts:
                name, _, password = account.get_secret_value().partition(":")
                self._passwords[name] = (SecretStr(password), role)
        self._emails = dict.fromkeys(console.oauth_viewers, Role.VIEWER)
        self._emails |= dict.fromkeys(console.oauth_operators, Role.OPERATOR)

    @property
    def open(self) -> bool:
        """Whether nobody is asked for a name."""
        return not self._passwords and not self._emails

    @property
    def by_oauth(self) -> bool:
        """Whether names come from an OAuth provider."""
        return bool(self._emails)

    @property
    def emails(self) -> str:
        """Those that may sign in, as Flower's `auth` option takes them."""
        return "|".join(self._emails)

    @property
    def credentials(self) -> list[str]:
        """Every name and password, as Flower's `basic_auth` option takes them."""
        return [
            f"{name}:{password.get_secret_value()}"
            for name, (password, _) in self._passwords.items()
        ]

    def check_password(self, name: str, password: str) -> User | None:
        """Return the user with that name and password."""
        known, role = self._passwords.get(name, (SecretStr(""), Role.NOBODY))
        # A name that is unknown takes as long as a wrong password.
        right = hmac.compare_digest(known.get_secret_value().encode(), password.encode())
        return User(name, role) if right and role is not Role.NOBODY else None

    def find_email(self, email: str) -> User | None:
        """Return the user whom the OAuth provider told us of."""
        role = self._emails.get(email)
        return None if role is None else User(email, role)


def read_basic(header: str) -> tuple[str, str] | None:
    """Return name and password of an Authorization header; None where it holds none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return None
    return (name, password) if colon else None


def read_bearer(header: str) -> str | None:
    """Return the token of an Authorization header; None where it holds none."""
    scheme, _, token = header.partition(" ")
    return token if scheme.lower() == "bearer" and token else None


class Refusal(StrEnum):
    """Why nobody was let in."""

    WRONG = "wrong"  # the name or the password
    TOO_SOON = "too_soon"  # it was not looked at


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last_at: float = 0.0
    wait_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """Somebody's try to sign in.

    Attributes:
        mark: of a browser that has signed in under that name before; empty: of none.
    """

    address: str
    name: str
    mark: str = ""

    def counted_against(self) -> tuple[tuple[tuple[str, str], int], ...]:
        """Return what its failure counts against, and how many are free there."""
        if self.mark:
            return (((self.mark, self.name), _FREE_FAILURES),)
        return (
            ((self.address, self.name), _FREE_FAILURES),
            ((self.address, ""), _FREE_FAILURES_OF_AN_ADDRESS),
        )


class SignIns:
    """Failed attempts: of a marked browser by itself, else by address and name and by address.

    Attributes:
        refused: how many were refused, by why.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Remember nothing yet; the clock counts seconds."""
        self.refused = dict.fromkeys(Refusal, 0)
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def seconds_to_wait(self, attempt: Attempt) -> float:
        """Return after how many seconds it may be looked at; 0: now."""
        now = self._clock()
        waits = [
            found.wait_until - now
            for key, _ in attempt.counted_against()
            if (found := self._failures.get(key)) is not None
        ]
        return max(0.0, *waits) if waits else 0.0

    def turn_away(self) -> None:
        """Note one that was not looked at; it lengthens no wait."""
        self.refused[Refusal.TOO_SOON] += 1

    def fail(self, attempt: Attempt) -> None:
        """Note a wrong name or password; each beyond the free ones doubles the wait."""
        self.refused[Refusal.WRONG] += 1
        for key, free in attempt.counted_against():
            self._count(key, free)

    def succeed(self, attempt: Attempt) -> None:
        """Forget the failures of that name from there."""
        self._failures.pop(attempt.counted_against()[0][0], None)

    def _count(self, key: tuple[str, str], free: int) -> None:
        now = self._clock()
        found = self._failures.pop(key, None)
        if found is None or now - found.last_at > _FORGOTTEN_AFTER_S:
            found = _Failures()
        found.count += 1
        found.last_at = now
        if found.count >= free:
            wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(found.count - free, 16))
            found.wait_until = now + wait_s
        self._failures[key] = found
        while len(self._failures) > _MOST_REMEMBERED:
            self._failures.popitem(last=False)
