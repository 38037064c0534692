from pathlib import Path

from samplemind.documents.text import canonical_path


def test_a_file_has_one_name_however_it_is_reached(tmp_path: Path) -> None:
    folder = tmp_path.resolve() / "pack"
    (folder / "inner").mkdir(parents=True)
    file = folder / "kick.wav"
    file.touch()
    (tmp_path / "link").symlink_to(folder)

    assert canonical_path(file) == file
    assert canonical_path(folder / "inner" / ".." / "kick.wav") == file
    assert canonical_path(tmp_path / "link" / "kick.wav") == file
    assert canonical_path(tmp_path / "link") == folder


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    target = tmp_path.resolve() / "kick.wav"
    target.touch()
    link = tmp_path.resolve() / "other.wav"
    link.symlink_to(target)

    assert canonical_path(link) == link
