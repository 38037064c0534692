"""Failed jobs: the dead letters, why each job died, sending them again and discarding them."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlencode
from uuid import UUID

from samplemind.connections.resources import Connections
from samplemind.errors import ConflictError, InvalidInputError, NotFoundError, TransientError
from samplemind.jobs import dead_letters
from samplemind.jobs.dead_letters import Closing
from samplemind.models.audit_log import AuditLog
from samplemind.models.dead_letter import DeadLetter, DeadLetterState
from samplemind.repositories.audit import AuditLogRepository
from samplemind.repositories.dead_letters import DeadLetterRepository, LetterFilter
from worker.console import wording
from worker.console.reading import Panel, Reading, Subject
from worker.console.room import Action, Outcome, Page, Room

_ON_A_PAGE = 50
_MOST_PAGES = 100_000
_MOST_CHOSEN = 500
_ID = r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
_ANY = "any"
_SINCE = {"1h": timedelta(hours=1), "1d": timedelta(days=1), "7d": timedelta(days=7)}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are shown, as the address says it."""

    text: str
    task: str
    state: str
    since: str
    page: int

    def filter(self, now: datetime) -> LetterFilter:
        """Return it as the repository takes it."""
        ago = _SINCE.get(self.since)
        return LetterFilter(
            task=self.task or None,
            state=None if self.state == _ANY else DeadLetterState(self.state),
            since=None if ago is None else now - ago,
            text=self.text or None,
        )

    def address(self, page: int) -> str:
        """Return where another page of the same is."""
        given = {"text": self.text, "task": self.task, "since": self.since}
        kept = {name: value for name, value in given.items() if value}
        return "/failed-jobs?" + urlencode({**kept, "state": self.state, "page": page})


@dataclass(frozen=True, slots=True)
class Found:
    """A page of letters.

    `late` says why the newest may be missing: the broker, where they come in, did not answer.
    """

    letters: Sequence[DeadLetter]
    total: int
    late: str | None


class FailedJobsPage(Page):
    """The dead letters that were chosen, the last death first."""

    template, room = "failed_jobs.html", "failed-jobs"

    def panels(self, *_: str) -> Mapping[str, Panel]:
        """Read one page of the letters, and the names of the jobs that there are letters of."""
        choice = self._choice()
        return {
            "found": Panel(
                partial(_find, self.connections, choice), Subject.LETTERS, key=(choice,)
            ),
            "tasks": Panel(partial(_count_by_task, self.connections), Subject.LETTERS, fresh_s=10),
        }

    def facts(self, readings: Mapping[str, Reading]) -> Mapping[str, Any]:
        """Return what was chosen, and where the neighbouring pages are."""
        choice, found = self._choice(), readings["found"]
        total = found.value.total if found.ready else 0
        page = choice.page
        return {
            "choice": choice,
            "states": (*(state.value for state in DeadLetterState), _ANY),
            "periods": (("", "any time"), ("1h", "an hour"), ("1d", "a day"), ("7d", "a week")),
            "first": (page - 1) * _ON_A_PAGE + 1,
            "newer": choice.address(page - 1) if page > 1 else None,
            "older": choice.address(page + 1) if page * _ON_A_PAGE < total else None,
            "state_of": state_of,
            "first_line": first_line,
        }

    def _choice(self) -> Choice:
        state, since = self.text("state"), self.text("since")
        known = (*(each.value for each in DeadLetterState), _ANY)
        return Choice(
            text=self.text("text").strip()[:500],
            task=self.text("task")[:500],
            state=state if state in known else DeadLetterState.OPEN.value,
            since=since if since in _SINCE else "",
            page=self.whole("page", 1, least=1, most=_MOST_PAGES),
        )


class FailedJobPage(Page):
    """One letter: what the job was told, what it died of, and what became of it."""

    template, room = "failed_job.html", "failed-jobs"

    def panels(self, *arguments: str) -> Mapping[str, Panel]:
        """Read the letter, and what the audit log tells of it."""
        letter_id = UUID(arguments[0])
        return {
            "letter": Panel(
                partial(_get, self.connections, letter_id), Subject.LETTERS, key=(letter_id,)
            ),
            "history": Panel(
                partial(_history, self.connections, letter_id), Subject.LETTERS, key=(letter_id,)
            ),
        }

    def facts(self, readings: Mapping[str, Reading]) -> Mapping[str, Any]:
        """Return the payload as people read it."""
        letter = readings["letter"]
        shown = letter.value.payload if letter.ready else None
        return {
            "letter_id": self.path_args[0],
            "payload": None if shown is None else json.dumps(shown, indent=2, ensure_ascii=False),
            "state_of": state_of,
        }


