"""What is found in folders is sorted, complete, and nothing that a link leads to."""

import os
import tempfile
from pathlib import Path

from samplemind.audio.discovery import find_audio_files
from tests.audio_files import acting_as_nobody


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_a_folder_gives_its_audio_files_in_a_fixed_order(tmp_path: Path) -> None:
    fill(tmp_path, "b/z.WAV", "b/a.flac", "a.mp3", "c.txt", "b/c/d.ogg", "._a.mp3", ".git/x.wav")

    found = [path.relative_to(tmp_path).as_posix() for path in find_audio_files([tmp_path])]

    assert found == ["a.mp3", "b/a.flac", "b/c/d.ogg", "b/z.WAV"]


def test_links_are_given_themselves_and_never_followed(tmp_path: Path) -> None:
    fill(tmp_path, "real/kick.wav")
    (tmp_path / "link.wav").symlink_to(tmp_path / "real" / "kick.wav")
    (tmp_path / "circle").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()

    found = [path.relative_to(tmp_path).as_posix() for path in find_audio_files([tmp_path])]

    assert found == ["link.wav", "pipe.wav", "real/kick.wav"]


def test_what_is_named_is_taken_as_it_is_and_once(tmp_path: Path) -> None:
    fill(tmp_path, "notes.txt", "kick.wav")
    link = tmp_path / "link.wav"
    link.symlink_to(tmp_path / "kick.wav")
    named = [tmp_path / "notes.txt", tmp_path / "missing.wav", link, tmp_path / "kick.wav"]

    assert list(find_audio_files([*named, tmp_path])) == named


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one() -> None:
    with tempfile.TemporaryDirectory() as public:
        folder = Path(public)
        folder.chmod(0o755)
        fill(folder, "a.wav", "locked/b.wav")
        (folder / "locked").chmod(0)
        with acting_as_nobody():
            found = list(find_audio_files([folder]))
        (folder / "locked").chmod(0o755)

    assert found == [folder / "a.wav", folder / "locked"]


def test_files_in_a_folder_that_may_be_listed_but_not_entered_are_given_themselves() -> None:
    with tempfile.TemporaryDirectory() as public:
        folder = Path(public)
        folder.chmod(0o755)
        fill(folder, "a.wav", "closed/b.wav", "closed/c/d.wav", "e.wav")
        (folder / "closed").chmod(0o744)
        with acting_as_nobody():
            found = list(find_audio_files([folder, folder / "closed" / "b.wav"]))
        (folder / "closed").chmod(0o755)

    assert found == [folder / name for name in ("a.wav", "closed/b.wav", "closed/c", "e.wav")]
