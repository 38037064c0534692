import numpy as np
import pytest
from scipy import signal

from samplemind.audio.loudness import LoudnessKind, measure_loudness, measure_rms_dbfs
from tests.unit.audio.sounds import sine


def stereo(*parts: np.ndarray) -> np.ndarray:
    mono = np.concatenate(parts)
    return np.stack([mono, mono], axis=1).astype(np.float32)


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("level_dbfs", [-23.0, -33.0])
def test_a_stereo_sine_reads_its_level(rate: int, level_dbfs: float) -> None:
    # EBU Tech 3341, cases 1 and 2 (a 1 kHz sine; 997 Hz is what BS.1770 is calibrated with).
    samples = stereo(sine(997, 5, level_dbfs, rate))
    assert measure_loudness(samples, rate).lufs == pytest.approx(level_dbfs, abs=0.1)


def test_one_channel_reads_three_lu_less_than_two() -> None:
    mono = sine(997, 5, -23.0).astype(np.float32)[:, None]
    assert measure_loudness(mono, 44_100).lufs == pytest.approx(-26.0, abs=0.1)


def test_quiet_parts_are_gated() -> None:
    # EBU Tech 3341, case 3: the parts at -36 dBFS lie under the relative gate.
    quiet, loud = sine(1000, 10, -36.0), sine(1000, 60, -23.0)
    assert measure_loudness(stereo(quiet, loud, quiet), 44_100).lufs == pytest.approx(-23, abs=0.1)


def test_silence_does_not_lower_the_loudness() -> None:
    # EBU Tech 3341, case 4 in spirit: -72 dBFS lies under the absolute gate.
    faint = sine(1000, 10, -72.0)
    loud = sine(1000, 20, -23.0)
    assert measure_loudness(stereo(faint, loud, faint), 44_100).lufs == pytest.approx(-23, abs=0.1)


def test_the_middle_loudness_of_three_levels_counts() -> None:
    # EBU Tech 3341, case 5.
    parts = sine(1000, 20, -26.0), sine(1000, 20.1, -20.0), sine(1000, 20, -26.0)
    assert measure_loudness(stereo(*parts), 44_100).lufs == pytest.approx(-23.0, abs=0.1)


def test_surround_channels_weigh_more_and_the_lfe_nothing() -> None:
    # EBU Tech 3341, case 6: 5.1, front -28, centre -24, surrounds -30 dBFS.
    levels = [-28.0, -28.0, -24.0, None, -30.0, -30.0]
    silence = np.zeros(5 * 44_100)
    columns = [silence if level is None else sine(1000, 5, level) for level in levels]
    samples = np.stack(columns, axis=1).astype(np.float32)
    expected = measure_loudness(samples, 44_100).lufs
    assert expected == pytest.approx(-23.0, abs=0.1)
    samples[:, 3] = sine(60, 5, -3.0)
    assert measure_loudness(samples, 44_100).lufs == pytest.approx(expected, abs=1e-6)


def test_the_weighting_equals_the_recursive_filters_of_the_standard() -> None:
    # Coefficients at 48 kHz from ITU-R BS.1770-4, tables 1 and 2.
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285]
    shelf_tail = [1.0, -1.69065929318241, 0.73248077421585]
    high_pass, high_pass_tail = [1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621]
    random = np.random.default_rng(3)
    samples = (0.1 * random.normal(size=48_000 * 3)).astype(np.float32)
    weighted = signal.lfilter(high_pass, high_pass_tail, signal.lfilter(shelf, shelf_tail, samples))
    blocks = [np.mean(weighted[start : start + 19_200] ** 2) for start in range(0, 124_801, 4800)]
    expected = -0.691 + 10 * np.log10(np.mean(blocks))
    assert measure_loudness(samples[:, None], 48_000).lufs == pytest.approx(expected, abs=0.005)


def test_a_sound_shorter_than_a_block_is_measured_whole() -> None:
    short = measure_loudness(stereo(sine(997, 0.3, -23.0)), 44_100)
    assert short.kind is LoudnessKind.SHORT
    assert short.lufs == pytest.approx(-23.0, abs=0.3)
    assert measure_loudness(stereo(sine(997, 0.5)), 44_100).kind is LoudnessKind.INTEGRATED


def test_loudness_never_falls_below_the_absolute_gate() -> None:
    for length in (10, 44_100):
        assert measure_loudness(np.full((length, 1), 1e-9, np.float32), 44_100).lufs == -70.0


def test_rms_of_a_full_scale_sine_is_three_db_under_full_scale() -> None:
    assert measure_rms_dbfs(stereo(sine(440, 1))) == pytest.approx(-3.01, abs=0.01)
    assert measure_rms_dbfs(np.zeros((100, 2), np.float32)) == -120.0
