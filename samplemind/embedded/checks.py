"""What `doctor` looks at: each check is one line, with the mend where something is wrong.

Invariant: it only looks, starts nothing, and works when nothing runs. A store that is embedded and
not running is no fault; a store with a URL that does not answer is one.
"""

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from pydantic import SecretStr

from samplemind.embedded.account import unprivileged_account
from samplemind.embedded.binaries import server_binary
from samplemind.embedded.home import StackHome, name_fault
from samplemind.embedded.libraries import require_libraries
from samplemind.embedded.placement import ELSEWHERE, find_placement
from samplemind.embedded.probes import StoreReport, address_of, ask
from samplemind.embedded.services import store_urls
from samplemind.endpoints import Store, read_endpoints
from samplemind.errors import EmbeddedError, StoreUnavailableError
from samplemind.settings import Settings

_GIB = 1024**3
_MIB = 1024**2
_DISK_WARN_BYTES = 5 * _GIB
_DISK_FAIL_BYTES = 1 * _GIB
_CLOCK_WARN_S = 2.0
_BROKER_WARN = 0.8
_BROKER_FAIL = 0.97
_OLDEST = {Store.POSTGRES: 16, Store.MONGO: 6, Store.BROKER: 7, Store.CACHE: 7}
_OLDEST_PGVECTOR = (0, 8)
_EXTENSIONS = ("vector", "pg_trgm", "btree_gin", "pg_stat_statements")


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of `doctor`; `mend` says what to do, where something is to be done."""

    check: str
    verdict: Verdict
    message: str
    mend: str | None = None


@dataclass(frozen=True)
class _Answer:
    report: StoreReport
    asked_at: datetime
    answered_at: datetime


def examine(settings: Settings) -> list[Finding]:
    """Return what was found, in the order in which one would mend it."""
    findings = [_python(), *_home(settings)]
    embedded = settings.embedded_stores()
    findings += [_server(store) for store in embedded]
    if Store.MONGO in embedded:
        findings += _processor(Path("/proc/cpuinfo"))
    if Store.POSTGRES in embedded:
        findings += _postgres_place(settings)
    urls = store_urls(settings)
    with ThreadPoolExecutor(max_workers=len(Store)) as pool:
        outcomes = dict(zip(Store, pool.map(lambda store: _ask(store, urls), Store), strict=True))
    answers: dict[Store, _Answer] = {}
    for store, outcome in outcomes.items():
        if isinstance(outcome, _Answer):
            answers[store] = outcome
            findings.append(check_version(store, outcome.report))
        else:
            findings.append(_silence(store, settings, outcome))
    findings += _contents(answers)
    return [*findings, _encryption_key(settings)]


def _python() -> Finding:
    # An older one could not have installed the package.
    return Finding("python", Verdict.OK, f"{platform.python_version()} in {sys.prefix}")


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home
    fault = name_fault(home)
    if fault is not None:
        yield Finding("home", Verdict.FAIL, fault, "choose another one with SAMPLEMIND_HOME")
        return
    existing = next(place for place in (home, *home.parents) if place.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        mend = "choose another directory with SAMPLEMIND_HOME"
        yield Finding("home", Verdict.FAIL, f"{existing} cannot be written", mend)
        return
    made = "" if home.exists() else " (made at the first `samplemind up`)"
    yield Finding("home", Verdict.OK, f"{home}{made}")
    yield check_disk(existing, shutil.disk_usage(existing).free)


def check_disk(place: Path, free_bytes: int) -> Finding:
    """Judge the free space of the file system that holds `place`."""
    message = f"{free_bytes / _GIB:.1f} GiB free in {place}"
    if free_bytes < _DISK_FAIL_BYTES:
        return Finding("disk", Verdict.FAIL, message, "free some: the stores stop when it is full")
    if free_bytes < _DISK_WARN_BYTES:
        return Finding("disk", Verdict.WARN, message, "free some before it is full")
    return Finding("disk", Verdict.OK, message)


def _server(store: Store) -> Finding:
    check = f"{store.value} server"
    try:
        binary = server_binary(store)
        require_libraries(binary)
    except EmbeddedError as error:
        fault, _, mend = str(error).partition(": ")
        return Finding(check, Verdict.FAIL, fault, mend or None)
    return Finding(check, Verdict.OK, str(binary))


def _processor(description: Path) -> Iterator[Finding]:
    if description.exists() and " avx " not in description.read_text():
        mend = "set SAMPLEMIND_MONGO_URL to a server on another machine"
        yield Finding("processor", Verdict.FAIL, "mongod needs AVX, which is missing", mend)


def _postgres_place(settings: Settings) -> Iterator[Finding]:
    home = StackHome(settings.home)
    check = "postgres account"
    try:
        account = unprivileged_account()
        placement = find_placement(home)
    except EmbeddedError as error:
        yield Finding(check, Verdict.FAIL, str(error), "see the message")
        return
    if placement is not None and placement.account is not None:
        yield Finding(check, Verdict.OK, placement.explain(home))
        if not placement.data.is_relative_to(home.path):
            yield check_disk(placement.data, shutil.disk_usage(placement.data).free)
    elif account is not None:
        message = f"will run as {account.name}, because PostgreSQL refuses root"
        yield Finding(check, Verdict.OK, message)
    if account is not None and ELSEWHERE.is_dir():
        for place in sorted(ELSEWHERE.glob("*.orphaned-*")):
            mend = f"delete it if nobody misses it: rm -r {place}"
            yield Finding("orphaned data", Verdict.WARN, f"{place}: its home was deleted", mend)


def _ask(store: Store, urls: Mapping[Store, SecretStr]) -> _Answer | str | None:
    if store not in urls:
        return None
    asked_at = datetime.now(UTC)
    begun = time.monotonic()
    try:
        report = ask(store, urls[store])
    except StoreUnavailableError as error:
        return f"{address_of(store, urls[store])}: {error}"
    elapsed_s = time.monotonic() - begun
    answered_at = datetime.fromtimestamp(asked_at.timestamp() + elapsed_s, UTC)
    return _Answer(report, asked_at, answered_at)


def _silence(store: Store, settings: Settings, fault: str | None) -> Finding:
    if fault is None:
        return Finding(store.value, Verdict.OK, "not running; `samplemind up` starts it")
    if store in read_endpoints(settings.home) and settings.url(store) is None:
        mend = f"see {StackHome(settings.home).log(store.value)}, then `samplemind down` and `up`"
    else:
        mend = f"start it, or correct SAMPLEMIND_{store.name}_URL"
    return Finding(store.value, Verdict.FAIL, fault, mend)


def check_version(store: Store, report: StoreReport) -> Finding:
    """Judge a store's version."""
    oldest = _OLDEST[store]
    major = int(report.version.rpartition(" ")[2].partition(".")[0])
    if major < oldest:
        mend = f"upgrade it to {oldest} or newer"
        return Finding(store.value, Verdict.FAIL, f"{report.version} is too old", mend)
    return Finding(store.value, Verdict.OK, report.version)


