"""Fit the key profiles of `samplemind.audio.key`, and print them to be pasted there.

    python -m benchmarks.fit_key

A softmax over the 24 keys, on pitched loops that `benchmarks.audio.phrases` synthesises: one
profile a mode and a weight each for bass and opening, 26 numbers for all keys alike, held near the
published profile "bgate" by a penalty. Rendered grooves and recorded chords are never read here:
they are what the profiles are judged on. `benchmarks.audio.accuracy` scores other seeds than these.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from benchmarks.audio import drums, phrases
from samplemind.audio import key
from samplemind.audio.measure import mix_down
from samplemind.audio.spectrum import resample

Numbers = NDArray[np.float64]

LOOPS, FIRST_SEED = 400, 1000
PENALTY = 50.0
# Faraldo et al., "Key estimation in electronic dance music", ECIR 2016: profile "bgate".
PUBLISHED = (
    (1.00, 0.00, 0.42, 0.00, 0.53, 0.37, 0.00, 0.77, 0.00, 0.38, 0.21, 0.30),
    (1.00, 0.00, 0.36, 0.39, 0.00, 0.38, 0.00, 0.74, 0.27, 0.00, 0.42, 0.23),
)
PUBLISHED_TONIC_WEIGHT = 0.3


def evidence(samples: NDArray[np.float32]) -> Numbers:
    """What each key's score is made of, shape (24, 26)."""
    tonal = resample(mix_down(samples), drums.RATE, key.TONAL_RATE_HZ)
    profile, bass, opening = key.key_evidence(key.measure_pitch_classes(tonal))
    rows = np.zeros((24, 26))
    for index in range(24):
        mode, tonic = divmod(index, 12)
        rows[index, 12 * mode : 12 * mode + 12] = np.roll(profile, -tonic)
        rows[index, 24:] = bass[tonic], opening[tonic]
    return rows


def fit(rows: Numbers, right: NDArray[np.intp]) -> Numbers:
    published = np.array(PUBLISHED)
    published -= published.mean(axis=1, keepdims=True)
    published /= np.linalg.norm(published, axis=1, keepdims=True)
    start = np.append(published.ravel(), [PUBLISHED_TONIC_WEIGHT] * 2)
    loops = np.arange(len(rows))

    def loss(weights: Numbers) -> tuple[float, Numbers]:
        scores = key.SHARPNESS * rows @ weights
        scores -= scores.max(axis=1, keepdims=True)
        chances = np.exp(scores)
        chances /= chances.sum(axis=1, keepdims=True)
        error = chances.copy()
        error[loops, right] -= 1
        distance = weights - start
        value = -np.log(chances[loops, right]).sum() + PENALTY * distance @ distance
        slope = key.SHARPNESS * np.einsum("lk,lkw->w", error, rows) + 2 * PENALTY * distance
        return float(value), slope

    fitted: Numbers = optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x
    return fitted


def main() -> None:
    names = [key.key_name(index) for index in range(24)]
    rows, right = [], []
    for seed in range(FIRST_SEED, FIRST_SEED + LOOPS):
        phrase = phrases.pitched_loop(np.random.default_rng(seed))
        rows.append(evidence(phrase.samples))
        right.append(names.index(phrase.key or ""))
    weights = fit(np.array(rows), np.array(right))
    for profile in weights[:24].reshape(2, 12):
        print(", ".join(f"{number:.2f}" for number in profile))
    print(f"bass {weights[24]:.2f}, opening {weights[25]:.2f}")


if __name__ == "__main__":
    main()
