from datetime import UTC, datetime, timedelta
from pathlib import Path
from traceback import format_exception

import pytest
from pydantic import SecretStr

from samplemind.cli.doctor import Source, effective_settings
from samplemind.embedded.checks import (
    Verdict,
    check_broker,
    check_broker_memory,
    check_clock,
    check_disk,
    check_extensions,
    check_replica_set,
    check_version,
    examine,
)
from samplemind.embedded.probes import StoreReport
from samplemind.endpoints import Store
from samplemind.errors import SettingsError
from samplemind.settings import load_settings

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_EXTENSIONS = {
    "vector": "0.8.1",
    "pg_trgm": "1.6",
    "btree_gin": "1.3",
    "pg_stat_statements": "1.12",
}


def _redis(eviction: str, run_id: str) -> StoreReport:
    return StoreReport("Redis 8.0.0", _NOW, eviction=eviction, run_id=run_id)


@pytest.mark.parametrize(
    ("eviction", "cache_id", "verdict"),
    [
        ("noeviction", "b", Verdict.OK),
        ("allkeys-lru", "b", Verdict.WARN),
        ("noeviction", "a", Verdict.WARN),
        ("allkeys-lru", "a", Verdict.WARN),
    ],
)
def test_a_broker_that_may_evict_or_is_shared_with_the_cache_is_a_warning(
    eviction, cache_id, verdict
):
    finding = check_broker(_redis(eviction, "a"), _redis("allkeys-lfu", cache_id))
    assert finding.verdict is verdict
    assert (finding.mend is None) is (verdict is Verdict.OK)


def test_a_broker_is_judged_without_a_cache_too():
    assert check_broker(_redis("noeviction", "a"), None).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("used_mib", "max_mib", "verdict", "said"),
    [
        (79, 100, Verdict.OK, "79% full: 79 of 100 MiB"),
        (80, 100, Verdict.WARN, "80% full: 80 of 100 MiB"),
        (100, 100, Verdict.FAIL, "100% full: 100 of 100 MiB"),
        (900, 0, Verdict.OK, "900 MiB, no bound of its own"),
    ],
    ids=["room", "little", "full", "unbounded"],
)
def test_a_broker_that_is_nearly_full_is_told(used_mib, max_mib, verdict, said):
    report = StoreReport("Redis 8", _NOW, used_bytes=used_mib << 20, max_bytes=max_mib << 20)
    finding = check_broker_memory(report)
    assert (finding.verdict, finding.message) == (verdict, said)
    assert (finding.mend is None) == (verdict is Verdict.OK)


@pytest.mark.parametrize(
    ("extensions", "verdict"),
    [
        (_EXTENSIONS, Verdict.OK),
        ({**_EXTENSIONS, "vector": "0.10.0"}, Verdict.OK),
        ({**_EXTENSIONS, "vector": "0.7.4"}, Verdict.FAIL),
        ({name: _EXTENSIONS[name] for name in _EXTENSIONS if name != "pg_trgm"}, Verdict.FAIL),
        ({}, Verdict.FAIL),
    ],
)
def test_missing_or_old_extensions_are_a_failure(extensions, verdict):
    report = StoreReport("PostgreSQL 18.6", _NOW, extensions=extensions)
    assert check_extensions(report).verdict is verdict


@pytest.mark.parametrize(
    ("name", "writable", "verdict"),
    [("rs0", True, Verdict.OK), ("rs0", False, Verdict.FAIL), (None, True, Verdict.FAIL)],
)
def test_a_mongo_without_transactions_is_a_failure(name, writable, verdict):
    report = StoreReport("MongoDB 8.0.1", _NOW, replica_set=name, writable=writable)
    assert check_replica_set(report).verdict is verdict


@pytest.mark.parametrize(
    ("store", "version", "verdict"),
    [
        (Store.POSTGRES, "PostgreSQL 16.1", Verdict.OK),
        (Store.POSTGRES, "PostgreSQL 15.9", Verdict.FAIL),
        (Store.MONGO, "MongoDB 5.0.1", Verdict.FAIL),
        (Store.BROKER, "Valkey 9.1.2", Verdict.OK),
        (Store.CACHE, "Redis 6.2.0", Verdict.FAIL),
    ],
)
def test_a_server_that_is_too_old_is_a_failure(store, version, verdict):
    assert check_version(store, StoreReport(version, _NOW)).verdict is verdict


