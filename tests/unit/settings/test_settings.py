import json
import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from samplemind.endpoints import Store, read_endpoints, remove_endpoints, write_endpoints
from samplemind.errors import SettingsError, StackNotRunningError
from samplemind.limit import Limit
from samplemind.settings import (
    BackupSettings,
    Settings,
    get_settings,
    load_settings,
    variable_names,
)

_URLS = {
    Store.POSTGRES: SecretStr("postgresql://u:pw@127.0.0.1:1/x"),
    Store.MONGO: SecretStr("mongodb://u:pw@127.0.0.1:2/"),
    Store.BROKER: SecretStr("redis://:pw@127.0.0.1:3/0"),
    Store.CACHE: SecretStr("redis://:pw@127.0.0.1:4/0"),
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.upper().startswith("SAMPLEMIND_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SAMPLEMIND_HOME", str(tmp_path))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def _faults() -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return str(caught.value).splitlines()


def test_every_setting_has_a_description():
    assert all(variable_names().values())


def test_settings_are_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("SAMPLEMIND_POSTGRES_POOL_SIZE", "7")
    monkeypatch.setenv("SAMPLEMIND_CACHE_URL", "redis://cache:6379/0")
    settings = load_settings()
    assert settings.postgres.pool_size == 7
    assert settings.embedded_stores() == (Store.POSTGRES, Store.MONGO, Store.BROKER)


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().postgres.pool_size = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("SAMPLEMIND_POSTGRES_POOL_SIZE", "many", "valid integer"),
        ("SAMPLEMIND_POSTGRES_POOL_SIZE", "0", "greater than or equal to 1"),
        ("SAMPLEMIND_POSTGRES_URL", "mysql://u:hush@h/x", "postgresql://"),
        ("SAMPLEMIND_BROKER_URL", "redis://", "names no host"),
        ("SAMPLEMIND_LOG_LEVEL", "LOUD", "DEBUG"),
        ("SAMPLEMIND_POSTGRES", "xyz", "did you mean"),
        ("SAMPLEMIND_POSTGRES", '{"pool_size": 3}', "did you mean"),
        ("SAMPLEMIND_SECURITY_ENCRYPTION_KEY", "x", "Fernet key"),
        ("SAMPLEMIND_SECURITY_ENCRYPTION_KEY", "aHVzaA==", "Fernet key"),
        ("SAMPLEMIND_SECURITY_PREVIOUS_ENCRYPTION_KEYS", "x", "JSON list"),
        ("SAMPLEMIND_SECURITY_PREVIOUS_ENCRYPTION_KEYS", '["x"]', "ENCRYPTION_KEYS: a Fernet key"),
        ("SAMPLEMIND_CONSOLE_BASIC_AUTH", "hush", "user:password"),
        ("SAMPLEMIND_CONSOLE_BASIC_AUTH", "ada:", "user:password"),
        ("SAMPLEMIND_BROKER_LEASE_S", "4", "at least three times"),
        ("SAMPLEMIND_BATCH_CLAIM_S", "20", "three times mongo.timeout_ms"),
        ("SAMPLEMIND_WORKER_SOFT_TIME_LIMIT_S", "900", "less than worker.time_limit_s"),
        ("SAMPLEMIND_CONSOLE_HOST", "0.0.0.0", "SAMPLEMIND_CONSOLE_BASIC_AUTH"),  # noqa: S104
    ],
)
def test_a_wrong_value_is_one_readable_line(monkeypatch, variable, value, expected):
    monkeypatch.setenv(variable, value)
    faults = _faults()
    assert len(faults) == 1
    assert expected in faults[0]
    assert "hush" not in faults[0]


def test_older_keys_are_a_json_list(monkeypatch):
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    monkeypatch.setenv("SAMPLEMIND_SECURITY_PREVIOUS_ENCRYPTION_KEYS", json.dumps(keys))
    previous = load_settings().security.previous_encryption_keys
    assert [key.get_secret_value() for key in previous] == keys


def test_all_faults_are_told_at_once(monkeypatch):
    monkeypatch.setenv("SAMPLEMIND_POSTGRES_POOL_SIZE", "many")
    monkeypatch.setenv("SAMPLEMIND_MONGO_POOL_SIZE", "few")
    monkeypatch.setenv("SAMPLEMIND_NO_SUCH_THING_AT_ALL", "1")
    assert len(_faults()) == 3


def test_a_misspelt_variable_names_the_one_that_was_meant(monkeypatch):
    monkeypatch.setenv("SAMPLEMIND_POSTGRES_URI", "postgresql://u:pw@h/x")
    (fault,) = _faults()
    assert "did you mean SAMPLEMIND_POSTGRES_URL?" in fault


def test_a_fault_does_not_show_the_secret(monkeypatch):
    monkeypatch.setenv("SAMPLEMIND_POSTGRES_URL", "mysql://u:hush-hush@h/x")
    monkeypatch.setenv("SAMPLEMIND_BROKER_URL", "amqp://:hush-hush@h")
    assert "hush-hush" not in "".join(_faults())


def test_secrets_are_not_printed():
    settings = load_settings().with_urls(_URLS)
    assert "pw" not in repr(settings)
    assert "pw" not in settings.model_dump_json()


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("SAMPLEMIND_POSTGRES_URL", "")
    assert Store.POSTGRES in load_settings().embedded_stores()


def test_the_home_may_start_with_a_tilde(monkeypatch):
    monkeypatch.setenv("SAMPLEMIND_HOME", "~/somewhere")
    assert load_settings().home == Path.home() / "somewhere"


