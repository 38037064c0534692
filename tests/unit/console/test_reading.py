"""Panels are read once for all, and hold nobody up."""

import asyncio

import pytest

from samplemind.errors import StoreUnavailableError
from worker.console.reading import Board, Panel, Subject


class Source:
    """Something that is read; answers when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()
        self.begun = asyncio.Event()

    async def ask(self) -> int:
        self.asked += 1
        self.begun.set()
        await self.answers.wait()
        return self.asked


async def test_many_who_look_at_once_cause_one_reading() -> None:
    source, board = Source(), Board()
    source.answers.set()
    panel = Panel(source.ask, fresh_s=60)
    readings = await asyncio.gather(*(board.read("p", panel) for _ in range(20)))
    assert {reading.value for reading in readings} == {1}
    assert (await board.read("p", panel)).value == 1
    assert source.asked == 1


async def test_a_store_that_is_slow_leaves_the_panel_waiting_and_its_answer_is_kept() -> None:
    source, board = Source(), Board()
    panel = Panel(source.ask, fresh_s=60, patience_s=0)
    first = await board.read("p", panel)
    assert first.waiting
    assert not first.ready
    source.answers.set()
    later = Panel(source.ask, fresh_s=60, patience_s=30)
    assert (await board.read("p", later)).value == 1
    assert source.asked == 1


async def test_an_old_reading_is_shown_while_a_newer_one_is_on_its_way() -> None:
    source, board = Source(), Board()
    source.answers.set()
    assert (await board.read("p", Panel(source.ask, fresh_s=0))).value == 1
    source.answers.clear()
    stale = await board.read("p", Panel(source.ask, fresh_s=0, patience_s=0))
    assert stale.value == 1
    await board.aclose()


async def test_a_store_that_does_not_answer_is_told_with_the_mend() -> None:
    board = Board()

    async def refuse() -> int:
        message = "PostgreSQL did not answer"
        raise StoreUnavailableError(message)

    reading = await board.read("p", Panel(refuse, mend="start it"))
    assert (reading.problem, reading.mend) == ("PostgreSQL did not answer", "start it")
    assert not reading.ready


async def test_a_store_that_hangs_is_told_of_and_asked_once_until_it_answers() -> None:
    source, board = Source(), Board()
    panel = Panel(source.ask, fresh_s=0, timeout_s=0.01, patience_s=30)
    for _ in range(3):
        reading = await board.read("p", panel)
        assert reading.problem is not None
        assert "no answer" in reading.problem
    assert source.asked == 1
    source.answers.set()
    late = await board.read("p", Panel(source.ask, fresh_s=0, timeout_s=60, patience_s=30))
    assert late.value == 1


async def test_a_fault_of_ours_spoils_its_own_panel_only() -> None:
    board = Board()

    async def fail() -> int:
        raise ZeroDivisionError

    async def answer() -> int:
        return 7

    spoilt, well = await asyncio.gather(
        board.read("a", Panel(fail)), board.read("b", Panel(answer))
    )
    assert spoilt.problem is not None
    assert "ZeroDivision" not in spoilt.problem
    assert well.value == 7


async def test_what_was_read_before_a_change_is_not_shown_after_it() -> None:
    source, board = Source(), Board()
    panel = Panel(source.ask, Subject.BATCHES, fresh_s=60, patience_s=30)
    before = asyncio.create_task(board.read("p", panel))
    await source.begun.wait()
    board.forget((Subject.BATCHES,))
    after = asyncio.create_task(board.read("p", panel))
    source.answers.set()
    await before
    assert (await after).value == 2
    board.forget((Subject.BATCHES,))
    assert (await board.read("p", panel)).value == 3


async def test_a_change_leaves_what_tells_of_something_else() -> None:
    report, board = Source(), Board()
    report.answers.set()
    panel = Panel(report.ask, fresh_s=120, patience_s=30)
    jobs = Panel(report.ask, Subject.JOBS, fresh_s=120, patience_s=30)
    assert (await board.read("report", panel)).value == 1
    assert (await board.read("jobs", jobs)).value == 2
    board.forget((Subject.BATCHES, Subject.CACHE))
    assert (await board.read("report", panel)).value == 1
    assert (await board.read("jobs", jobs)).value == 2


async def test_a_store_that_hangs_is_not_asked_again_after_a_change() -> None:
    source, board = Source(), Board()
    panel = Panel(source.ask, Subject.JOBS, fresh_s=0, timeout_s=0.01, patience_s=30)
    for _ in range(3):
        assert (await board.read("p", panel)).problem is not None
        board.forget((Subject.JOBS,))
    assert source.asked == 1
    # Once it answers, what it was asked before the change is asked again.
    source.answers.set()
    late = Panel(source.ask, Subject.JOBS, fresh_s=60, timeout_s=60, patience_s=30)
    assert (await board.read("p", late)).value == 2


async def test_a_store_that_refused_is_left_alone_for_a_while_after_a_change() -> None:
    board, asked = Board(), 0

    async def refuse() -> int:
        nonlocal asked
        asked += 1
        message = "PostgreSQL did not answer"
        raise StoreUnavailableError(message)

    panel = Panel(refuse, Subject.LETTERS, fresh_s=60)
    for _ in range(3):
        assert (await board.read("p", panel)).problem is not None
        board.forget((Subject.LETTERS,))
    assert asked == 1


async def test_what_is_kept_is_bounded() -> None:
    board = Board()

    async def answer() -> int:
        return 1

    for number in range(1000):
        await board.read(number, Panel(answer))
    assert len(board) <= 256


@pytest.mark.parametrize("key", ["a", ("page", "panel", 3)])
async def test_a_key_may_be_anything_that_can_be_compared(key: object) -> None:
    async def answer() -> str:
        return "x"

    assert (await Board().read(key, Panel(answer))).value == "x"