def _contents(answers: Mapping[Store, _Answer]) -> Iterator[Finding]:
    if Store.POSTGRES in answers:
        yield check_extensions(answers[Store.POSTGRES].report)
    if Store.MONGO in answers:
        yield check_replica_set(answers[Store.MONGO].report)
    if Store.BROKER in answers:
        cache = answers.get(Store.CACHE)
        yield check_broker(answers[Store.BROKER].report, cache.report if cache else None)
        yield check_broker_memory(answers[Store.BROKER].report)
    for store, answer in answers.items():
        if answer.report.refusal is not None:
            mend = "its log says more; free its disk, or give it more memory"
            yield Finding(f"{store.value} writes", Verdict.FAIL, answer.report.refusal, mend)
    for store, answer in answers.items():
        yield check_clock(store, answer.report.now, answer.asked_at, answer.answered_at)


def check_extensions(report: StoreReport) -> Finding:
    """Judge which extensions PostgreSQL can install."""
    known = report.extensions or {}
    missing = [name for name in _EXTENSIONS if name not in known]
    if missing:
        mend = "install PostgreSQL's contrib package and pgvector on its machine"
        return Finding("extensions", Verdict.FAIL, f"missing: {', '.join(missing)}", mend)
    pgvector = tuple(int(part) for part in known["vector"].split(".")[:2])
    if pgvector < _OLDEST_PGVECTOR:
        message = f"pgvector {known['vector']} cannot filter while it searches"
        return Finding("extensions", Verdict.FAIL, message, "upgrade pgvector to 0.8 or newer")
    found = ", ".join(f"{name} {known[name]}" for name in _EXTENSIONS)
    return Finding("extensions", Verdict.OK, found)


