"""What happens in the guarded child stays there: it opens nothing, and its death is an outcome."""

import dataclasses
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from samplemind.audio.analysis import analyze_file
from samplemind.audio.isolation import ChildChannel, ChildStream
from samplemind.audio.limits import AudioLimits
from samplemind.audio.outcome import AudioRejectedError, Outcome
from samplemind.errors import DecoderDiedError, DecoderTimeoutError
from tests.audio_files import encode, m4a, tone, wav

CONFINED = """
import os, resource, socket
from samplemind.audio import child
child.confine(2**31, 10)
attempts = {
    "file": lambda: open("/etc/hostname"),
    "socket": lambda: socket.socket(),
    "pipe": lambda: os.pipe(),
    "directory": lambda: os.listdir("/"),
    "limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
}
for name, attempt in attempts.items():
    try:
        attempt()
    except (OSError, ValueError):
        print(name, "refused")
print("user", os.geteuid() != 0)
"""


@pytest.fixture
def compressed(tmp_path: Path) -> Path:
    path = tmp_path / "pad.m4a"
    path.write_bytes(m4a())
    return path


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


@contextmanager
def killing_children(how_many: int) -> Iterator[list[int]]:
    """Kill the next children of this process as soon as they appear."""
    killed: list[int] = []
    over = threading.Event()
    # In a whole run, the servers of other tests are children of this process too.
    spared = children()

    def hunt() -> None:
        me = psutil.Process()
        while not over.is_set() and len(killed) < how_many:
            for found in me.children():
                if found.pid not in {*killed, *spared}:
                    found.kill()
                    killed.append(found.pid)
                    break
            over.wait(0.001)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        yield killed
    finally:
        over.set()
        hunter.join()


def test_a_confined_process_opens_nothing_and_cannot_go_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CONFINED], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "file refused",
        "socket refused",
        "pipe refused",
        "directory refused",
        "limit refused",
        "user True",
    ]


@pytest.mark.parametrize(
    ("name", "isolated"), [("list.wav", False), ("list.m3u8", False), ("list.m4a", True)]
)
def test_a_playlist_never_makes_another_file_be_read(
    name: str, isolated: bool, tmp_path: Path
) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(wav())
    texts = {
        "ffconcat": f"ffconcat version 1.0\nfile '{other}'\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{other}\n#EXT-X-ENDLIST\n",
        "hidden": f"\0\0\0\x20ftypM4A ffconcat version 1.0\nfile '{other}'\n",
    }
    read_before = other.stat().st_atime_ns
    for text in texts.values():
        playlist = tmp_path / name
        playlist.write_text(text)
        analysis = analyze_file(playlist, isolated=isolated)
        assert analysis.outcome in (Outcome.UNKNOWN_FORMAT, Outcome.UNREADABLE)
    assert other.stat().st_atime_ns == read_before


def test_an_isolated_analysis_finds_the_same(compressed: Path, tmp_path: Path) -> None:
    plain = tmp_path / "loop_120_Am.wav"
    plain.write_bytes(wav())
    for path in (plain, compressed):
        here, there = analyze_file(path), analyze_file(path, isolated=True)
        assert (here.outcome, here.name) == (there.outcome, there.name)
        assert here.facts is not None
        assert there.facts is not None
        assert here.facts.dc_offset == pytest.approx(there.facts.dc_offset, abs=1e-6)
        same_offset = dataclasses.replace(there.facts, dc_offset=here.facts.dc_offset)
        assert here.facts == same_offset
        assert here.measurements is not None
        assert there.measurements is not None
        # The child computes with one thread, which may round the last digit in another way.
        for field in dataclasses.fields(here.measurements):
            ours = getattr(here.measurements, field.name)
            theirs = getattr(there.measurements, field.name)
            assert type(ours) is type(theirs), field.name
            if isinstance(ours, np.ndarray | float):
                np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4)
            elif field.name == "blocks":
                for name, block in ours.items():
                    assert theirs[name].dtype == block.dtype
                    np.testing.assert_allclose(theirs[name], block, rtol=1e-2, atol=1e-2)
            elif field.name != "spectral":
                assert ours == theirs, field.name


def test_an_isolated_refusal_keeps_its_outcome(tmp_path: Path) -> None:
    path = tmp_path / "text.wav"
    path.write_bytes(b"no audio at all " * 10)
    assert analyze_file(path, isolated=True).outcome is Outcome.UNKNOWN_FORMAT


def test_a_child_that_is_killed_once_is_tried_again(compressed: Path) -> None:
    with killing_children(1) as killed:
        analysis = analyze_file(compressed, isolated=True)
    assert len(killed) == 1
    assert analysis.outcome is Outcome.ANALYZED


def test_a_file_whose_child_dies_twice_is_recorded_as_that(compressed: Path) -> None:
    with killing_children(2) as killed:
        analysis = analyze_file(compressed, isolated=True)
    assert len(killed) == 2
    assert analysis.outcome is Outcome.DECODER_CRASHED
    assert analysis.content_hash is not None


def test_a_child_without_memory_dies_alone(compressed: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.wav"
    long.write_bytes(encode(tone(30.0, channels=2)))
    starved = AudioLimits(child_memory_bytes=2**20)

    assert analyze_file(compressed, limits=starved).outcome is Outcome.DECODER_CRASHED
    assert analyze_file(long, limits=starved, isolated=True).outcome is Outcome.DECODER_CRASHED


def test_a_child_that_is_late_may_be_tried_again_unless_it_was_the_last_resort(
    compressed: Path,
) -> None:
    hurried = AudioLimits(child_wall_s=0.001)
    with pytest.raises(DecoderTimeoutError):
        analyze_file(compressed, limits=hurried)
    assert (
        analyze_file(compressed, limits=hurried, isolated=True).outcome is Outcome.DECODER_TIMEOUT
    )


def _answering(program: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)


def test_processor_time_used_up_is_held_against_the_file() -> None:
    program = "from samplemind.audio import child; child.confine(2**31, 1)\nwhile True: pass"
    with _answering(program) as process, pytest.raises(AudioRejectedError) as refusal:
        ChildChannel(process, wall_s=20).receive()
    assert refusal.value.outcome is Outcome.DECODER_TIMEOUT


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"I\xff\xff\xff\xff",
        b"Q\x02\0\0\0{}",
        b"X" + (11).to_bytes(4, "little") + b'{"outcome":',
        b"X" + (19).to_bytes(4, "little") + b'{"outcome": "fine"}',
        b"S\x03\0\0\0abc",
    ],
)
def test_an_answer_that_makes_no_sense_is_a_death(answer: bytes) -> None:
    program = f"import sys; sys.stdout.buffer.write({answer!r})"
    with _answering(program) as process, pytest.raises(DecoderDiedError):
        ChildStream(ChildChannel(process, wall_s=20), AudioLimits())


def test_no_child_outlives_its_analysis(compressed: Path) -> None:
    before = children()
    analyze_file(compressed)
    with pytest.raises(DecoderTimeoutError):
        analyze_file(compressed, limits=AudioLimits(child_wall_s=0.05))
    assert children() <= before
