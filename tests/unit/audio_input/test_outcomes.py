"""Every kind of file ends in exactly one recorded outcome, and the process lives on."""

import json
from pathlib import Path

import pytest

from samplemind.audio.analysis import analyze_file
from samplemind.audio.outcome import Outcome
from tests.audio_files import BAD_FILES, GOOD_FILES, MadeFile


def make(folder: Path, made: MadeFile) -> Path:
    path = folder / made.name
    path.write_bytes(made.content())
    return path


@pytest.mark.parametrize("made", GOOD_FILES, ids=lambda made: made.name)
def test_a_sound_of_any_format_is_analysed_whatever_its_name(
    made: MadeFile, tmp_path: Path
) -> None:
    analysis = analyze_file(make(tmp_path, made))

    assert analysis.outcome is Outcome.ANALYZED, analysis.message
    assert analysis.facts is not None
    assert analysis.facts.missing_share == 0
    assert analysis.measurements is not None
    assert analysis.measurements.embedding.shape == (128,)


@pytest.mark.parametrize("made", BAD_FILES, ids=lambda made: made.name)
def test_a_bad_file_has_its_own_outcome(made: MadeFile, tmp_path: Path) -> None:
    analysis = analyze_file(make(tmp_path, made))

    assert analysis.outcome is made.outcome, analysis.message
    assert (analysis.measurements is not None) == made.outcome.measured
    assert (analysis.facts is None) == made.outcome.rejected
    assert json.loads(json.dumps(analysis.as_dict(), allow_nan=False))["outcome"] == made.outcome
