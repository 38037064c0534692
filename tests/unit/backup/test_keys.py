import base64
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from samplemind.backup.keys import load_keyring
from samplemind.errors import SecretError, SettingsError
from samplemind.settings import BackupSettings, load_settings

_KEYS = [base64.b64encode(os.urandom(32)).decode() for _ in range(3)]


def _file(tmp_path: Path, text: str) -> BackupSettings:
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(0o600)
    return BackupSettings(key_file=path)


def test_keys_come_from_the_variable_and_then_from_the_file(tmp_path: Path):
    settings = _file(tmp_path, f"# ours\n\nolder {_KEYS[1]}\noldest\t{_KEYS[2]}\n")
    keys = {"2026-11": SecretStr(_KEYS[0])}
    keyring = load_keyring(settings.model_copy(update={"keys": keys}))
    assert keyring.ids == ("2026-11", "older", "oldest")
    assert keyring.current_id == "2026-11"


def test_without_keys_there_is_an_empty_keyring():
    assert not load_keyring(BackupSettings())


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path):
    settings = _file(tmp_path, f"k {_KEYS[0]}")
    assert settings.key_file is not None
    settings.key_file.chmod(0o640)
    with pytest.raises(SecretError, match="chmod 600"):
        load_keyring(settings)


@pytest.mark.parametrize("line", ["hush", "hush hush", "hush hush hush", f"hush{'A' * 44}"])
def test_a_wrong_line_is_named_and_not_quoted(tmp_path: Path, line: str):
    with pytest.raises(SecretError, match="line 2") as caught:
        load_keyring(_file(tmp_path, f"good {_KEYS[1]}\n{line}\n"))
    assert "hush" not in str(caught.value)


def test_one_id_with_two_keys_is_refused(tmp_path: Path):
    with pytest.raises(SecretError, match="given twice"):
        load_keyring(_file(tmp_path, f"k {_KEYS[0]}\nk {_KEYS[1]}\n"))


def test_a_missing_file_is_told(tmp_path: Path):
    with pytest.raises(SecretError, match="cannot be read: No such file"):
        load_keyring(BackupSettings(key_file=tmp_path / "none"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hush", "JSON object"),
        ('{"k": "aHVzaA=="}', "32 bytes"),
        ('["hush"]', "valid dictionary"),
        ('{"a b": "hush"}', "pattern"),
    ],
)
def test_a_wrong_variable_is_told_without_its_value(monkeypatch, value: str, expected: str):
    monkeypatch.setenv("SAMPLEMIND_BACKUP_KEYS", value)
    with pytest.raises(SettingsError, match=expected) as caught:
        load_settings()
    assert "hush" not in str(caught.value)
    assert "aHVz" not in str(caught.value)


def test_keys_of_the_environment_open_what_they_closed(monkeypatch):
    monkeypatch.setenv("SAMPLEMIND_BACKUP_KEYS", f'{{"new": "{_KEYS[0]}", "old": "{_KEYS[1]}"}}')
    settings = load_settings()
    assert load_keyring(settings.backup).ids == ("new", "old")
    assert _KEYS[0] not in repr(settings)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"KIND": "s3"}, "SAMPLEMIND_STORAGE_BUCKET"),
        ({"ACCESS_KEY": "hush"}, "together"),
        ({"ENDPOINT": "http://hush:hush@host"}, "must not hold credentials"),
    ],
)
def test_a_store_that_cannot_be_reached_by_its_settings_is_refused(
    monkeypatch, variables: dict[str, str], expected: str
):
    for name, value in variables.items():
        monkeypatch.setenv(f"SAMPLEMIND_STORAGE_{name}", value)
    with pytest.raises(SettingsError, match=expected) as caught:
        load_settings()
    assert "hush" not in str(caught.value)
