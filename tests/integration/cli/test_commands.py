"""The commands as operators and checks use them, over a platform that the demo has started."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.timeout(180)

ANALYZED_FIELDS = {
    "path",
    "outcome",
    "duration_s",
    "sample_rate_hz",
    "channels",
    "kind",
    "tempo_bpm",
    "tempo_confidence",
    "tempo_alternative_bpm",
    "key",
    "key_confidence",
    "root_note",
    "loudness_lufs",
    "embedding",
    "embedding_version",
    "tags",
}
COUNTS = {"batch_id", "files", "done", "failed", "skipped", "seconds", "errors"}


@dataclass(frozen=True)
class Platform:
    """A running platform: its home, what its demo printed, and a way to call its commands."""

    home: Path
    demo: str

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return samplemind(self.home, *arguments)

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)


def samplemind(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "samplemind", *map(str, arguments)],
        env={**os.environ, "SAMPLEMIND_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with tempfile.TemporaryDirectory(prefix="samplemind-commands-") as name:
        home = Path(name)
        home.chmod(0o711)  # as root, PostgreSQL runs as another account, which must get in
        try:
            demo = samplemind(home, "demo")
            assert demo.returncode == 0, demo.stdout + demo.stderr
            yield Platform(home, demo.stdout)
        finally:
            down = samplemind(home, "down")
            assert down.returncode == 0, down.stderr


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sounds and a file that is none."""
    folder = tmp_path_factory.mktemp("My Pack")
    time_s = np.arange(44_100) / 44_100
    for name, pitch_hz in (("Zither_Hit_A.wav", 440.0), ("Zither_Hit_B.wav", 466.2)):
        sound = np.sin(2 * np.pi * pitch_hz * time_s) * np.exp(-5 * time_s)
        soundfile.write(folder / name, sound, 44_100)
    (folder / "notes.wav").write_text("words that have been given the wrong name\n" * 3)
    return folder


def test_the_demo_shows_searches_and_addresses(platform: Platform) -> None:
    assert "finished: 36 done, 0 skipped, 0 failed of 36" in platform.demo
    assert "Snare" in platform.demo
    assert "Drum Loop 124bpm" in platform.demo
    assert "http://127.0.0.1:" in platform.demo


def test_a_file_is_found_or_listed_and_a_second_ingest_does_nothing_again(
    platform: Platform, samples: Path
) -> None:
    first = platform.json("ingest", samples, "--wait", "--owner", "ada@example.org")
    assert first.keys() >= COUNTS
    assert (first["files"], first["done"], first["failed"]) == (3, 2, 1)
    [error] = first["errors"]
    assert error["path"] == str(samples / "notes.wav")
    assert error["code"] == "rejected:unknown_format"
    assert error["message"]

    again = platform.json("ingest", samples, "--wait", "--owner", "ada@example.org")
    assert (again["done"], again["skipped"], again["failed"]) == (0, 2, 1)
    assert platform.json("index", "reconcile")["missing"] == 0
    found = platform.json("search", "zither", "--owner", "ada@example.org")
    assert found["total"] == 2
    assert found["took_ms"] > 0
    assert found["results"][0].keys() >= {"id", "path", "title", "score", "highlight"}
    assert "<b>Zither</b>" in found["results"][0]["highlight"]

    shown = platform.json("batch", "show", first["batch_id"])
    assert shown["id"] == first["batch_id"]
    assert (shown["state"], shown["total"], shown["cancelled"]) == ("finished", 3, 0)
    assert shown["items_failed"] == first["errors"]
    listed = platform.json("batch", "list")["batches"]
    assert {first["batch_id"], again["batch_id"]} <= {batch["id"] for batch in listed}


def test_a_sound_is_found_by_id_by_path_and_from_outside(
    platform: Platform, tmp_path: Path
) -> None:
    kick = platform.json("search", "deep kick", "--limit", "1")["results"][0]
    by_id = platform.json("similar", kick["id"], "--limit", "3")
    by_path = platform.json("similar", kick["path"], "--limit", "3")
    outside = tmp_path / "copy.wav"
    outside.write_bytes(Path(kick["path"]).read_bytes())
    from_outside = platform.json("similar", outside, "--limit", "1")

    assert [hit["id"] for hit in by_id["results"]] == [hit["id"] for hit in by_path["results"]]
    assert kick["id"] not in {hit["id"] for hit in by_id["results"]}
    assert all("Kick" in hit["title"] for hit in by_id["results"])
    assert from_outside["results"][0]["id"] == kick["id"]
    assert from_outside["results"][0]["score"] == pytest.approx(1, abs=0.01)


def test_filters_narrow_a_search(platform: Platform) -> None:
    loops = platform.json("search", "loop", "--bpm", "115..125", "--kind", "loop")["results"]
    assert loops
    assert all(115 <= loop["tempo_bpm"] <= 125 for loop in loops)
    assert platform.json("search", "loop", "--bpm", "10..20")["total"] == 0


def test_an_analysis_has_every_field_and_stores_nothing(platform: Platform, samples: Path) -> None:
    files = platform.json("analyze", samples)["files"]
    assert len(files) == 3
    assert all(file.keys() >= ANALYZED_FIELDS for file in files)
    outcomes = {Path(file["path"]).name: file["outcome"] for file in files}
    assert outcomes["notes.wav"] == "rejected:unknown_format"
    measured = next(file for file in files if file["path"].endswith("Hit_A.wav"))
    assert measured["root_note"] == "A4"
    assert len(measured["embedding"]) == 128


def test_every_service_is_healthy_and_has_an_address(platform: Platform) -> None:
    status = platform.json("status")
    assert status["healthy"] is True
    names = {service["name"] for service in status["services"]}
    assert names >= {"postgres", "mongo", "broker", "cache", "audio", "index", "beat", "console"}
    for service in status["services"]:
        assert service.keys() >= {"name", "kind", "address", "pid", "healthy", "detail"}


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("search", "kick", "--bpm", "fast"), 2, "no range"),
        (("search", "kick", "--key", "H"), 2, "no key"),
        (("search", "..."), 2, "no word"),
        (("search", "kick", "--owner", "nobody@example.org"), 1, "no user"),
        (("similar", "/nowhere/at/all.wav"), 2, "no file"),
        (("similar", str(UUID(int=1))), 1, "no file"),
        (("ingest", "/nowhere"), 2, "does not exist"),
        (("batch", "show", str(UUID(int=1))), 1, "no batch"),
        (("batch", "show", "first"), 2, "not a valid UUID"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    platform: Platform, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    done = platform.run(*arguments)
    assert done.returncode == code
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_a_minus_takes_words_out_of_a_search(platform: Platform) -> None:
    all_kicks = platform.json("search", "kick")["total"]
    punchy = platform.json("search", "kick", "-deep", "--limit", "2")
    assert 0 < punchy["total"] < all_kicks
    assert len(punchy["results"]) == 2


def test_a_name_cannot_drive_the_terminal(platform: Platform, tmp_path: Path) -> None:
    name = "bad\x1b[2J\nname.wav"
    (tmp_path / name).write_text("no sound\n" * 20)
    printed = platform.run("analyze", tmp_path).stdout
    assert "\x1b" not in printed
    assert "unknown_format" in printed
