"""Pages show what the stores hold, escape it, and are not held up by a store that is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from samplemind.connections.resources import Connections
from samplemind.documents.batch_job import BatchState
from samplemind.ids import new_id
from samplemind.jobs.client import Jobs
from samplemind.jobs.payloads import IndexFiles
from tests.asynchronous import eventually
from tests.console_data import add_batch, add_letters
from tests.integration.console.conftest import ADA, Serve, Served, text_of
from worker.console.access import Role

HOSTILE = '<script>alert("x")</script>'


async def test_the_overview_shows_what_waits_and_what_failed(
    served: Served, connections: Connections
) -> None:
    async with Jobs(connections.settings) as jobs:
        await jobs.enqueue(IndexFiles(ids=[new_id()]))
    await add_letters(connections, 3)
    page = text_of(await served.by(ADA).get("/overview"))
    assert "3 jobs failed for good" in page
    assert "There is no good backup" in page
    assert "audio: not running" in page


async def test_batches_can_be_chosen_by_state_and_followed_to_their_failures(
    served: Served, connections: Connections
) -> None:
    running = await add_batch(connections, BatchState.RUNNING, done=5, failed=2, pending=3)
    finished = await add_batch(connections, BatchState.FINISHED, done=4)
    operator = served.by(ADA)
    everything = text_of(await operator.get("/batches"))
    assert str(running) in everything
    assert str(finished) in everything
    chosen = text_of(await operator.get("/batches?state=running"))
    assert str(running) in chosen
    assert str(finished) not in chosen
    page = text_of(await operator.get(f"/batches/{running}"))
    assert "70.0 %" in page
    assert "the file is not audio" in page
    assert f'action="/batches/{running}/cancel"' in page
    ended = text_of(await operator.get(f"/batches/{finished}"))
    assert "/cancel" not in ended


async def test_failed_files_come_a_page_at_a_time(served: Served, connections: Connections) -> None:
    batch_id = await add_batch(connections, BatchState.RUNNING, failed=60, pending=1)
    operator = served.by(ADA)
    first = text_of(await operator.get(f"/batches/{batch_id}"))
    assert "sound_49.wav" in first
    assert "sound_50.wav" not in first
    assert f"/batches/{batch_id}?after=49#failed" in first
    second = text_of(await operator.get(f"/batches/{batch_id}?after=49"))
    assert "sound_50.wav" in second
    assert "sound_59.wav" in second
    assert "sound_49.wav" not in second


async def test_failed_jobs_are_found_by_their_job_and_text(
    served: Served, connections: Connections
) -> None:
    await add_letters(connections, 2, task="search.index_files", error="no connection")
    await add_letters(connections, 1, task="backups.create", error="no space left")
    operator = served.by(ADA)
    assert "1–3 of 3" in text_of(await operator.get("/failed-jobs"))
    assert "1–2 of 2" in text_of(await operator.get("/failed-jobs?task=search.index_files"))
    found = text_of(await operator.get("/failed-jobs?text=no+space"))
    assert "1–1 of 1" in found
    assert "No failed job is like that" in text_of(await operator.get("/failed-jobs?text=nix"))


async def test_what_a_job_or_a_visitor_wrote_is_never_taken_for_a_page(
    served: Served, connections: Connections
) -> None:
    (letter_id,) = await add_letters(connections, 1, task=HOSTILE, error=HOSTILE)
    batch_id = await add_batch(connections, BatchState.RUNNING, failed=1, name=HOSTILE)
    operator = served.by(ADA)
    for path in (
        "/overview",
        "/failed-jobs",
        f"/failed-jobs/{letter_id}",
        f"/batches/{batch_id}",
        "/failed-jobs?text=%3Cscript%3Ealert(%22x%22)%3C/script%3E&task=%3Cscript%3Ealert(%22x%22)",
        "/batches?state=%3Cscript%3Ealert(%22x%22)",
        "/%3Cscript%3Ealert(%22x%22)",
    ):
        assert "<script>alert" not in text_of(await operator.get(path)), path


async def test_what_does_not_exist_is_told_so(served: Served) -> None:
    operator = served.by(ADA)
    missing = "01000000-0000-7000-8000-000000000000"
    for address in (f"/batches/{missing}", f"/failed-jobs/{missing}", "/batches/nix"):

        async def told(address: str = address) -> bool:
            # A page whose store has not answered yet says that it is being read.
            return bool((await operator.get(address)).code == 404)

        await eventually(told, seconds=10, what=f"{address} is told to be nowhere")


@asynccontextmanager
async def black_hole() -> AsyncIterator[str]:
    """An address that takes connections and never answers."""

    async def swallow(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_a_store_that_never_answers_leaves_the_other_panels_readable(
    serve: Serve, connections: Connections
) -> None:
    await add_letters(connections, 2)
    async with black_hole() as silent, serve(basic_auth=ADA) as served:
        lost = served.console.connections.settings
        mongo = lost.mongo.model_copy(update={"url": type(lost.mongo.url)(f"mongodb://{silent}/")})
        served.console.connections.settings = lost.model_copy(update={"mongo": mongo})
        operator = served.by(ADA)
        page = text_of(await operator.get("/overview"))
        # What MongoDB should have told is on its way; PostgreSQL's part is there.
        assert "2 jobs failed for good" in page
        batches = text_of(await operator.get("/batches"))
        assert "The answer is on its way" in batches or "not reachable" in batches
        assert "2 of 2" in text_of(await operator.get("/failed-jobs"))


async def test_who_looks_sees_the_role_in_the_navigation(served: Served) -> None:
    page = text_of(await served.by(ADA).get("/overview"))
    assert f'<span class="role">{Role.OPERATOR.name.lower()}</span>' in page
