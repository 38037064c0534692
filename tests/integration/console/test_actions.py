"""What an operator does happens once, is asked before, audited, and told."""

from samplemind.batches import progress
from samplemind.connections.resources import Connections
from samplemind.documents.batch_job import BatchState
from samplemind.jobs.letters import DeathCause
from samplemind.models.audit_log import AuditLog
from samplemind.models.dead_letter import DeadLetter, DeadLetterState
from samplemind.repositories.audit import AuditLogRepository
from samplemind.repositories.dead_letters import DeadLetterRepository, LetterFilter
from tests.console_data import add_batch, add_letters
from tests.integration.console.conftest import ADA, Served, json_of, text_of

YES = {"confirmed": "1"}
JSON = "application/json"


async def audited(connections: Connections, action: str) -> list[AuditLog]:
    async with connections.postgres.session() as session:
        return list(await AuditLogRepository(session).of_action(action))


async def letters_in(connections: Connections, state: DeadLetterState) -> list[DeadLetter]:
    async with connections.postgres.session() as session:
        found = await DeadLetterRepository(session).find(LetterFilter(state=state), limit=1000)
        return list(found)


async def test_a_batch_is_cancelled_only_after_the_question(
    served: Served, connections: Connections
) -> None:
    batch_id = await add_batch(connections, BatchState.RUNNING, done=2, pending=3)
    operator = served.by(ADA)
    here = f"/batches/{batch_id}"
    asked = await operator.post(f"{here}/cancel", {"next": here})
    assert asked.code == 200
    assert "Cancel this batch?" in text_of(asked)
    assert (await progress(connections, batch_id)).state is BatchState.RUNNING
    done = await operator.post(f"{here}/cancel", {**YES, "next": here})
    assert done.code == 303
    assert done.headers["Location"] == here
    assert (await progress(connections, batch_id)).cancelled == 3
    page = text_of(await operator.get(here))
    assert "Cancelled: 3 of 5 files were left." in page
    # What was said once is not said again.
    assert "files were left." not in text_of(await operator.get(here))
    (entry,) = await audited(connections, "console.cancel_batch")
    assert (entry.resource_kind, entry.resource_id) == ("batch", str(batch_id))
    assert (entry.outcome, entry.details["by"]) == ("success", "ada")
    assert str(entry.ip_address) == "127.0.0.1"


async def test_what_cannot_be_done_is_told_and_audited_as_failed(
    served: Served, connections: Connections
) -> None:
    batch_id = await add_batch(connections, BatchState.FINISHED, done=1)
    answer = await served.by(ADA).post(f"/batches/{batch_id}/cancel", YES, Accept=JSON)
    assert answer.code == 409
    assert json_of(answer)["message"] == "The batch had ended before: finished."
    (entry,) = await audited(connections, "console.cancel_batch")
    assert entry.outcome == "failed"


async def test_a_batch_is_paused_and_goes_on(served: Served, connections: Connections) -> None:
    batch_id = await add_batch(connections, BatchState.RUNNING, done=1, pending=2)
    operator = served.by(ADA)
    assert (await operator.post(f"/batches/{batch_id}/pause", YES, Accept=JSON)).code == 200
    assert (await progress(connections, batch_id)).state is BatchState.PAUSED
    assert (await operator.post(f"/batches/{batch_id}/pause", YES, Accept=JSON)).code == 409
    assert (await operator.post(f"/batches/{batch_id}/resume", YES, Accept=JSON)).code == 200
    assert (await progress(connections, batch_id)).state is BatchState.RUNNING
    # What waits was handed to the queue.
    assert await connections.broker.llen("sm:audio") == 1


async def test_failed_files_are_tried_again(served: Served, connections: Connections) -> None:
    batch_id = await add_batch(connections, BatchState.FINISHED, done=1, failed=2)
    answer = await served.by(ADA).post(f"/batches/{batch_id}/retry", YES, Accept=JSON)
    assert json_of(answer)["files"] == 2
    now = await progress(connections, batch_id)
    assert (now.state, now.failed, now.pending) == (BatchState.RUNNING, 0, 2)
    assert await connections.broker.llen("sm:audio") == 1


async def test_a_failed_job_is_sent_again_once(served: Served, connections: Connections) -> None:
    (letter_id,) = await add_letters(connections, 1)
    operator = served.by(ADA)
    path = f"/failed-jobs/{letter_id}/replay"
    first = await operator.post(path, YES, Accept=JSON)
    assert (first.code, json_of(first)["replayed"]) == (200, 1)
    assert (await operator.post(path, YES, Accept=JSON)).code == 409
    assert await connections.broker.llen("sm:index") == 1
    outcomes = [entry.outcome for entry in await audited(connections, "console.replay_letters")]
    assert outcomes == ["failed", "success"]
    (own,) = await audited(connections, "dead_letter.replay")
    assert own.details["by"] == "console, ada"


async def test_those_that_were_ticked_are_sent_again_and_the_others_stay(
    served: Served, connections: Connections
) -> None:
    ids = await add_letters(connections, 4)
    (unreadable,) = await add_letters(connections, 1, task="x", cause=DeathCause.UNDECODABLE)
    answer = await served.by(ADA).post(
        "/failed-jobs/replay", {**YES, "id": [*ids[:2], unreadable]}, Accept=JSON
    )
    assert json_of(answer)["replayed"] == 2
    assert json_of(answer)["refused"] == 1
    replayed = await letters_in(connections, DeadLetterState.REPLAYED)
    assert {letter.id for letter in replayed} == set(ids[:2])
    nothing = await served.by(ADA).post("/failed-jobs/replay", YES, Accept=JSON)
    assert nothing.code == 409


async def test_all_that_a_filter_takes_are_discarded_with_a_reason(
    served: Served, connections: Connections
) -> None:
    await add_letters(connections, 3, task="backups.create")
    await add_letters(connections, 2)
    operator = served.by(ADA)
    fields = {**YES, "all": "1", "task": "backups.create"}
    assert (await operator.post("/failed-jobs/discard", fields, Accept=JSON)).code == 409
    fields["reason"] = "the bucket is gone"
    answer = await operator.post("/failed-jobs/discard", fields, Accept=JSON)
    assert json_of(answer)["discarded"] == 3
    discarded = await letters_in(connections, DeadLetterState.DISCARDED)
    assert {letter.reason for letter in discarded} == {"the bucket is gone"}
    assert len(await letters_in(connections, DeadLetterState.OPEN)) == 2


async def test_the_way_back_stays_on_this_console(served: Served, connections: Connections) -> None:
    batch_id = await add_batch(connections, BatchState.RUNNING, pending=1)
    for elsewhere in ("https://evil.example/", "//evil.example", "/\\evil.example"):
        answer = await served.by(ADA).post(f"/batches/{batch_id}/pause", {**YES, "next": elsewhere})
        assert answer.headers["Location"] == "/overview"


async def test_what_is_done_through_flowers_own_interface_is_audited(
    served: Served, connections: Connections
) -> None:
    answer = await served.by(ADA).post("/api/worker/shutdown/nobody@nowhere", {})
    assert answer.code == 404
    await served.console.settle()
    (entry,) = await audited(connections, "console.worker_shut_down")
    assert (entry.outcome, entry.resource_id) == ("failed", "nobody@nowhere")