def check_replica_set(report: StoreReport) -> Finding:
    """Judge whether MongoDB can run transactions."""
    if report.replica_set is None:
        mend = "start mongod with --replSet and run rs.initiate() once"
        message = "no replica set, so there are no transactions"
        return Finding("replica set", Verdict.FAIL, message, mend)
    if not report.writable:
        mend = "add replicaSet=… to SAMPLEMIND_MONGO_URL, so that the primary is found"
        message = f"{report.replica_set}: the server is not the primary"
        return Finding("replica set", Verdict.FAIL, message, mend)
    return Finding("replica set", Verdict.OK, f"{report.replica_set}, primary")


def examine_broker(settings: Settings) -> Finding | None:
    """Judge the broker of these settings; none where it does not answer."""
    urls = store_urls(settings)
    reports: dict[Store, StoreReport] = {}
    for store in (Store.BROKER, Store.CACHE):
        answer = _ask(store, urls)
        if isinstance(answer, _Answer):
            reports[store] = answer.report
    if Store.BROKER not in reports:
        return None
    return check_broker(reports[Store.BROKER], reports.get(Store.CACHE))


def check_broker(broker: StoreReport, cache: StoreReport | None) -> Finding:
    """Judge whether the broker may lose jobs."""
    shared = cache is not None and cache.run_id == broker.run_id and broker.run_id is not None
    if broker.eviction != "noeviction":
        message = f"its policy {broker.eviction} can evict, and with it jobs"
        mend = "set maxmemory-policy noeviction"
        if shared:
            mend += ", and give the cache an instance of its own"
        return Finding("broker", Verdict.WARN, message, mend)
    if shared:
        message = "broker and cache are one instance: a full cache stops the broker"
        mend = "give SAMPLEMIND_CACHE_URL an instance of its own, with allkeys-lfu"
        return Finding("broker", Verdict.WARN, message, mend)
    return Finding("broker", Verdict.OK, "never evicts (noeviction)")


def check_broker_memory(broker: StoreReport) -> Finding:
    """Judge how full the broker is: a full one takes no job."""
    used_mib = broker.used_bytes / _MIB
    if not broker.max_bytes:
        return Finding("broker memory", Verdict.OK, f"{used_mib:,.0f} MiB, no bound of its own")
    share = broker.used_bytes / broker.max_bytes
    message = f"{share:.0%} full: {used_mib:,.0f} of {broker.max_bytes / _MIB:,.0f} MiB"
    if share < _BROKER_WARN:
        return Finding("broker memory", Verdict.OK, message)
    mend = "give it more (CONFIG SET maxmemory); when it is full no job can be sent"
    verdict = Verdict.FAIL if share >= _BROKER_FAIL else Verdict.WARN
    return Finding("broker memory", verdict, message, mend)


def check_clock(store: Store, now: datetime, asked_at: datetime, answered_at: datetime) -> Finding:
    """Judge a store's clock, which it read between the question and its answer."""
    early_s = (asked_at - now).total_seconds()
    late_s = (now - answered_at).total_seconds()
    check = f"{store.value} clock"
    if max(early_s, late_s) > _CLOCK_WARN_S:
        message = f"{max(early_s, late_s):.0f} s {'behind' if early_s > 0 else 'ahead of'} this one"
        return Finding(check, Verdict.WARN, message, "run a time service (NTP) on both machines")
    return Finding(check, Verdict.OK, "agrees with this one")


def _encryption_key(settings: Settings) -> Finding:
    check = "encryption key"
    if settings.security.encryption_key is None:
        message = "none is set, so no tokens of other services can be stored"
        mend = (
            "set SAMPLEMIND_SECURITY_ENCRYPTION_KEY to what this prints: python -c 'from "
            "cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
        )
        return Finding(check, Verdict.WARN, message, mend)
    return Finding(check, Verdict.OK, "set")
