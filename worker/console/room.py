"""What the rooms of the console are made of: pages and actions.

    class BatchesPage(Page):
        template, room = "batches.html", "batches"
        def panels(self) -> dict[str, Panel]: …

    class CancelBatch(Action):
        action, resource_kind = "console.cancel_batch", "batch"
        changes = (Subject.BATCHES,)
        async def act(self, batch_id: str) -> Outcome: …

A page is whole HTML, which the browser fetches again every few seconds and takes over where it
differs. An action is a form: it asks first, is done once, and leads back to where it was pressed
with a line that says what happened. Both work without a script.

Invariant: an action is done by an operator only, after a question, and is in the audit log however
it ends.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

from flower.views.auth import is_safe_redirect
from tornado.web import HTTPError

from samplemind.connections.resources import Connections
from samplemind.errors import NotFoundError, SampleMindError
from samplemind.jobs.client import SyncJobs
from samplemind.jobs.manual import find_periodic, run_now
from samplemind.jobs.payloads import Payload
from samplemind.jobs.state import JobArea, JobStatus
from samplemind.models.audit_log import AuditOutcome
from samplemind.settings import Settings
from worker.console import audit
from worker.console.guard import Guarded
from worker.console.reading import Panel, Reading, Subject
from worker.console.threads import Place, Threads

_NOTICE = "notice"
_NOTICE_LIFE_DAYS = 1 / 1440
_LONGEST_NOTICE = 700
_LONGEST_NUMBER = 18
_CONFIRMED = "confirmed"
_HIDDEN = ("_xsrf", "next", _CONFIRMED)


@dataclass(frozen=True, slots=True)
class Room:
    """A place in the navigation: its path, its name, and what answers below it."""

    path: str
    title: str
    handlers: tuple[tuple[str, type[Guarded]], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an action did, in words for whoever asked for it."""

    message: str
    ok: bool = True
    details: Mapping[str, Any] = field(default_factory=dict)
    resource_id: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A line of what is wrong: how badly, what, what to do, and where to look."""

    state: str
    text: str
    mend: str
    link: str | None = None


class RoomHandler(Guarded):
    """A handler of ours."""

    audited: ClassVar[bool] = False

    @property
    def connections(self) -> Connections:
        """The console's connections to the stores."""
        found: Connections = self.application.connections
        return found

    @property
    def threads(self) -> Threads:
        """The console's threads for what can only be read by waiting."""
        found: Threads = self.application.threads
        return found

    def text(self, name: str, default: str = "") -> str:
        """Return a field of the form or the query as it was typed (templates escape it)."""
        return str(self.get_argument(name, default, escape=False) or default)

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        """Return a number of the query within its bounds; what is none is the default."""
        given = self.text(name)
        if not given.isdecimal() or len(given) > _LONGEST_NUMBER:
            return default
        return min(most, max(least, int(given)))


class Page(RoomHandler):
    """A page of panels; subclasses name their template and say what is read.

    Attributes:
        template: below `templates/`.
        room: the path of its room, which the navigation shows as the present one.
        renewed_s: seconds after which a browser that shows it fetches it again.
    """

    template: ClassVar[str]
    room: ClassVar[str]
    renewed_s: ClassVar[int] = 5

    def panels(self, *arguments: str) -> Mapping[str, Panel]:
        """Return the panels by the names that the template knows them by."""
        raise NotImplementedError

    def jobs_panel(self, area: JobArea, limit: int) -> Panel:
        """Return a panel of an area's jobs: those under way, then those that ended last."""
        newest = partial(_newest_jobs, self.connections.settings, area, limit)
        return Panel(
            partial(self.threads.run, Place.BROKER, newest), Subject.JOBS, key=(area,), fresh_s=3
        )

    def facts(self, readings: Mapping[str, Reading]) -> Mapping[str, Any]:
        """Return what else the template needs: what follows from the readings, no more reading."""
        return {}

    async def get(self, *arguments: str) -> None:
        """Read all panels at once and render them; a browser or a program asks."""
        panels = self.panels(*arguments)
        board, page = self.application.board, type(self).__name__
        found = await asyncio.gather(
            *(board.read((page, name, *panel.key), panel) for name, panel in panels.items())
        )
        readings: dict[str, Reading] = dict(zip(panels, found, strict=True))
        for reading in found:
            if isinstance(reading.error, NotFoundError):
                raise HTTPError(404, str(reading.error))
        self.render(
            self.template,
            active_tab=self.room,
            renewed_s=self.renewed_s,
            notice=self._take_notice(),
            here=self.request.uri,
            **readings,
            **self.facts(readings),
        )

    def _take_notice(self) -> dict[str, Any] | None:
        # What fetches the page anew must not swallow what the next whole page is to say.
        if "X-Live" in self.request.headers:
            return None
        text = self.get_secure_cookie(_NOTICE)
        if text is None:
            return None
        self.clear_cookie(_NOTICE)
        notice: dict[str, Any] = json.loads(text)
        return notice


