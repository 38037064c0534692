"""A drum synthesiser with known classes: what the shipped projection is fitted on.

Every sound is drawn from wide ranges, between a plain drum machine and a struck body in a room, so
that a class covers what the word covers and not one instrument. Deterministic for a seeded
generator; nothing is read from disk.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft as scipy_fft

Sound = NDArray[Any]  # float64, one channel at RATE
Random = np.random.Generator

RATE = 44_100
MEMBRANE_MODES = np.array([1.0, 1.594, 2.136, 2.296, 2.653, 2.918, 3.156, 3.501, 3.6, 4.06])
BAR_MODES = np.array([1.0, 2.756, 5.404, 8.933])


def time_s(seconds: float) -> Sound:
    return np.arange(int(seconds * RATE)) / RATE


def decay(t: Sound, to_60_db_s: float) -> Sound:
    """An exponential that has fallen by 60 dB after the time given."""
    return np.exp(-6.908 * t / to_60_db_s)


def between(random: Random, low: float, high: float) -> float:
    """A number drawn evenly on a logarithmic scale."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def shape_noise(random: Random, length: int, low_hz: float, high_hz: float, slope: float) -> Sound:
    """Noise between two frequencies, falling by `slope` dB an octave outside them."""
    spectrum = scipy_fft.rfft(random.normal(size=length))
    octave = np.log2(np.maximum(scipy_fft.rfftfreq(length, 1 / RATE), 1.0))
    outside = np.maximum(np.log2(low_hz) - octave, 0) + np.maximum(octave - np.log2(high_hz), 0)
    noise: Sound = scipy_fft.irfft(spectrum * 10 ** (-slope * outside / 20), length)
    return noise / max(float(np.abs(noise).max()), 1e-9)


def ring(
    random: Random, t: Sound, frequencies: Sound, gains: Sound, to_60_db_s: Sound, bend: Sound
) -> Sound:
    """A sum of decaying partials; `bend` multiplies every frequency at each moment."""
    phase = 2 * np.pi * np.cumsum(bend) / RATE
    total = np.zeros_like(t)
    for frequency, gain, fall in zip(frequencies, gains, to_60_db_s, strict=True):
        if frequency < RATE / 2.1:
            total += gain * np.sin(frequency * phase + random.uniform(0, 6.28)) * decay(t, fall)
    return total


def membrane(random: Random, t: Sound, pitch_hz: float, fall_s: float, drop: float) -> Sound:
    """A struck head: `drop` is how many times higher it starts."""
    count = int(random.integers(1, len(MEMBRANE_MODES) + 1))
    order = np.arange(count)
    gains = 10 ** (-random.uniform(2, 9) * order / 20) * random.uniform(0.4, 1, count)
    falls = fall_s * (1 + order) ** -random.uniform(0.2, 1.0)
    bend = 1 + (drop - 1) * decay(t, between(random, 0.02, 0.25))
    return ring(random, t, pitch_hz * MEMBRANE_MODES[:count], gains, falls, bend)


def metal(random: Random, t: Sound, low_hz: float, high_hz: float, fall_s: float) -> Sound:
    """Dense inharmonic partials, the higher the shorter, or squares of a drum machine, or noise."""
    count = int(random.integers(12, 70))
    frequencies = np.exp(random.uniform(np.log(low_hz), np.log(high_hz), count))
    falls = fall_s * (frequencies / low_hz) ** -random.uniform(0.0, 0.8) * random.uniform(0.5, 1.5)
    partials = ring(random, t, frequencies, random.rayleigh(1, count), falls, np.ones_like(t))
    noise = shape_noise(random, len(t), low_hz, high_hz, random.uniform(6, 18))
    mix = random.uniform(0, 1)
    level = max(float(np.abs(partials).max()), 1e-9)
    return (1 - mix) * partials / level + mix * noise * decay(t, fall_s)


def click(random: Random, t: Sound, low_hz: float, high_hz: float) -> Sound:
    noise = shape_noise(random, len(t), low_hz, high_hz, random.uniform(6, 18))
    return noise * decay(t, between(random, 0.004, 0.05))


def kick(random: Random) -> Sound:
    fall = between(random, 0.12, 1.4)
    t = time_s(fall * 1.2 + 0.1)
    body = membrane(random, t, between(random, 38, 85), fall, between(random, 1.0, 6))
    beater = click(random, t, between(random, 300, 2500), between(random, 3000, 9000))
    sound = body + random.uniform(0, 0.6) * beater
    rumble = shape_noise(random, len(t), 40, 300, 9) * decay(t, fall * 0.6)
    return sound + random.uniform(0, 0.3) * rumble


def snare(random: Random) -> Sound:
    fall = between(random, 0.1, 0.7)
    t = time_s(fall * 1.3 + 0.1)
    body = membrane(random, t, between(random, 140, 320), fall * between(random, 0.3, 1), 1.2)
    wires = shape_noise(
        random, len(t), between(random, 500, 3000), between(random, 5000, 14000), 6
    ) * decay(t, fall)
    stick = click(random, t, 1500, 9000)
    return random.uniform(0.2, 1) * body + random.uniform(0.3, 1.2) * wires + 0.3 * stick