class LettersAction(Action):
    """Something done to one letter, to those that were ticked, or to all that a filter takes."""

    resource_kind: ClassVar[str] = "dead_letter"
    changes = (Subject.LETTERS, Subject.JOBS)

    async def each(self, change: Callable[[LetterFilter | UUID], Awaitable[Closing]]) -> Closing:
        """Change what was chosen; letters that somebody else has closed meanwhile are refused.

        Raises:
            InvalidInputError: nothing was chosen, or too much.
            NotFoundError, ConflictError: the only letter cannot be changed.
        """
        if self.path_args:
            return await change(UUID(self.path_args[0]))
        if self.text("all"):
            return await change(self._filter())
        ids = self._chosen()
        changed = refused = 0
        jobs: list[UUID] = []
        for letter_id in ids:
            try:
                done = await change(letter_id)
            except (ConflictError, NotFoundError):
                refused += 1
                continue
            changed += done.changed
            jobs += done.job_ids
        return Closing(changed, refused, tuple(jobs))

    def _chosen(self) -> list[UUID]:
        given = self.get_body_arguments("id")
        try:
            ids = [UUID(each) for each in dict.fromkeys(given)]
        except ValueError as error:
            message = "one of the ids is none"
            raise InvalidInputError(message) from error
        if not 0 < len(ids) <= _MOST_CHOSEN:
            message = f"choose between one and {_MOST_CHOSEN} letters"
            raise InvalidInputError(message)
        return ids

    def _filter(self) -> LetterFilter:
        since = _SINCE.get(self.text("since"))
        return LetterFilter(
            task=self.text("task") or None,
            since=None if since is None else datetime.now(UTC) - since,
            text=self.text("text") or None,
        )

    @property
    def by(self) -> str:
        """Who asked, as the letter's own entry in the audit log tells it."""
        return f"console, {self.user.name}" if self.user else "console"


class ReplayLetters(LettersAction):
    """Sends the jobs again."""

    action, question = "console.replay_letters", "Send these jobs again?"

    async def act(self, *_: str) -> Outcome:
        """Send them; one that was sent again stays so however often this is pressed."""

        async def replay(chosen: LetterFilter | UUID) -> Closing:
            return await dead_letters.replay(self.connections, chosen, actor=self.by)

        done = await self.each(replay)
        text = f"{_jobs(done.changed)} sent again."
        if done.refused:
            text += f" {_jobs(done.refused)} could not be: closed meanwhile, or not readable."
        shown = [str(job_id) for job_id in done.job_ids[:20]]
        facts = {"replayed": done.changed, "refused": done.refused, "job_ids": shown}
        return Outcome(text, ok=done.changed > 0, details=facts)


class DiscardLetters(LettersAction):
    """Closes letters without sending the jobs."""

    action, question = "console.discard_letters", "Discard these failed jobs?"
    wants_reason: ClassVar[bool] = True

    async def act(self, *_: str) -> Outcome:
        """Close them with the reason that was given."""
        reason = self.text("reason")

        async def discard(chosen: LetterFilter | UUID) -> Closing:
            return await dead_letters.discard(
                self.connections, chosen, reason=reason, actor=self.by
            )

        done = await self.each(discard)
        text = f"{_jobs(done.changed)} discarded."
        if done.refused:
            text += f" {_jobs(done.refused)} had been closed already."
        facts = {"discarded": done.changed, "refused": done.refused, "reason": reason}
        return Outcome(text, ok=done.changed > 0, details=facts)


def state_of(letter: DeadLetter) -> tuple[str, str]:
    """Return how a letter's state looks, and its word."""
    if letter.state == DeadLetterState.OPEN.value:
        return "danger", "open"
    return ("active" if letter.state == DeadLetterState.REPLAYED.value else "muted"), letter.state


def first_line(text: str) -> str:
    """Return the beginning of an error, for a list."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= 160 else f"{line[:159]}…"


def _jobs(count: int) -> str:
    return f"{wording.number(count)} {'job was' if count == 1 else 'jobs were'}"


async def _find(connections: Connections, choice: Choice) -> Found:
    late = None
    try:
        await dead_letters.collect(connections)
    except TransientError as error:
        late = str(error)
    chosen = choice.filter(datetime.now(UTC))
    async with connections.postgres.session() as session:
        letters = DeadLetterRepository(session)
        found = await letters.find(chosen, limit=_ON_A_PAGE, skip=(choice.page - 1) * _ON_A_PAGE)
        return Found(found, await letters.count(chosen), late)


async def _count_by_task(connections: Connections) -> dict[str, int]:
    async with connections.postgres.session() as session:
        return await DeadLetterRepository(session).count_by_task()


async def _get(connections: Connections, letter_id: UUID) -> DeadLetter:
    async with connections.postgres.session() as session:
        found = await DeadLetterRepository(session).get(letter_id)
    if found is None:
        message = f"there is no failed job {letter_id}"
        raise NotFoundError(message)
    return found


async def _history(connections: Connections, letter_id: UUID) -> Sequence[AuditLog]:
    async with connections.postgres.session() as session:
        return await AuditLogRepository(session).of_resource(
            "dead_letter", str(letter_id), limit=20
        )


ROOM = Room(
    "failed-jobs",
    "Failed jobs",
    (
        ("/failed-jobs", FailedJobsPage),
        (f"/failed-jobs/{_ID}", FailedJobPage),
        ("/failed-jobs/replay", ReplayLetters),
        ("/failed-jobs/discard", DiscardLetters),
        (f"/failed-jobs/{_ID}/replay", ReplayLetters),
        (f"/failed-jobs/{_ID}/discard", DiscardLetters),
    ),
)
