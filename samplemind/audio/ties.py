"""How a file's name may break a tie that the measurement left open, and nothing more.

A hint never raises a confidence and never touches a `measured_…` field:

- kind: taken when the measured kind's confidence is at most `SUREST_TIE`;
- tempo of a loop: when the named BPM is within 4 % of twice or half the measured one, the measured
  tempo moves by that factor; when it is within 4 % of the runner-up, the two change places;
- key: taken when it is the runner-up or the relative of the measured key and that key's confidence
  is at most `SUREST_TIE`, or when it is the measured key itself, too uncertain to be shown.
"""

import dataclasses
import math
from typing import Any

from samplemind.audio.hints import Hints, Kind
from samplemind.audio.measurements import Measurements

SUREST_TIE = 0.5  # a kind or key more certain than this is no tie
SAME_TEMPO = 0.04  # the tolerance of "accuracy 1" in the literature
TEMPO_FACTORS = (2.0, 0.5)


def break_ties(measured: Measurements, hints: Hints) -> Measurements:
    """The measurements with every tie broken that the hints can break."""
    changes: dict[str, Any] = {}
    kind = measured.kind
    undecided = measured.kind_confidence <= SUREST_TIE
    if hints.kind is not None and hints.kind is not kind and undecided:
        kind = changes["kind"] = hints.kind
        changes["tempo_bpm"] = measured.tempo_candidate_bpm if kind is Kind.LOOP else None
        if kind is Kind.LOOP:
            changes |= {"root_note": None, "root_frequency_hz": None}
    if kind is Kind.LOOP and measured.tempo_candidate_bpm and hints.tempo_bpm:
        changes |= _tempo_tie(measured.tempo_candidate_bpm, measured, hints.tempo_bpm)
    if hints.key is not None and measured.key_confidence <= SUREST_TIE:
        rivals = {measured.key_candidate, measured.key_runner_up, measured.key_relative}
        if hints.key in rivals and hints.key != measured.key:
            changes["key"] = hints.key
    used = tuple(sorted(changes.keys() & {"kind", "tempo_bpm", "key"}))
    return dataclasses.replace(measured, **changes, hints_used=used)


def _tempo_tie(bpm: float, measured: Measurements, named_bpm: float) -> dict[str, Any]:
    for factor in TEMPO_FACTORS:
        if _same_tempo(named_bpm, factor * bpm):
            return {"tempo_bpm": factor * bpm, "tempo_alternative_bpm": bpm}
    alternative = measured.tempo_alternative_bpm
    if alternative and not _same_tempo(named_bpm, bpm) and _same_tempo(named_bpm, alternative):
        return {"tempo_bpm": alternative, "tempo_alternative_bpm": bpm}
    return {}


def _same_tempo(first_bpm: float, second_bpm: float) -> bool:
    return abs(math.log(first_bpm / second_bpm)) < SAME_TEMPO