def rim(random: Random) -> Sound:
    fall = between(random, 0.03, 0.25)
    t = time_s(fall * 1.5 + 0.06)
    count = int(random.integers(2, 7))
    frequencies = np.exp(random.uniform(np.log(350), np.log(4500), count))
    falls = fall * random.uniform(0.2, 1, count)
    crack = ring(random, t, frequencies, random.rayleigh(1, count), falls, np.ones_like(t))
    stick = click(random, t, between(random, 800, 2500), between(random, 4000, 12000))
    return np.asarray(crack / np.abs(crack).max() + random.uniform(0.1, 1) * stick)


def clap(random: Random) -> Sound:
    fall = between(random, 0.08, 0.5)
    t = time_s(fall * 1.3 + 0.12)
    low = between(random, 600, 1400)
    noise = shape_noise(random, len(t), low, low * between(random, 1.5, 6), 9)
    strokes = np.sort(random.uniform(0, between(random, 0.008, 0.05), random.integers(1, 6)))
    envelope = random.uniform(0.2, 1) * decay(np.maximum(t - strokes[-1], 0), fall)
    for stroke in strokes:
        after = t - stroke
        envelope += (after >= 0) * decay(np.maximum(after, 0), between(random, 0.01, 0.06))
    return np.asarray(noise * envelope)


def closed_hat(random: Random) -> Sound:
    fall = between(random, 0.03, 0.22)
    t = time_s(fall * 1.4 + 0.05)
    sound = metal(random, t, between(random, 2500, 7500), between(random, 9000, 18000), fall)
    return sound + random.uniform(0, 0.5) * click(random, t, 2500, 12000)


def open_hat(random: Random) -> Sound:
    fall = between(random, 0.35, 2.0)
    t = time_s(fall * random.uniform(0.6, 1.2))
    sound = metal(random, t, between(random, 2000, 6500), between(random, 9000, 18000), fall)
    return sound + random.uniform(0, 0.5) * click(random, t, 2500, 12000)


def pedal_hat(random: Random) -> Sound:
    fall = between(random, 0.03, 0.25)
    t = time_s(fall * 1.5 + 0.08)
    sound = metal(random, t, between(random, 1200, 5000), between(random, 7000, 14000), fall)
    rise = np.minimum(1, t / between(random, 0.002, 0.03))
    thump = membrane(random, t, between(random, 150, 500), fall, 1.0)
    return rise * sound + random.uniform(0, 0.25) * thump


def crash(random: Random) -> Sound:
    fall = between(random, 0.8, 5)
    t = time_s(min(fall * random.uniform(0.6, 1.2), 4.5))
    wash = metal(random, t, between(random, 300, 2000), between(random, 8000, 17000), fall)
    bloom = np.minimum(1, 0.4 + t / between(random, 0.005, 0.12))
    burst = shape_noise(random, len(t), 1500, 14000, 6) * decay(t, between(random, 0.1, 0.6))
    return bloom * wash + random.uniform(0.1, 0.8) * burst


def ride(random: Random) -> Sound:
    fall = between(random, 0.8, 5)
    t = time_s(min(fall * random.uniform(0.5, 1.2), 4.5))
    count = int(random.integers(4, 16))
    frequencies = np.exp(random.uniform(np.log(350), np.log(6000), count))
    falls = fall * random.uniform(0.15, 1, count)
    gains = random.rayleigh(1, count)
    ping = ring(random, t, frequencies, gains, falls, np.ones_like(t))
    shimmer = metal(random, t, between(random, 1500, 4000), between(random, 7000, 15000), fall)
    stick = click(random, t, 3000, 12000)
    mix = random.uniform(0.2, 0.9)
    ping = ping / np.abs(ping).max()
    return np.asarray(mix * ping + (1 - mix) * shimmer + random.uniform(0.1, 0.6) * stick)


def tom(random: Random) -> Sound:
    fall = between(random, 0.25, 1.6)
    t = time_s(fall * 1.1 + 0.1)
    body = membrane(random, t, between(random, 65, 240), fall, between(random, 1.0, 2.2))
    stick = click(random, t, between(random, 300, 1500), between(random, 2500, 7000))
    return body + random.uniform(0, 0.4) * stick


def cowbell(random: Random) -> Sound:
    fall = between(random, 0.12, 0.9)
    t = time_s(fall * 1.2 + 0.05)
    base = between(random, 420, 950)
    ratios = np.array([1.0, random.uniform(1.4, 1.55), random.uniform(2.0, 2.9), 3.6, 4.9, 6.3])
    gains = 10 ** (-random.uniform(1, 8) * np.arange(6) / 20) * random.uniform(0.4, 1, 6)
    falls = fall * random.uniform(0.3, 1, 6)
    sound = ring(random, t, base * ratios, gains, falls, np.ones_like(t))
    return sound + random.uniform(0, 0.3) * click(random, t, 2000, 9000)