@pytest.mark.parametrize(
    ("offset_s", "verdict"),
    [(0, Verdict.OK), (4, Verdict.OK), (-1, Verdict.OK), (9, Verdict.WARN), (-9, Verdict.WARN)],
)
def test_a_clock_is_only_wrong_outside_of_question_and_answer(offset_s, verdict):
    answered_at = _NOW + timedelta(seconds=3)
    finding = check_clock(Store.MONGO, _NOW + timedelta(seconds=offset_s), _NOW, answered_at)
    assert finding.verdict is verdict


@pytest.mark.parametrize(
    ("gib", "verdict"), [(50, Verdict.OK), (3, Verdict.WARN), (0.5, Verdict.FAIL)]
)
def test_a_nearly_full_disk_is_told(gib, verdict):
    assert check_disk(Path("/"), int(gib * 1024**3)).verdict is verdict


def test_doctor_finds_nothing_to_fail_where_nothing_runs_yet(tmp_path):
    settings = load_settings().model_copy(update={"home": tmp_path / "home"})
    failed = [finding for finding in examine(settings) if finding.verdict is Verdict.FAIL]
    assert failed == []
    assert not (tmp_path / "home").exists()


def test_a_url_that_does_not_answer_is_a_failure_that_names_its_variable(tmp_path):
    settings = load_settings().with_urls({Store.CACHE: SecretStr("redis://:hush@127.0.0.1:9/0")})
    (finding,) = [
        finding
        for finding in examine(settings.model_copy(update={"home": tmp_path}))
        if finding.verdict is Verdict.FAIL
    ]
    assert "SAMPLEMIND_CACHE_URL" in str(finding.mend)
    assert "127.0.0.1:9" in finding.message
    assert "hush" not in str(finding)


_UNREADABLE = [
    (Store.POSTGRES, "postgresql://me:hush%zzhush@127.0.0.1:9/x"),
    (Store.POSTGRES, "postgresql://me:hush/hush@127.0.0.1:9/x"),
    (Store.POSTGRES, "postgresql://127.0.0.1:hush/x"),
    (Store.MONGO, "mongodb://me:hu:sh@127.0.0.1:9/"),
    (Store.MONGO, "mongodb+srv://me:hush/hush@example.invalid/"),
    (Store.BROKER, "redis://:hush/hush@127.0.0.1:9/0"),
    (Store.CACHE, "redis://me:12/hush@127.0.0.1:9/0"),
    (Store.CACHE, "redis://127.0.0.1:9/0?password_=hush"),
]


@pytest.mark.parametrize(("store", "url"), _UNREADABLE)
def test_of_a_url_that_cannot_be_read_no_part_is_shown(store, url, tmp_path):
    settings = load_settings().with_urls({store: SecretStr(url)})
    settings = settings.model_copy(update={"home": tmp_path})
    (finding,) = [each for each in examine(settings) if each.verdict is Verdict.FAIL]
    assert "cannot be read" in finding.message
    assert "hush" not in f"{finding} {list(effective_settings(settings, {}))}"


@pytest.mark.parametrize(("store", "url"), _UNREADABLE)
def test_a_url_that_cannot_be_read_stops_the_process_before_anything_shows_it(
    store, url, monkeypatch
):
    monkeypatch.setenv(f"SAMPLEMIND_{store.name}_URL", url)
    with pytest.raises(SettingsError, match="percent-encoded") as caught:
        load_settings()
    printed = "".join(format_exception(caught.value))
    assert "hush" not in printed


def test_effective_settings_show_where_each_comes_from_and_no_secret(monkeypatch):
    monkeypatch.setenv("SAMPLEMIND_POSTGRES_URL", "postgresql://me:hush@db:5433/x")
    monkeypatch.setenv("SAMPLEMIND_CONSOLE_BASIC_AUTH", "me:hush")
    endpoints = {Store.MONGO: SecretStr("mongodb://u:hush@127.0.0.1:27017/")}
    shown = {each.name: each for each in effective_settings(load_settings(), endpoints)}
    assert "hush" not in str(shown)
    assert "db:5433" in shown["SAMPLEMIND_POSTGRES_URL"].value
    assert shown["SAMPLEMIND_POSTGRES_URL"].source is Source.ENVIRONMENT
    assert shown["SAMPLEMIND_MONGO_URL"].source is Source.EMBEDDED
    assert shown["SAMPLEMIND_POSTGRES_POOL_SIZE"].source is Source.DEFAULT
    assert shown["SAMPLEMIND_POSTGRES_POOL_SIZE"].value == "20"
