"""A handful of synthesised instruments: pure functions from musical terms to samples.

Every function returns float32, shape (frames,), at `RATE_HZ`, and gives the same samples for the
same arguments: noise comes from a generator seeded by the caller.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import signal

RATE_HZ = 44_100

Samples = NDArray[np.float32]

_CONCERT_A_HZ = 440.0
_CONCERT_A_MIDI = 69


def frequency_hz(midi: float) -> float:
    """Return the frequency of a MIDI note in equal temperament, A4 = 440 Hz."""
    return float(_CONCERT_A_HZ * 2 ** ((midi - _CONCERT_A_MIDI) / 12))


def kick(*, pitch_hz: float = 50.0, sweep: float = 4.0, decay_s: float = 0.35) -> Samples:
    """Return a sine whose pitch falls from `sweep` times `pitch_hz`, with a short click."""
    time = _time(decay_s * 2)
    phase_hz = pitch_hz * (1 + (sweep - 1) * np.exp(-time / 0.03))
    body = np.sin(2 * np.pi * np.cumsum(phase_hz) / RATE_HZ) * np.exp(-time / (decay_s / 2))
    click = np.exp(-time / 0.002) * 0.3
    return _finish(body + click)


def snare(*, seed: int, tone_hz: float = 190.0, snap: float = 0.7, decay_s: float = 0.2) -> Samples:
    """Return a drum head under a burst of high-passed noise; `snap` is the noise's share."""
    time = _time(decay_s * 1.8)
    noise = _high_pass(_noise(len(time), seed), 1_200) * np.exp(-time / (decay_s / 2.5))
    head = np.sin(2 * np.pi * tone_hz * time) * np.exp(-time / 0.05)
    return _finish(snap * noise + (1 - snap) * head)


def hat(*, seed: int, decay_s: float = 0.05, cutoff_hz: float = 7_000.0) -> Samples:
    """Return high-passed noise: closed when `decay_s` is short, open when it is long."""
    time = _time(max(decay_s * 5, 0.08))
    return _finish(_high_pass(_noise(len(time), seed), cutoff_hz) * np.exp(-time / decay_s))


def clap(*, seed: int, decay_s: float = 0.12) -> Samples:
    """Return four quick bursts of band-passed noise."""
    time = _time(0.35)
    bursts = sum(
        np.where(time >= start, np.exp(-(time - start) / (decay_s if start > 0.02 else 0.006)), 0.0)
        for start in (0.0, 0.008, 0.017, 0.027)
    )
    band = signal.butter(2, (900, 3_500), "bandpass", fs=RATE_HZ, output="sos")
    return _finish(signal.sosfilt(band, _noise(len(time), seed)) * bursts)


def bass(midi: float, duration_s: float, *, brightness: float = 0.5) -> Samples:
    """Return one plucked bass note; `brightness` from 0 (sine) to 1 (saw)."""
    time = _time(duration_s)
    tone = _partials(frequency_hz(midi), time, count=12, slope=2.2 - 1.2 * brightness)
    return _shape(tone, attack_s=0.005, release_s=0.04) * np.float32(0.8)


def chord(notes: tuple[int, ...], duration_s: float, *, soft: bool = False) -> Samples:
    """Return the notes together; `soft` gives a slow pad, otherwise a struck chord."""
    time = _time(duration_s)
    mix = np.sum(
        [_partials(frequency_hz(note), time, count=8, slope=1.8) for note in notes], axis=0
    )
    if not soft:
        mix = mix * np.exp(-time / max(duration_s * 0.7, 0.2))
    return _shape(mix, attack_s=0.12 if soft else 0.004, release_s=0.08) * np.float32(0.8)


def mix_at(length_s: float, events: list[tuple[float, Samples, float]]) -> Samples:
    """Return `length_s` seconds with each (start in s, samples, gain) laid in, ends cut off."""
    mix = np.zeros(round(length_s * RATE_HZ), dtype=np.float32)
    for start_s, samples, gain in events:
        start = round(start_s * RATE_HZ)
        part = samples[: max(0, len(mix) - start)]
        mix[start : start + len(part)] += part * np.float32(gain)
    return _finish(mix)


def _time(duration_s: float) -> NDArray[np.float64]:
    return np.arange(round(duration_s * RATE_HZ)) / RATE_HZ


def _noise(frames: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(frames)


def _high_pass(samples: NDArray[np.float64], cutoff_hz: float) -> NDArray[np.float64]:
    sections = signal.butter(2, cutoff_hz, "highpass", fs=RATE_HZ, output="sos")
    filtered: NDArray[np.float64] = signal.sosfilt(sections, samples)
    return filtered


def _partials(
    pitch_hz: float, time: NDArray[np.float64], *, count: int, slope: float
) -> NDArray[np.float64]:
    # Partials above the Nyquist frequency would fold back as wrong notes.
    numbers = [n for n in range(1, count + 1) if n * pitch_hz < RATE_HZ / 2]
    waves = [np.sin(2 * np.pi * n * pitch_hz * time) / n**slope for n in numbers]
    return np.asarray(np.sum(waves, axis=0), dtype=np.float64)


def _shape(samples: NDArray[np.float64], *, attack_s: float, release_s: float) -> Samples:
    fade_in = np.linspace(0, 1, max(2, round(attack_s * RATE_HZ)))
    fade_out = np.linspace(1, 0, max(2, round(release_s * RATE_HZ)))
    envelope = np.ones(len(samples))
    envelope[: len(fade_in)] *= fade_in[: len(samples)]
    envelope[-len(fade_out) :] *= fade_out[-len(samples) :]
    return _finish(samples * envelope)


def _finish(samples: NDArray[np.floating]) -> Samples:
    peak = float(np.max(np.abs(samples), initial=0.0))
    return (samples / peak * 0.89 if peak > 0 else samples).astype(np.float32)
