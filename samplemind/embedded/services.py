"""The state of every service as an operator sees it: the four stores and the platform's processes.

Invariant: it only looks. It works from any process, whether the stores are embedded or reached by
URL, and shows addresses without passwords.
"""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import redis
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from samplemind.embedded.home import StackHome
from samplemind.embedded.placement import find_placement
from samplemind.embedded.platform import (
    ROLES,
    Phase,
    SupervisorState,
    living_supervisor,
    read_state,
    supervised_roles,
)
from samplemind.embedded.ports import Ports
from samplemind.embedded.probes import TIMEOUT_S, address_of, ask, readable
from samplemind.embedded.process import ProcessRecord
from samplemind.endpoints import Store, read_endpoints
from samplemind.errors import StoreUnavailableError
from samplemind.jobs.wire import HEARTBEAT_LIFE_S, HEARTBEAT_PATTERN, RoleName
from samplemind.settings import Settings

_KINDS: dict[str, str] = {RoleName.CONSOLE: "console", RoleName.BEAT: "scheduler"}
_SCAN_COUNT = 1000
_NOT_RUNNING = "not running: start it with `samplemind up`"
_DIED = "not running: it has died"


@dataclass(frozen=True)
class Sign:
    """A sign of life of a process; every machine on the broker leaves its own."""

    role: str
    host: str
    pid: int
    problem: str | None = None
    address: str | None = None


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
    """Return the state of the stores, then of the platform's processes and their supervisor."""
    return [*list_stores(settings), *list_processes(settings), *list_supervisor(settings)]


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
    signs = _read_signs(store_urls(settings).get(Store.BROKER)) if shown else []
    return [
        _process(home, settings, role, [sign for sign in signs if sign.role == role])
        for role in shown
    ]


def list_supervisor(settings: Settings) -> list[Service]:
    """Return the state of what restarts the others here; none where nothing is meant to run."""
    home = StackHome(settings.home)
    state = read_state(home)
    if state is None:
        return []
    owner = living_supervisor(home)
    if owner is not None:
        running = state.phase is Phase.RUNNING
        detail = "working" if running else state.phase.value
        return [Service("supervisor", "supervisor", None, owner.pid, running, detail)]
    if state.phase is Phase.STOPPED:
        return []
    return [Service("supervisor", "supervisor", None, None, False, explain_end(state))]


def explain_end(state: SupervisorState) -> str:
    """Return what to say of a supervisor that has ended without having been asked to."""
    if state.phase is Phase.FAILED:
        # Its message may go on with the end of a log, which the first line names.
        reason = (state.message.splitlines() or [""])[0].rstrip(":")
        return f"the last `up` failed: {reason.replace('; the end of ', '; see ')}"
    if state.phase is Phase.RUNNING:
        return "not running: nothing restarts what dies; run `samplemind up`"
    return f"it died while {state.phase.value}; run `samplemind up`"


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
        return Service(store.value, "store", None, pid, healthy=False, detail=_NOT_RUNNING)
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
    if report.refusal is not None:
        detail = f"{detail}, {report.refusal}"
    healthy = report.refusal is None
    return Service(store.value, "store", address, pid, healthy=healthy, detail=detail)


def _process(home: StackHome, settings: Settings, role: str, signs: Sequence[Sign]) -> Service:
    kind = _KINDS.get(role, "worker")
    pid = _pid(home, role)
    died = pid is None and home.process(role).record is not None
    if role == RoleName.CONSOLE:
        address = console_address(home, settings)
        # Without a process here its port is known only if the settings say where it is.
        expected = pid is not None or settings.console.port != 0
        problem = _DIED if died else _console_problem(address) if expected else _NOT_RUNNING
        return Service(
            role, kind, address, pid, healthy=problem is None, detail=problem or "working"
        )
    host = socket.gethostname()
    healthy, detail = judge_signs(pid, host, signs, died=died)
    address = next((sign.address for sign in signs if (sign.host, sign.pid) == (host, pid)), None)
    return Service(role, kind, address, pid, healthy=healthy, detail=detail)


def judge_signs(
    pid: int | None, host: str, signs: Sequence[Sign], *, died: bool = False
) -> tuple[bool, str]:
    """Return whether a role is healthy here, and what to say of it.

    Args:
        pid: that of the process that runs here; none: no such process runs here.
        host: the name of this machine.
        signs: those of the role, from every machine on the broker.
        died: whether one is on record here, so that it should run.
    """
    own = [sign for sign in signs if (sign.host, sign.pid) == (host, pid)]
    # One of this machine's that has ended has only not lapsed yet.
    others = [
        f"{sign.host} (pid {sign.pid})"
        for sign in signs
        if sign not in own and (sign.host != host or ProcessRecord.of(sign.pid) is not None)
    ]
    elsewhere = f"on {', '.join(sorted(others))}" if others else ""
    if own and own[0].problem is not None:
        return False, own[0].problem
    if own:
        return True, f"working; also {elsewhere}" if others else "working"
    if pid is None and not died:
        return (True, f"working {elsewhere}") if others else (False, _NOT_RUNNING)
    missed = _DIED if died else f"no sign of life in the last {HEARTBEAT_LIFE_S} s"
    return False, f"{missed}; others work {elsewhere}" if others else missed


def console_address(home: StackHome, settings: Settings) -> str | None:
    """Return where the console is, as far as it can be known from here."""
    port = settings.console.port or Ports(home.run).known().get(RoleName.CONSOLE)
    host = settings.console.host
    shown = f"[{host}]" if ":" in host else host  # an IPv6 address
    return None if port is None else f"http://{shown}:{port}"


def _console_problem(address: str | None) -> str | None:
    if address is None:
        return "has no address yet"
    try:
        with urllib.request.urlopen(f"{address}/healthcheck", timeout=TIMEOUT_S):  # noqa: S310
            return None
    except urllib.error.HTTPError:
        return None  # it answers; that it asks for a password is as it should be
    except OSError as error:
        return f"does not answer: {readable(error)}"


def _pid(home: StackHome, name: str) -> int | None:
    record = home.process(name).record
    return record.pid if record is not None and record.is_alive() else None


def _read_signs(url: SecretStr | None) -> list[Sign]:
    if url is None:
        return []
    try:
        with redis.Redis.from_url(
            url.get_secret_value(),
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            keys = list(client.scan_iter(HEARTBEAT_PATTERN, count=_SCAN_COUNT))
            found = client.mget(keys) if keys else []
    except redis.RedisError:
        return []  # shown with the broker itself
    texts = cast("list[bytes | None]", found)  # none: it lapsed meanwhile
    signs = [json.loads(text) for text in texts if text is not None]
    return [
        Sign(sign["role"], sign["host"], sign["pid"], sign.get("problem"), sign.get("address"))
        for sign in signs
    ]
