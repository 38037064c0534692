import os
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from samplemind.embedded.home import StackHome
from samplemind.embedded.platform import ROLES, Phase, SupervisorState, write_state
from samplemind.embedded.ports import Ports
from samplemind.embedded.probes import ask, readable
from samplemind.embedded.services import Sign, judge_signs, list_services, list_supervisor
from samplemind.endpoints import Store
from samplemind.errors import StoreUnavailableError
from samplemind.settings import Settings, load_settings

_OWN = Sign("audio", "here", os.getpid())
_AFAR = Sign("audio", "afar", 7)
_ENDED = Sign("audio", "here", 2**22 + 1)  # above the largest pid there can be


@pytest.mark.parametrize(
    ("pid", "signs", "healthy", "detail"),
    [
        (_OWN.pid, [_OWN], True, "working"),
        (_OWN.pid, [_AFAR, _OWN], True, "working; also on afar (pid 7)"),
        # A process here that gives no sign is not hidden by one elsewhere.
        (9, [_AFAR], False, "no sign of life in the last 15 s; others work on afar (pid 7)"),
        (7, [_AFAR], False, "no sign of life in the last 15 s; others work on afar (pid 7)"),
        # Nothing is to run here: what runs elsewhere counts.
        (None, [_AFAR], True, "working on afar (pid 7)"),
        (None, [], False, "not running: start it with `samplemind up`"),
        # The process before, whose sign has not lapsed yet.
        (_OWN.pid, [_ENDED], False, "no sign of life in the last 15 s"),
    ],
    # Named, because a pid in a name differs between the processes that share out a run.
    ids=["own", "own and afar", "silent", "silent, pid of afar", "afar", "none", "ended"],
)
def test_a_process_is_judged_by_its_own_sign_and_others_are_named(pid, signs, healthy, detail):
    assert judge_signs(pid, "here", signs) == (healthy, detail)


def test_a_process_that_is_on_record_here_and_has_died_is_ill_at_once():
    died = "not running: it has died"
    assert judge_signs(None, "here", [_OWN], died=True)[0] is False
    assert judge_signs(None, "here", [], died=True) == (False, died)
    others = (False, f"{died}; others work on afar (pid 7)")
    assert judge_signs(None, "here", [_AFAR], died=True) == others


def test_a_process_that_waits_to_be_reaped_gives_no_sign():
    child = subprocess.Popen(["/bin/sleep", "60"])
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    assert judge_signs(None, "here", [Sign("audio", "here", child.pid)])[0] is False
    child.wait()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = load_settings().model_copy(update={"home": tmp_path})
    StackHome(tmp_path).prepare(None)
    return settings


def _ended(phase: Phase, message: str = "") -> SupervisorState:
    return SupervisorState(_ENDED.pid, phase, ROLES, message)


@pytest.mark.parametrize(
    ("state", "detail"),
    [
        (
            _ended(Phase.RUNNING),
            "not running: nothing restarts what dies; run `samplemind up`",
        ),
        (_ended(Phase.MIGRATIONS), "it died while migrating; run `samplemind up`"),
        (
            _ended(Phase.FAILED, "the cache ended at its start; the end of /logs/cache.log:\nlast"),
            "the last `up` failed: the cache ended at its start; see /logs/cache.log",
        ),
    ],
)
def test_a_supervisor_that_is_gone_is_a_line_of_its_own(settings, state, detail):
    write_state(StackHome(settings.home), state)
    [service] = list_supervisor(settings)
    assert (service.name, service.pid, service.healthy) == ("supervisor", None, False)
    assert service.detail == detail


def test_where_nothing_is_meant_to_run_there_is_no_line_of_a_supervisor(settings):
    assert list_supervisor(settings) == []
    write_state(StackHome(settings.home), _ended(Phase.STOPPED))
    assert list_supervisor(settings) == []


def test_after_a_stop_everything_is_only_not_running(settings):
    Ports(StackHome(settings.home).run).claim("console")
    write_state(StackHome(settings.home), _ended(Phase.STOPPED))
    details = {service.detail for service in list_services(settings)}
    assert details == {"not running: start it with `samplemind up`"}


@pytest.mark.parametrize(
    ("store", "url"),
    [
        (Store.POSTGRES, "postgresql://u:p@127.0.0.1:1/x"),
        (Store.MONGO, "mongodb://127.0.0.1:1/"),
        (Store.BROKER, "redis://127.0.0.1:1/0"),
    ],
)
def test_a_store_that_is_gone_is_told_in_plain_words(store, url):
    with pytest.raises(StoreUnavailableError, match=r"does not answer: connection refused$"):
        ask(store, SecretStr(url))


def test_what_a_driver_appends_is_left_out():
    error = OSError("no primary (configured timeouts: x), Timeout: 3s, Topology Description: <y>")
    assert readable(error) == "no primary"