def conga(random: Random) -> Sound:
    fall = between(random, 0.08, 0.6)
    t = time_s(fall * 1.3 + 0.08)
    body = membrane(random, t, between(random, 160, 550), fall, between(random, 1.0, 1.3))
    slap = click(random, t, between(random, 600, 2000), between(random, 2500, 7000))
    return body + random.uniform(0.1, 1.0) * slap


def shaker(random: Random) -> Sound:
    fall = between(random, 0.04, 0.4)
    rise = between(random, 0.005, 0.09)
    t = time_s(fall + rise + 0.05)
    noise = shape_noise(
        random, len(t), between(random, 2500, 7000), between(random, 8000, 16000), 9
    )
    grains = 1 + random.uniform(0, 2) * (random.random(len(t)) < between(random, 1e-3, 2e-2))
    envelope = np.minimum(1, t / rise) * decay(np.maximum(t - rise, 0), fall)
    jingle = metal(random, t, 3500, 14000, fall * 1.5)
    return np.asarray((noise * grains + random.choice([0, 0, 0.7]) * jingle) * envelope)


def wood(random: Random) -> Sound:
    fall = between(random, 0.03, 0.18)
    t = time_s(fall * 1.5 + 0.05)
    base = between(random, 600, 2800)
    gains = 10 ** (-random.uniform(6, 20) * np.arange(4) / 20)
    falls = fall * np.array([1, 0.6, 0.4, 0.3])
    sound = ring(random, t, base * BAR_MODES, gains, falls, np.ones_like(t))
    return sound + random.uniform(0, 0.3) * click(random, t, 1500, 8000)


DRUMS: dict[str, Callable[[Random], Sound]] = {
    "kick": kick,
    "snare": snare,
    "rim": rim,
    "clap": clap,
    "closed_hat": closed_hat,
    "open_hat": open_hat,
    "pedal_hat": pedal_hat,
    "crash": crash,
    "ride": ride,
    "tom": tom,
    "cowbell": cowbell,
    "conga": conga,
    "shaker": shaker,
    "wood": wood,
}


def record(random: Random, sound: Sound) -> Sound:
    """What lies between an instrument and a file: room, equaliser, drive, noise and silence."""
    length = len(sound)
    if random.random() < 0.6:
        room_s = between(random, 0.06, 0.9)
        tail = random.normal(size=int(room_s * RATE)) * decay(time_s(room_s), room_s)
        tail = shape_noise(random, len(tail), 200, between(random, 2500, 12000), 6) * np.abs(tail)
        size = scipy_fft.next_fast_len(length + len(tail))
        wet = scipy_fft.irfft(scipy_fft.rfft(sound, size) * scipy_fft.rfft(tail, size), size)
        wet = wet[: length + len(tail) // 2]
        level = between(random, 0.01, 0.5) * np.abs(sound).max() / np.abs(wet).max()
        sound = np.pad(sound, (0, len(wet) - length)) + level * wet
    sound = equalise(random, sound)
    if random.random() < 0.35:
        drive = between(random, 0.5, 8)
        sound = np.tanh(drive * sound / np.abs(sound).max())
    sound = sound / np.abs(sound).max()
    sound = sound + 10 ** (random.uniform(-95, -45) / 20) * random.normal(size=len(sound))
    lead = int(random.choice([0, 0, between(random, 0.0005, 0.02)]) * RATE)
    return np.pad(sound, (lead, int(random.choice([0, 0, between(random, 0.02, 0.5)]) * RATE)))


def equalise(random: Random, sound: Sound) -> Sound:
    """A tilt, three broad bells and now and then the dull top of a low sample rate."""
    spectrum = scipy_fft.rfft(sound)
    octave = np.log2(np.maximum(scipy_fft.rfftfreq(len(sound), 1 / RATE), 20) / 1000)
    gain_db = random.normal(0, 1.0) * octave
    for _ in range(3):
        distance = (octave - random.uniform(-4.5, 4)) / random.uniform(0.3, 1.2)
        gain_db = gain_db + random.normal(0, 4) * np.exp(-0.5 * distance**2)
    if random.random() < 0.15:
        gain_db = gain_db - 40 * np.maximum(octave - np.log2(between(random, 5, 14)), 0)
    equalised: Sound = scipy_fft.irfft(spectrum * 10 ** (gain_db / 20), len(sound))
    return equalised


def hit(name: str, random: Random) -> NDArray[np.float32]:
    """One recorded hit of a class of `DRUMS`, mono at `RATE`, peak below 1."""
    sound = record(random, DRUMS[name](random))
    peak = float(np.abs(sound).max())
    return np.asarray(0.8 * sound / peak, dtype=np.float32)
