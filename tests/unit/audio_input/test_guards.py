"""Only one regular file within its root is ever opened, and it is never another one."""

import os
import resource
import socket
import tempfile
from pathlib import Path

import pytest

from samplemind.audio.analysis import analyze_file
from samplemind.audio.guards import GuardedFile, hash_file, open_guarded
from samplemind.audio.limits import AudioLimits
from samplemind.audio.outcome import AudioRejectedError, Outcome
from samplemind.errors import AudioReadError, TransientError
from tests.audio_files import acting_as_nobody, wav


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "kick.wav"
    path.write_bytes(wav())
    return path


def test_a_link_is_refused_wherever_it_leads(sound: Path, tmp_path: Path) -> None:
    for index, target in enumerate((sound, Path("/etc/passwd"), Path("/dev/zero"))):
        link = tmp_path / f"link{index}.wav"
        link.symlink_to(target)
        assert analyze_file(link).outcome is Outcome.SYMLINK


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe.wav"
    os.mkfifo(fifo)
    listener = socket.socket(socket.AF_UNIX)
    with tempfile.TemporaryDirectory() as short, listener:
        address = Path(short) / "socket.wav"
        listener.bind(str(address))
        for path in (fifo, address, tmp_path, Path("/dev/zero"), Path("/")):
            assert analyze_file(path).outcome is Outcome.NOT_REGULAR_FILE, path


def test_a_name_without_a_file_is_not_found(sound: Path) -> None:
    for path in (
        Path("/nowhere/at/all.wav"),
        sound / "inside_a_file.wav",
        Path("x" * 300),
        Path("with\0nul.wav"),
        Path("surrogate\ud800.wav"),
    ):
        assert analyze_file(path).outcome is Outcome.NOT_FOUND, path


def test_a_file_that_may_not_be_read_says_so() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "secret.wav"
        path.write_bytes(wav())
        path.chmod(0)
        with acting_as_nobody():
            assert analyze_file(path).outcome is Outcome.PERMISSION


def test_a_file_is_read_to_its_end_after_its_name_is_gone(sound: Path) -> None:
    expected = hash_file(sound)
    with open_guarded(sound) as file:
        sound.unlink()
        assert file.sha256() == expected
    assert analyze_file(sound).outcome is Outcome.NOT_FOUND


def test_a_file_that_grows_while_it_is_read_is_tried_again_later(sound: Path) -> None:
    with open_guarded(sound) as file:
        with sound.open("ab") as writer:
            writer.write(b"more")
        with pytest.raises(AudioReadError):
            file.check_unchanged()


def test_sizes_outside_the_limits_are_refused(sound: Path) -> None:
    size = sound.stat().st_size
    too_large = analyze_file(sound, limits=AudioLimits(max_size_bytes=size - 1))
    just_right = analyze_file(sound, limits=AudioLimits(max_size_bytes=size))

    assert (too_large.outcome, just_right.outcome) == (Outcome.TOO_LARGE, Outcome.ANALYZED)


def test_a_sound_longer_than_the_limit_is_refused(sound: Path) -> None:
    assert analyze_file(sound, limits=AudioLimits(max_duration_s=0.9)).outcome is Outcome.TOO_LONG
    assert analyze_file(sound, limits=AudioLimits(max_decoded_bytes=1)).outcome is Outcome.TOO_LONG


def test_a_root_keeps_everything_outside_of_it_unread(sound: Path, tmp_path: Path) -> None:
    root = tmp_path / "library"
    (root / "pack").mkdir(parents=True)
    inside = root / "pack" / "snare.wav"
    inside.write_bytes(wav())
    (root / "out").symlink_to(tmp_path, target_is_directory=True)
    (root / "alias").symlink_to(root / "pack", target_is_directory=True)

    outcomes = {
        path: analyze_file(path, root=root).outcome
        for path in (
            inside,
            root / "alias" / "snare.wav",
            sound,
            root / ".." / "kick.wav",
            root / "out" / "kick.wav",
            root,
            root / "pack" / "..",
            root / "pack" / "missing.wav",
        )
    }

    assert list(outcomes.values()) == [
        Outcome.ANALYZED,
        Outcome.ANALYZED,
        Outcome.OUTSIDE_ROOT,
        Outcome.OUTSIDE_ROOT,
        Outcome.OUTSIDE_ROOT,
        Outcome.OUTSIDE_ROOT,
        Outcome.OUTSIDE_ROOT,
        Outcome.NOT_FOUND,
    ]


def test_a_root_that_is_not_mounted_is_no_fault_of_the_file(sound: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioReadError):
        analyze_file(sound, root=tmp_path / "unmounted")


def test_faults_of_the_machine_are_transient_and_not_outcomes(sound: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(TransientError):
            analyze_file(sound)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    closed = GuardedFile(descriptor=1_000_000, size_bytes=100, modified_ns=0)
    with pytest.raises(TransientError):
        closed.read_at(0, 10)


def test_a_hash_is_of_the_bytes_and_behind_the_same_guards(sound: Path, tmp_path: Path) -> None:
    copy = tmp_path / "another name.mp3"
    copy.write_bytes(sound.read_bytes())
    link = tmp_path / "link.wav"
    link.symlink_to(sound)

    assert hash_file(copy) == hash_file(sound) == analyze_file(sound).content_hash
    with pytest.raises(AudioRejectedError, match="symbolic link"):
        hash_file(link)


def test_no_descriptor_is_left_open(sound: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.m4a"
    bad.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    opened = Path("/proc/self/fd")
    before = len(list(opened.iterdir()))
    for path in (sound, bad, tmp_path, tmp_path / "missing"):
        analyze_file(path, root=tmp_path)
    assert len(list(opened.iterdir())) == before
