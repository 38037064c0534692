"""How good a file is whatever is asked for: how complete, how much used, how new.

Invariant: a pure function with values from 0 to 1. It orders files whose words match alike, and
the rows of `search_texts` after a rebuild.
"""

import math
from datetime import datetime, timedelta

from samplemind.documents.audio_file import AudioFile

_COMPLETENESS, _POPULARITY, _RECENCY = 0.3, 0.4, 0.3
_DOWNLOAD_WORTH_PLAYS = 4
_USES_OF_HALF = 100  # plays at which popularity is one half
_HALF_LIFE = timedelta(days=180)


def static_quality(file: AudioFile, *, plays: int, downloads: int, now: datetime) -> float:
    """Return the file's quality, from 0 to 1; `now` is UTC-aware."""
    uses = math.log1p(max(0, plays) + _DOWNLOAD_WORTH_PLAYS * max(0, downloads))
    popularity = uses / (uses + math.log1p(_USES_OF_HALF))
    age = max(timedelta(0), now - file.created_at)
    recency = math.exp2(-(age / _HALF_LIFE))
    quality = _COMPLETENESS * _completeness(file) + _POPULARITY * popularity + _RECENCY * recency
    return round(quality, 4)


def _completeness(file: AudioFile) -> float:
    known = (
        file.tags,
        file.kind,
        file.tempo_bpm or file.kind == "one_shot",
        file.key or file.root_note,
        file.loudness_lufs is not None,
        file.pack,
        file.artist,
        file.description,
    )
    return sum(map(bool, known)) / len(known)
