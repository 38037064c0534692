import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from samplemind.embedded.account import Account, can_run, can_traverse
from samplemind.embedded.home import HomeLock, StackHome
from samplemind.embedded.passwords import load_passwords
from samplemind.embedded.process import current_process
from samplemind.endpoints import Store
from samplemind.errors import ServerStartError

_STRANGER = Account("stranger", 54_321, 54_321)


def _mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_passwords_are_made_once_and_readable_by_the_owner_only(tmp_path):
    first = load_passwords(tmp_path)
    assert load_passwords(tmp_path) == first
    assert _mode(tmp_path / "passwords.json") == 0o600
    assert len({password.get_secret_value() for password in first.values()}) == len(Store)


def test_a_fresh_home_is_closed_to_others(tmp_path):
    home = StackHome(tmp_path / "deep" / "home")
    home.prepare(None)
    assert [_mode(path) for path in (home.path, home.data, home.logs, home.run)] == [0o700] * 4


def test_a_fresh_home_lets_the_servers_account_pass_to_the_data_only(tmp_path):
    group = os.getegid()
    home = StackHome(tmp_path / "home")
    home.prepare(Account("server", 54_321, group))
    assert [_mode(path) for path in (home.path, home.data)] == [0o710] * 2
    assert [_mode(path) for path in (home.logs, home.run)] == [0o700] * 2


@pytest.mark.parametrize("name", ['a"b', "a'b", "a$(touch b)", "a`b`", "a\\b", "a\nb", "a\udcffb"])
def test_a_name_that_a_shell_or_a_server_would_misread_is_refused_in_a_line(tmp_path, name):
    with pytest.raises(ServerStartError, match="its path may hold no quote") as caught:
        StackHome(tmp_path / name).prepare(None)
    assert len(str(caught.value).splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_a_name_may_hold_spaces_percents_and_any_letter(tmp_path):
    home = StackHome(tmp_path / "50 % Музыка 🎵")
    home.prepare(None)
    assert home.run.is_dir()


def test_a_home_that_exists_keeps_its_mode(tmp_path):
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    StackHome(path).prepare(Account("server", 54_321, os.getegid()))
    assert _mode(path) == 0o700


def test_one_process_at_a_time_owns_a_home(tmp_path):
    home = StackHome(tmp_path)
    home.prepare(None)
    with HomeLock(home) as first, HomeLock(home) as second:
        assert first.acquire()
        assert not second.acquire()
        assert second.owner() == current_process()
        first.release()
        assert second.owner() is None
        assert second.acquire()


def test_a_large_log_is_put_away_at_a_start_and_the_oldest_dropped(tmp_path):
    home = StackHome(tmp_path)
    home.prepare(None)
    for number in range(5):
        with home.log("probe").open("wb") as log:
            log.write(bytes([number]))
            log.truncate(17 * 1024 * 1024)
        home.rotate_log("probe")
    kept = sorted(path.name for path in home.logs.iterdir())
    assert kept == ["probe.log", "probe.log.1", "probe.log.2", "probe.log.3"]
    assert home.log("probe").with_name("probe.log.1").read_bytes()[0] == 4


def test_a_large_log_is_put_away_while_its_process_goes_on_writing(tmp_path):
    home = StackHome(tmp_path)
    home.prepare(None)
    program = "import os, sys; os.ftruncate(1, 17 << 20); sys.stdin.read(); print('after')"
    with (
        home.log("probe").open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=log
        ) as process,
    ):
        while home.log("probe").stat().st_size == 0:
            assert process.poll() is None
        home.rotate_logs()
        process.communicate()
    assert home.log("probe").read_text() == "after\n"
    assert home.log("probe").with_name("probe.log.1").stat().st_size == 17 << 20


def test_a_small_log_is_continued(tmp_path):
    home = StackHome(tmp_path)
    home.prepare(None)
    home.log("probe").write_text("before")
    home.rotate_log("probe")
    assert home.log("probe").read_text() == "before"


@pytest.fixture
def open_directory():
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


def test_a_closed_directory_above_stops_an_account(open_directory):
    place = open_directory / "above" / "place"
    place.mkdir(parents=True)
    assert can_traverse(place, _STRANGER)
    place.parent.chmod(0o700)
    assert not can_traverse(place, _STRANGER)


def test_the_group_of_a_directory_decides_for_its_members(open_directory):
    place = open_directory / "place"
    place.mkdir()
    place.chmod(0o710)
    assert can_traverse(place, Account("member", 54_321, place.stat().st_gid))
    assert not can_traverse(place, _STRANGER)


def test_a_program_that_may_not_be_read_cannot_be_run(open_directory):
    program = open_directory / "program"
    program.touch(mode=0o755)
    assert can_run(program, _STRANGER)
    program.chmod(0o711)
    assert not can_run(program, _STRANGER)
