"""What one pass over a file finds, keeps and holds in memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samplemind.audio.analysis import ANALYZER_NAME, ANALYZER_VERSION, analyze_file
from samplemind.audio.hints import Kind
from samplemind.audio.limits import AudioLimits
from samplemind.audio.outcome import Outcome
from tests.audio_files import (
    RATE_HZ,
    encode,
    flac,
    mp3,
    ogg,
    tone,
    wav,
)

PROMISED = frozenset(
    {
        *("path", "outcome", "message", "duration_s", "sample_rate_hz", "channels", "kind"),
        *("tempo_bpm", "tempo_confidence", "tempo_alternative_bpm", "key", "key_confidence"),
        *("root_note", "loudness_lufs", "embedding", "embedding_version", "tags", "peak_dbfs"),
        *("content_hash", "size_bytes", "analyzer_name", "analyzer_version"),
    }
)

PEAK_MIB = """
import re, sys
from pathlib import Path
from samplemind.audio.threads import limit_threads
limit_threads()
from samplemind.audio.analysis import analyze_file
analysis = analyze_file(Path(sys.argv[1]))
# Not getrusage: its peak counts the memory of the process that this one was started from.
peak_kib = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(analysis.outcome, int(peak_kib) // 1024)
"""


def peak_mib(path: Path) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", PEAK_MIB, str(path)], capture_output=True, text=True, check=True
    )
    outcome, mib = done.stdout.split()
    return outcome, int(mib)


def test_an_analysis_is_plain_json_with_all_that_was_promised(tmp_path: Path) -> None:
    good, bad = tmp_path / "Kick loop 120bpm Am.wav", tmp_path / "bad.wav"
    good.write_bytes(wav())
    bad.write_bytes(b"")
    for path in (good, bad):
        content = json.loads(json.dumps(analyze_file(path).as_dict(), allow_nan=False))
        assert content.keys() >= PROMISED
        assert (content["analyzer_name"], content["analyzer_version"]) == (
            ANALYZER_NAME,
            ANALYZER_VERSION,
        )

    found = analyze_file(good).as_dict()
    assert found["tags"] == ["kick"]
    assert found["named"] == {"tempo_bpm": 120, "key": "A minor", "kind": Kind.LOOP}
    assert len(found["embedding"]) == 128


def test_facts_are_of_the_file_as_it_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(encode(tone(0.75, rate_hz=48_000, channels=2), 48_000, codec="PCM_24"))

    facts = analyze_file(path).facts

    assert facts is not None
    assert (facts.format, facts.codec, facts.bit_depth) == ("WAV", "PCM_24", 24)
    assert (facts.sample_rate_hz, facts.channels, facts.duration_s) == (48_000, 2, 0.75)
    assert facts.peak_dbfs == pytest.approx(20 * np.log10(np.abs(tone(0.75)).max()), abs=0.5)
    assert facts.flags == ()


def test_a_constant_offset_is_flagged_in_the_channel_that_has_it(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    samples = tone(channels=2)
    samples[:, 1] -= 0.1
    path.write_bytes(encode(samples))

    facts = analyze_file(path).facts

    assert facts is not None
    assert facts.flags == ("dc_offset",)
    assert facts.dc_offset == pytest.approx(0.1, abs=0.01)


def test_samples_that_are_no_numbers_are_counted_and_set_to_zero(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    samples = tone(channels=2)
    samples[10:14, 0] = [np.nan, np.inf, -np.inf, np.nan]
    path.write_bytes(encode(samples, codec="FLOAT"))

    analysis = analyze_file(path)

    assert analysis.facts is not None
    assert (analysis.facts.nonfinite_samples, analysis.facts.flags) == (4, ("nonfinite",))
    assert analysis.measurements is not None
    assert np.isfinite(analysis.measurements.embedding).all()


def test_a_file_that_breaks_off_tells_how_much_is_missing(tmp_path: Path) -> None:
    for content, share in ((wav()[: len(wav()) // 4], 0.75), (flac()[: len(flac()) // 2], 0.5)):
        path = tmp_path / "cut"
        path.write_bytes(content)
        facts = analyze_file(path).facts
        assert facts is not None
        assert facts.missing_share == pytest.approx(share, abs=0.1)
        assert facts.flags == ("truncated",)


def test_silence_and_what_is_too_short_keep_their_facts(tmp_path: Path) -> None:
    edge = round(0.020 * RATE_HZ)
    for frames, outcome in ((edge - 1, Outcome.SHORT), (edge, Outcome.ANALYZED)):
        path = tmp_path / "edge.wav"
        path.write_bytes(encode(tone()[:frames]))
        analysis = analyze_file(path)
        assert analysis.outcome is outcome
        assert analysis.facts is not None
        assert analysis.facts.peak_dbfs is not None


def test_a_long_sound_is_measured_by_its_middle_and_likened_by_its_start(tmp_path: Path) -> None:
    path, start_only = tmp_path / "long.wav", tmp_path / "start.wav"
    quiet_start = np.concatenate([tone(6.0) * 0.05, *[tone()] * 12])
    path.write_bytes(encode(quiet_start))
    start_only.write_bytes(encode(quiet_start[: 4 * RATE_HZ]))

    whole = analyze_file(path, limits=AudioLimits(window_s=4.0))
    start = analyze_file(start_only)

    assert whole.facts is not None
    assert whole.facts.duration_s == 18.0
    assert whole.measurements is not None
    assert start.measurements is not None
    np.testing.assert_array_equal(whole.measurements.embedding, start.measurements.embedding)
    assert whole.measurements.loudness_lufs > start.measurements.loudness_lufs + 10


def test_a_long_sound_that_is_silent_at_its_start_is_measured_by_its_middle(
    tmp_path: Path,
) -> None:
    path = tmp_path / "late.wav"
    silence = np.zeros((4 * RATE_HZ, 1), np.float32)
    path.write_bytes(encode(np.concatenate([silence, np.concatenate([tone()] * 4), silence])))

    analysis = analyze_file(path, limits=AudioLimits(window_s=3.0))

    assert analysis.outcome is Outcome.ANALYZED


def test_many_channels_shorten_the_window_instead_of_growing_the_process() -> None:
    limits = AudioLimits()
    for rate_hz, channels in ((44_100, 1), (48_000, 2), (192_000, 2), (384_000, 16)):
        frames = limits.window_frames(rate_hz, channels)
        assert frames * channels <= limits.window_samples
        assert frames <= 120 * rate_hz
    assert limits.window_frames(48_000, 2) == 120 * 48_000


@pytest.mark.parametrize(("rate_hz", "channels"), [(192_000, 2), (384_000, 1), (48_000, 8)])
def test_a_minute_of_any_rate_and_width_stays_within_200_mib(
    tmp_path: Path, rate_hz: int, channels: int
) -> None:
    path, second = tmp_path / "minute.wav", tone(rate_hz=rate_hz, channels=channels)
    with soundfile.SoundFile(path, "w", rate_hz, channels, "PCM_16") as sound:
        for _ in range(59):
            sound.write(second)

    outcome, mib = peak_mib(path)

    assert outcome == "analyzed"
    assert mib <= 200, mib


def test_a_high_rate_changes_no_measure_of_what_can_be_heard(tmp_path: Path) -> None:
    heard = np.concatenate([tone(0.5)] * 16)
    analyses = []
    for rate_hz in (44_100, 192_000):
        path = tmp_path / f"{rate_hz}.wav"
        path.write_bytes(encode(soxr.resample(heard, 44_100, rate_hz), rate_hz, codec="FLOAT"))
        analyses.append(analyze_file(path))

    low, high = (analysis.measurements for analysis in analyses)
    assert analyses[1].facts is not None
    assert (analyses[1].facts.sample_rate_hz, analyses[1].facts.duration_s) == (192_000, 8.0)
    assert low is not None
    assert high is not None
    assert high.loudness_lufs == pytest.approx(low.loudness_lufs, abs=0.1)
    assert high.tempo_candidate_bpm == low.tempo_candidate_bpm == 120.0
    assert (high.key_candidate, high.kind) == (low.key_candidate, low.kind)
    assert float(high.embedding @ low.embedding) > 0.99


def test_a_few_frames_of_a_high_rate_are_a_short_sound(tmp_path: Path) -> None:
    for frames in (1, 3, 30):
        path = tmp_path / "short.wav"
        path.write_bytes(encode(np.full((frames, 1), 0.5, np.float32), 384_000))
        assert analyze_file(path).outcome is Outcome.SHORT


def test_memory_stays_within_its_bound_however_long_the_sound_is(tmp_path: Path) -> None:
    minute, hours = tmp_path / "minute.wav", tmp_path / "hours.wav"
    soundfile.write(minute, tone(59.0, rate_hz=48_000, channels=2), 48_000)
    block = tone(60.0, rate_hz=8_000)
    with soundfile.SoundFile(hours, "w", 8_000, 1, "PCM_U8") as sound:
        for _ in range(119):
            sound.write(block)

    minute_outcome, minute_mib = peak_mib(minute)
    hours_outcome, hours_mib = peak_mib(hours)

    assert (minute_outcome, hours_outcome) == ("analyzed", "analyzed")
    assert minute_mib <= 200, minute_mib
    assert hours_mib <= 250, hours_mib


MUTATED = (wav()[:20_000], flac(), ogg()[:40_000], mp3(), encode(tone(0.2), container="AIFF"))


MAGIC = (
    b"",
    b"RIFF\xff\0\0\0WAVEfmt ",
    b"FORM\0\0\1\0AIFFCOMM",
    b"fLaC",
    b"OggS",
    b"caff\0\1\0\0",
    b"ID3\x03\0\0\0\0\0\x0a",
    b"\xff\xfb\x90",
    b"\0\0\0\x20ftypM4A ",
    b"\x1aE\xdf\xa3",
    b"wvpk",
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_mutation_of_a_sound_ever_raises(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(data.draw(st.sampled_from(MUTATED)))
    places = st.one_of(st.integers(0, 100), st.integers(0, len(content) - 1))
    for place, value in data.draw(
        st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=20)
    ):
        content[place] = value
    path = tmp_path / "mutated"
    path.write_bytes(content[: data.draw(st.integers(44, len(content)))])

    analysis = analyze_file(path)

    assert analysis.outcome in Outcome
    json.dumps(analysis.as_dict(), allow_nan=False)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    magic=st.sampled_from(MAGIC),
    rest=st.binary(max_size=400),
)
def test_no_bytes_behind_any_magic_ever_raise(magic: bytes, rest: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(magic + rest)

    assert analyze_file(path).outcome in Outcome
