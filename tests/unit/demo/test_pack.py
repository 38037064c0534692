from pathlib import Path

import numpy as np

from samplemind.demo.pack import pack_files, write_pack


def test_the_pack_is_the_same_each_time_it_is_made() -> None:
    for first, second in zip(pack_files(), pack_files(), strict=True):
        assert first.name == second.name
        np.testing.assert_array_equal(first.make(), second.make())


def test_a_loop_lasts_whole_bars_of_its_tempo() -> None:
    loops = [file for file in pack_files() if file.tempo_bpm]
    assert loops
    for loop in loops:
        assert loop.tempo_bpm
        assert len(loop.make()) == round(16 * 60 / loop.tempo_bpm * 44_100)


def test_writing_the_pack_again_leaves_its_files_alone(tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in write_pack(tmp_path)}
    assert {path: path.stat().st_mtime_ns for path in write_pack(tmp_path)} == before
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]