def test_without_a_stack_the_error_names_both_ways_out():
    with pytest.raises(StackNotRunningError) as caught:
        get_settings()
    assert "samplemind up" in str(caught.value)
    assert "SAMPLEMIND_POSTGRES_URL" in str(caught.value)


def test_a_running_stack_fills_in_what_has_no_url(monkeypatch, tmp_path):
    write_endpoints(tmp_path, _URLS)
    monkeypatch.setenv("SAMPLEMIND_CACHE_URL", "redis://elsewhere:6379/0")
    settings = get_settings()
    assert settings.url(Store.MONGO) == _URLS[Store.MONGO]
    assert settings.url(Store.CACHE) == SecretStr("redis://elsewhere:6379/0")


def test_addresses_are_readable_by_their_owner_only_and_go_with_the_stack(tmp_path):
    write_endpoints(tmp_path, _URLS)
    assert (tmp_path / "run" / "endpoints.json").stat().st_mode & 0o777 == 0o600
    assert read_endpoints(tmp_path) == _URLS
    remove_endpoints(tmp_path)
    remove_endpoints(tmp_path)
    assert read_endpoints(tmp_path) == {}


def test_a_copy_with_urls_leaves_the_first_settings_as_they_were():
    settings = load_settings()
    whole = settings.with_urls(_URLS)
    assert whole.embedded_stores() == ()
    assert settings.embedded_stores() == tuple(Store)
    assert isinstance(whole, Settings)


def test_a_value_may_lie_in_a_file(monkeypatch, tmp_path):
    path = tmp_path / "url"
    path.write_text("redis://:from-a-file@cache:6379/0\n")
    monkeypatch.setenv("SAMPLEMIND_CACHE_URL_FILE", str(path))
    url = load_settings().cache.url
    assert url is not None
    assert url.get_secret_value() == "redis://:from-a-file@cache:6379/0"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "No such file"),
        (b"", "empty"),
        (b"\n", "empty"),
        (b"hush\xff", "not UTF-8"),
        (b"hush" * 20_000, "larger than"),
    ],
)
def test_a_file_that_holds_no_value_is_told_without_its_content(
    monkeypatch, tmp_path, content, expected
):
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SAMPLEMIND_BROKER_URL_FILE", str(path))
    (fault,) = _faults()
    assert fault.startswith("SAMPLEMIND_BROKER_URL_FILE: ")
    assert expected in fault
    assert "hush" not in fault


def test_a_value_that_is_given_twice_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "url"
    path.write_text("redis://a:1/0")
    monkeypatch.setenv("SAMPLEMIND_CACHE_URL", "redis://b:1/0")
    monkeypatch.setenv("SAMPLEMIND_CACHE_URL_FILE", str(path))
    (fault,) = _faults()
    assert "keep one of the two" in fault


def test_a_wrong_value_in_a_file_is_told_like_any_other(monkeypatch, tmp_path):
    path = tmp_path / "url"
    path.write_text("mysql://u:hush@h/x")
    monkeypatch.setenv("SAMPLEMIND_POSTGRES_URL_FILE", str(path))
    (fault,) = _faults()
    assert "postgresql://" in fault
    assert "hush" not in fault


def test_a_file_of_no_setting_is_unknown(monkeypatch):
    monkeypatch.setenv("SAMPLEMIND_NO_SUCH_THING_FILE", "/dev/null")
    (fault,) = _faults()
    assert "no such setting" in fault


def test_an_owners_limits_win_over_those_of_everybody(monkeypatch):
    owner = uuid4()
    monkeypatch.setenv("SAMPLEMIND_LIMITS_RUNNING", "4")
    monkeypatch.setenv("SAMPLEMIND_LIMITS_PER_MINUTE", "60")
    own = {str(owner): {"running": 1}, "library": {"per_minute": 0}}
    monkeypatch.setenv("SAMPLEMIND_LIMITS_OWNERS", json.dumps(own))
    limits = load_settings().limits
    assert limits.of(uuid4()) == Limit(4, 60)
    assert limits.of(owner) == Limit(1, 60)
    assert limits.of(None) == Limit(4, 0)


@pytest.mark.parametrize(
    "owners", ["nonsense", "[]", '{"ada": {}}', f'{{"{UUID(int=1)}": {{"running": -1}}}}']
)
def test_limits_that_mean_nothing_are_refused(monkeypatch, owners):
    monkeypatch.setenv("SAMPLEMIND_LIMITS_OWNERS", owners)
    assert _faults()[0].startswith("SAMPLEMIND_LIMITS_OWNERS: ")


def test_open_dead_letters_are_kept_longer_than_those_that_ended(monkeypatch):
    monkeypatch.setenv("SAMPLEMIND_RETENTION_DEAD_LETTERS_DAYS", "800")
    assert any("open_letters_days must be more" in fault for fault in _faults())
    monkeypatch.setenv("SAMPLEMIND_RETENTION_OPEN_LETTERS_DAYS", "801")
    assert load_settings().retention.open_letters_days == 801


def test_a_backup_beside_queries_keeps_the_stricter_limits() -> None:
    beside = BackupSettings(jobs=4, beside_jobs=1, beside_rate_mib_s=20).beside_queries()
    assert (beside.jobs, beside.rate_limit_mib_s) == (1, 20)
    slow = BackupSettings(jobs=1, beside_jobs=3, rate_limit_mib_s=5, beside_rate_mib_s=20)
    assert (slow.beside_queries().jobs, slow.beside_queries().rate_limit_mib_s) == (1, 5)
    assert BackupSettings(beside_rate_mib_s=0).beside_queries().rate_limit_mib_s == 0
