"""The state of every service as an operator sees it: the four stores and the platform's processes.

Invariant: it only looks. It works from any process, whether the stores are embedded or reached by
URL, and shows addresses without passwords.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import redis
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from samplemind.embedded.home import StackHome
from samplemind.embedded.placement import find_placement
from samplemind.embedded.platform import CONSOLE, ROLES, supervised_roles
from samplemind.embedded.ports import Ports
from samplemind.embedded.probes import TIMEOUT_S, address_of, ask
from samplemind.endpoints import Store, read_endpoints
from samplemind.errors import StoreUnavailableError
from samplemind.settings import Settings

# Written by every process of the platform while its loop works; see worker.heartbeat.
_HEARTBEAT = "sm:heartbeat:"

_KINDS = {CONSOLE: "console", "beat": "scheduler"}


@dataclass(frozen=True)
class Service:
    """One line of `status`; `pid` is none for what runs elsewhere or not at all."""

    name: str
    kind: str
    address: str | None
    pid: int | None
    healthy: bool
    detail: str


def list_services(settings: Settings) -> list[Service]:
    """Return the state of the stores, then of the platform's processes."""
    return [*list_stores(settings), *list_processes(settings)]


def list_stores(settings: Settings) -> list[Service]:
    """Return the state of each store, as it tells when asked."""
    home = StackHome(settings.home)
    urls = store_urls(settings)
    with ThreadPoolExecutor(max_workers=len(Store)) as pool:
        return list(pool.map(lambda store: _store(home, store, urls.get(store)), Store))


def list_processes(settings: Settings) -> list[Service]:
    """Return the state of each process by its sign of life.

    They are those that a supervisor runs here; without one all roles, which may run elsewhere.
    """
    home = StackHome(settings.home)
    roles = supervised_roles(home)
    shown = ROLES if roles is None else roles
    signs = _read_signs(store_urls(settings).get(Store.BROKER), shown)
    return [_process(home, settings, role, signs.get(role)) for role in shown]


def store_urls(settings: Settings) -> dict[Store, SecretStr]:
    """Return the URL of each store that has one: from the settings, else from a running stack."""
    urls = read_endpoints(settings.home)
    for store in Store:
        url = settings.url(store)
        if url is not None:
            urls[store] = url
    return urls


def _store(home: StackHome, store: Store, url: SecretStr | None) -> Service:
    pid = _pid(home, store.value)
    if url is None:
        detail = "not running: start it with `samplemind up`"
        return Service(store.value, "store", None, pid, healthy=False, detail=detail)
    address = address_of(store, url)
    try:
        report = ask(store, url)
    except StoreUnavailableError as error:
        return Service(store.value, "store", address, pid, healthy=False, detail=str(error))
    detail = report.version
    if store is Store.POSTGRES and pid is not None:
        placement = find_placement(home)
        if placement is not None and placement.account is not None:
            detail += f", {placement.explain(home)}"
    if not report.writable:
        return Service(
            store.value, "store", address, pid, healthy=False, detail=f"{detail}, not a primary"
        )
    return Service(store.value, "store", address, pid, healthy=True, detail=detail)


def _process(
    home: StackHome, settings: Settings, role: str, sign: dict[str, Any] | None
) -> Service:
    kind = _KINDS.get(role, "worker")
    pid = _pid(home, role)
    address = console_address(home, settings) if role == CONSOLE else None
    if role == CONSOLE and address is not None:
        problem = _console_problem(address)
    elif sign is None:
        problem = "no sign of life in the last 15 s"
    elif pid is not None and sign["pid"] != pid:
        problem = "starting: the last sign of life is of the process before"
    else:
        problem = None
    return Service(role, kind, address, pid, healthy=problem is None, detail=problem or "working")


def console_address(home: StackHome, settings: Settings) -> str | None:
    """Return where the console is, as far as it can be known from here."""
    port = settings.console.port or Ports(home.run).known().get(CONSOLE)
    host = settings.console.host
    shown = f"[{host}]" if ":" in host else host  # an IPv6 address
    return None if port is None else f"http://{shown}:{port}"


def _console_problem(address: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{address}/healthcheck", timeout=TIMEOUT_S):  # noqa: S310
            return None
    except urllib.error.HTTPError:
        return None  # it answers; that it asks for a password is as it should be
    except OSError as error:
        return f"does not answer: {error}"


def _pid(home: StackHome, name: str) -> int | None:
    record = home.process(name).record
    return record.pid if record is not None and record.is_alive() else None


def _read_signs(url: SecretStr | None, roles: Iterable[str]) -> dict[str, dict[str, Any]]:
    names = list(roles)
    if url is None or not names:
        return {}
    try:
        with redis.Redis.from_url(
            url.get_secret_value(),
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            found = client.mget([f"{_HEARTBEAT}{name}" for name in names])
    except redis.RedisError:
        return {}  # shown with the broker itself
    texts = cast("list[bytes | None]", found)
    return {name: json.loads(text) for name, text in zip(names, texts, strict=True) if text}
