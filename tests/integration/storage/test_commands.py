"""`samplemind backup` as operators and their monitoring use it, over a directory."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from samplemind.backup.catalog import Catalog
from samplemind.backup.encryption import Keyring
from samplemind.cli.main import main
from samplemind.storage.local import LocalStore
from tests.integration.storage.test_catalog import event, listed, publish

_KEY = bytes(range(32))

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.setenv("SAMPLEMIND_HOME", str(tmp_path))
    monkeypatch.setenv("SAMPLEMIND_STORAGE_PATH", str(tmp_path / "store"))
    monkeypatch.setenv("SAMPLEMIND_BACKUP_KEYS", json.dumps({"k": base64.b64encode(_KEY).decode()}))
    return Catalog(LocalStore(tmp_path / "store"), Keyring({"k": _KEY}))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["backup", *arguments])
        code = ended.value.code
        return (0 if code is None else int(code)), capsys.readouterr().out

    return run


def test_the_list_fails_when_no_good_backup_is_young_enough(catalog: Catalog, run: Run):
    assert run("list")[0] == 0
    code, out = run("list", "--max-age", "26h", "--json")
    assert (code, json.loads(out)["newest_good"]) == (1, None)
    publish(catalog, "old", age=timedelta(hours=30))
    assert run("list", "--max-age", "26h")[0] == 1
    assert run("list", "--max-age", "31h")[0] == 0
    publish(catalog, "young")
    assert run("list", "--max-age", "26h")[0] == 0
    catalog.record(event("young", 1, ok=False))
    code, out = run("list", "--max-age", "26h", "--json")
    assert (code, json.loads(out)["newest_good"]) == (1, "old")


def test_the_list_can_ask_for_a_level(catalog: Catalog, run: Run):
    publish(catalog, "b1")
    assert run("list", "--max-age", "1h", "--min-level", "1")[0] == 1
    catalog.record(event("b1", 3, ok=True))
    assert run("list", "--max-age", "1h", "--min-level", "1")[0] == 0
    assert run("list", "--max-age", "1h", "--min-level", "4")[0] == 1


def test_a_backup_from_the_future_does_not_pass_for_a_young_one(catalog: Catalog, run: Run):
    publish(catalog, "b1", age=-timedelta(days=400))
    assert run("list", "--max-age", "26h")[0] == 1


def test_the_list_shows_what_is_held_verified_drilled_and_broken(catalog: Catalog, run: Run):
    for name in ("b1", "b2", "b3"):
        publish(catalog, name)
    catalog.record(event("b1", 4, ok=True))
    assert run("hold", "b1", "--reason", "evidence")[0] == 0
    catalog.store.put_stream("catalog/b2/manifest.json", [b"{}"])
    code, out = run("list", "--json")
    found = {each["id"]: each for each in json.loads(out)["backups"]}
    assert code == 0
    assert found["b1"]["hold"] == "evidence"
    assert found["b1"]["verified"]["level"] == found["b1"]["drilled"]["level"] == 4
    assert not found["b2"]["good"]
    assert "damaged" in found["b2"]["problem"]
    assert found["b3"]["size_bytes"] > 0
    table = run("list")[1]
    assert "NOT GOOD" in table
    assert "on hold: evidence" in table


def test_prune_tells_before_it_deletes(catalog: Catalog, run: Run, monkeypatch):
    monkeypatch.setenv("SAMPLEMIND_BACKUP_KEEP_LAST", "1")
    for number in range(3):
        publish(catalog, f"b{number}", age=timedelta(days=50 - number))
    code, out = run("prune", "--dry-run", "--json")
    told = json.loads(out)
    assert (code, told["deleted"]) == (0, ["b0", "b1"])
    assert listed(catalog) == ["b2", "b1", "b0"]
    run("hold", "b0", "--reason", "wait")
    assert json.loads(run("prune", "--json")[1])["deleted"] == ["b1"]
    assert listed(catalog) == ["b2", "b0"]
    run("release", "b0")
    assert "b0" in run("prune")[1]
    assert listed(catalog) == ["b2"]


def test_history_shows_what_was_found(catalog: Catalog, run: Run):
    publish(catalog, "b1")
    catalog.record(event("b1", 1, ok=True, at=datetime(2026, 11, 1, tzinfo=UTC)))
    catalog.record(event("b1", 3, ok=False, at=datetime(2026, 11, 2, tzinfo=UTC)))
    events = json.loads(run("history", "b1", "--json")[1])["events"]
    assert [(each["level"], each["ok"]) for each in events] == [(1, True), (3, False)]


def test_keys_are_rotated_by_command(catalog: Catalog, run: Run, monkeypatch):
    publish(catalog, "b1")
    keys = {"new": base64.b64encode(bytes(32)).decode(), "k": base64.b64encode(_KEY).decode()}
    monkeypatch.setenv("SAMPLEMIND_BACKUP_KEYS", json.dumps(keys))
    code, out = run("rotate-keys", "--json")
    assert (code, json.loads(out)["renewed"]) == (0, 1)
    monkeypatch.setenv("SAMPLEMIND_BACKUP_KEYS", json.dumps({"new": keys["new"]}))
    assert json.loads(run("list", "--json")[1])["backups"][0]["good"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("list", "--max-age", "soon"), 2),
        (("hold", "b1"), 2),
        (("hold", "none", "--reason", "x"), 1),
        (("release", "none"), 1),
        (("history", "../x"), 1),
    ],
)
def test_what_cannot_be_done_has_an_exit_code(
    catalog: Catalog, run: Run, arguments: tuple[str, ...], code: int
):
    assert run(*arguments)[0] == code