class Action(RoomHandler):
    """Something that an operator does; subclasses do it.

    Attributes:
        action: its name in the audit log, `console.verb_thing`.
        resource_kind: what it is done to.
        changes: what is different right after it, so that every panel of it is read anew; what a
            job changes later shows once that panel's reading has aged.
        question: asked where no script asked before.
        wants_reason: a reason must be given with it.
    """

    action: ClassVar[str]
    resource_kind: ClassVar[str]
    changes: ClassVar[tuple[Subject, ...]]
    question: ClassVar[str] = "Shall this be done?"
    wants_reason: ClassVar[bool] = False

    async def act(self, *arguments: str) -> Outcome:
        """Do it.

        Raises:
            SampleMindError: it could not be done; the message says why.
        """
        raise NotImplementedError

    async def enqueue(self, payload: Payload, key: str) -> str:
        """Send a job, and return its id; while one with this key waits or runs, that one's.

        What takes long is done by a worker: the console stays quick, and a restart of it ends
        nothing.
        """
        return await self.threads.run(
            Place.BROKER, partial(_enqueue, self.connections.settings, payload, f"console {key}")
        )

    async def run_recurring(self, payload: Payload) -> str:
        """Send a job as a run of the schedule, which is recorded; by itself where it is off there.

        Returns:
            The job's id.
        """
        try:
            entry = await find_periodic(self.connections, payload.job_name)
        except NotFoundError:
            return await self.enqueue(payload, payload.job_name)
        return await run_now(self.connections, entry)

    async def post(self, *arguments: str) -> None:
        """Ask, unless that was done; act; write it down; say what happened."""
        if not self.text(_CONFIRMED):
            self._ask()
            return
        try:
            outcome = await self.act(*arguments)
        except SampleMindError as error:
            outcome = Outcome(str(error), ok=False)
        except Exception as error:
            # A fault of ours: its words may hold what nobody should read, its kind does not.
            await self._record(Outcome(type(error).__name__, ok=False), *arguments)
            raise
        self.application.board.forget(self.changes)
        kept = await self._record(outcome, *arguments)
        if not kept:
            missing = " The audit log did not answer: this console's log has the entry."
            outcome = Outcome(outcome.message + missing, outcome.ok)
        self._answer(outcome)

    async def denied(self) -> None:
        """Tell the audit log that somebody tried what they may not."""
        await self._record(Outcome("denied"), *self.path_args, outcome_kind=AuditOutcome.DENIED)

    def _ask(self) -> None:
        fields = [
            (name, value)
            for name in self.request.body_arguments
            if name not in _HIDDEN
            for value in self.get_body_arguments(name, strip=False)
        ]
        self.render(
            "confirm.html",
            active_tab="",
            renewed_s=0,
            notice=None,
            here=self.request.uri,
            question=self.question,
            wants_reason=self.wants_reason,
            fields=[(name, value) for name, value in fields if name != "reason"],
            next=self._next(),
        )

    def _record(
        self, outcome: Outcome, *arguments: str, outcome_kind: AuditOutcome | None = None
    ) -> Any:
        came_out = AuditOutcome.SUCCESS if outcome.ok else AuditOutcome.FAILED
        return audit.record(
            self.connections,
            self.action,
            by=self.user.name if self.user else "nobody",
            resource_kind=self.resource_kind,
            resource_id=outcome.resource_id or (arguments[0] if arguments else None),
            outcome=outcome_kind or came_out,
            address=self.request.remote_ip,
            details={**outcome.details, "message": outcome.message},
        )

    def _answer(self, outcome: Outcome) -> None:
        if "application/json" in self.request.headers.get("Accept", ""):
            self.set_status(200 if outcome.ok else 409)
            self.write({"ok": outcome.ok, "message": outcome.message, **outcome.details})
            return
        shown = outcome.message[:_LONGEST_NOTICE]
        text = json.dumps({"ok": outcome.ok, "message": shown}, ensure_ascii=False)
        self.set_secure_cookie(
            _NOTICE, text, expires_days=_NOTICE_LIFE_DAYS, httponly=True, samesite="Strict"
        )
        self.redirect(self._next(), status=303)

    def _next(self) -> str:
        target = self.text("next", "/overview")
        return target if is_safe_redirect(target) else "/overview"


def _enqueue(settings: Settings, payload: Payload, key: str) -> str:
    with SyncJobs(settings) as jobs:
        return str(jobs.enqueue(payload, idempotency_key=key, unique_for=timedelta(0)))


def _newest_jobs(settings: Settings, area: JobArea, limit: int) -> list[JobStatus]:
    with SyncJobs(settings) as jobs:
        return jobs.newest_of(area, limit=limit)
