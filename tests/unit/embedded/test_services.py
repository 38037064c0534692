import os

import pytest

from samplemind.embedded.services import Sign, judge_signs

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
        (None, [], False, "no sign of life in the last 15 s"),
        # The process before, whose sign has not lapsed yet.
        (_OWN.pid, [_ENDED], False, "no sign of life in the last 15 s"),
    ],
)
def test_a_process_is_judged_by_its_own_sign_and_others_are_named(pid, signs, healthy, detail):
    assert judge_signs(pid, "here", signs) == (healthy, detail)
