"""Backups: what there is and how far it is proven, to which moments one can go back, and jobs.

A restore is no button. It takes what is live out of service, needs its workers stopped before, and
is chosen with care for where it goes: so the page says the exact command, to be run by somebody who
watches it, and nobody drops a database by a slip of the finger.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Literal, cast

from samplemind.backup.archive import Coverage
from samplemind.backup.catalog import DRILL_LEVEL, CatalogEntry, HistoryEvent
from samplemind.backup.database_backup import DatabaseBackup, Survey
from samplemind.backup.manifest import BackupKind
from samplemind.backup.verification import Level
from samplemind.backup.wal import ArchiveLag
from samplemind.errors import InvalidInputError
from samplemind.jobs.payloads import CreateBackup, DrillBackup, VerifyBackup
from samplemind.jobs.state import JobArea, JobState, JobStatus
from worker.console import wording
from worker.console.reading import Panel, Reading, Subject
from worker.console.room import Action, Outcome, Page, Problem, Room, RoomHandler
from worker.console.threads import Place

_ID = r"([0-9A-Za-z][0-9A-Za-z_.-]{0,99})"
_MOST_SHOWN = 200
_JOBS = 8
_FAR_BEHIND_BYTES = 1 << 30
_LONGEST_REASON = 200
_STORE = "look at the settings of the storage: `samplemind backup list`"
_SPANS = tuple(
    (name, timedelta(hours=hours))
    for name, hours in (("1 h", 1), ("1 d", 24), ("7 d", 168), ("30 d", 720), ("1 y", 8760))
)
KINDS = ("logical", "physical", "dump")
LEVELS = (
    (Level.SIZES, "sizes"),
    (Level.CHECKSUMS, "every byte’s checksum"),
    (Level.DECODED, "decoded and counted"),
    (Level.RESTORED, "restored and questioned"),
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A backup on the time line; `at` runs from 0 (its begin) to 1000 (now)."""

    id: str
    at: float
    look: str
    title: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time to which recovery goes, or does not, from `start` to `end` of 0 to 1000."""

    start: float
    end: float
    look: str
    title: str


@dataclass(frozen=True, slots=True)
class Strip:
    """One line of the time line: backups of a class, and what WAL adds to them."""

    name: str
    marks: tuple[Mark, ...]
    stretches: tuple[Stretch, ...] = ()


class BackupsPage(Page):
    """The catalogue, the time line, the last drill, and the jobs that run."""

    template, room = "backups.html", "backups"

    def panels(self, *_: str) -> Mapping[str, Panel]:
        """Read the store of backups, the server's side of the archive, and the jobs."""
        backup = DatabaseBackup(settings=self.connections.settings)
        return {
            "survey": Panel(
                partial(self.threads.run, Place.STORAGE, backup.survey),
                Subject.BACKUPS,
                fresh_s=30,
                patience_s=1.5,
                timeout_s=30,
                mend=_STORE,
            ),
            "lag": Panel(partial(self.threads.run, Place.POSTGRES, backup.archive_lag), fresh_s=5),
            "jobs": self.jobs_panel(JobArea.BACKUPS, _JOBS),
        }

    def facts(self, readings: Mapping[str, Reading]) -> Mapping[str, Any]:
        """Return what is wrong, what stands on the time line, and the last drill."""
        now = datetime.now(UTC)
        survey, lag = readings["survey"], readings["lag"]
        entries: tuple[CatalogEntry, ...] = survey.value.entries if survey.ready else ()
        coverage: tuple[Coverage, ...] = survey.value.coverage if survey.ready else ()
        span = self._span(entries, now)
        return {
            "problems": find_problems(survey.value, lag.value if lag.ready else None, now)
            if survey.ready
            else [],
            "shown": entries[:_MOST_SHOWN],
            "good": next((entry for entry in entries if entry.good), None),
            "drill": last_drill(entries),
            "reach": max((each.to_time for each in coverage if each.to_time), default=None),
            "strips": time_line(entries, coverage, now, span),
            "span": span,
            "spans": _SPANS,
            "began": now - span,
            "middle": now - span / 2,
            "kinds": KINDS,
            "verdict": verdict,
            "job_look": job_look,
            "job_progress": job_progress,
        }

    def _span(self, entries: Sequence[CatalogEntry], now: datetime) -> timedelta:
        chosen = dict(_SPANS).get(self.text("span"))
        if chosen is not None:
            return chosen
        oldest = min((entry.started_at for entry in entries), default=now)
        fitting = (span for _, span in _SPANS if now - oldest <= span * 0.97)
        return next(fitting, _SPANS[-1][1])


class BackupPage(Page):
    """One backup: what is in it, every proof of it, and how it is restored."""

    template, room = "backup.html", "backups"
    renewed_s = 10

    def panels(self, *arguments: str) -> Mapping[str, Panel]:
        """Read its manifest and its history."""
        backup_id = arguments[0]
        return {
            "found": Panel(
                partial(_inspect, self, backup_id),
                Subject.BACKUPS,
                key=(backup_id,),
                fresh_s=5,
                timeout_s=30,
                mend=_STORE,
            )
        }

    def facts(self, readings: Mapping[str, Reading]) -> Mapping[str, Any]:
        """Return the commands that restore it, and the newest evidence of a drill."""
        found = readings["found"]
        entry, history = found.value if found.ready else (None, [])
        return {
            "backup_id": self.path_args[0],
            "entry": entry,
            "history": list(reversed(history)),
            "drill": last_drill([entry]) if entry else None,
            "commands": commands(entry) if entry else (),
            "levels": LEVELS,
            "verdict": verdict,
            "evidence_of": evidence_of,
        }


class BackupAction(Action):
    """Something done about backups by a job."""

    resource_kind: ClassVar[str] = "backup"
    changes: ClassVar[tuple[Subject, ...]] = (Subject.JOBS,)


class Create(BackupAction):
    """Makes a backup."""

    action = "console.create_backup"
    question = "Back up both stores now?"
    wants_reason = True

    async def act(self, *_: str) -> Outcome:
        """Send the job, unless one of this class waits or runs."""
        kind = self.text("kind", "logical")
        if kind not in KINDS:
            message = f"there is no class {kind!r}: it is one of {', '.join(KINDS)}"
            raise InvalidInputError(message)
        chosen = cast('Literal["logical", "dump", "physical"]', kind)
        reason = self.text("reason").strip()[:_LONGEST_REASON] or "asked for in the console"
        job_id = await self.enqueue(CreateBackup(kind=chosen, reason=reason), f"create {kind}")
        return Outcome(
            f"A {kind} backup is on its way: its progress shows under Jobs.",
            details={"job_id": job_id, "kind": kind, "reason": reason},
        )


class Verify(BackupAction):
    """Verifies one backup at a level."""

    action = "console.verify_backup"
    question = "Verify this backup?"

    async def act(self, *arguments: str) -> Outcome:
        """Send the job, unless the same one waits or runs."""
        backup_id = arguments[0]
        level = self.whole("level", Level.CHECKSUMS, least=0, most=Level.RESTORED)
        await _inspect(self, backup_id)  # tells what is not there at once
        job_id = await self.enqueue(
            VerifyBackup(backup_id=backup_id, level=level), f"verify {backup_id} {level}"
        )
        return Outcome(
            f"The backup is being verified at level {level}: its progress shows under Jobs.",
            details={"job_id": job_id, "level": level},
        )


class Drill(BackupAction):
    """Recovers on scratch servers and compares."""

    action = "console.drill_backup"
    question = "Recover on scratch servers, and compare every row with the source?"

    async def act(self, *arguments: str) -> Outcome:
        """Send the job, unless the same one waits or runs."""
        backup_id = arguments[0] if arguments else None
        if backup_id is not None:
            await _inspect(self, backup_id)
        job_id = await self.enqueue(DrillBackup(backup_id=backup_id), f"drill {backup_id}")
        return Outcome(
            "A drill is on its way: its progress shows under Jobs.", details={"job_id": job_id}
        )


class HoldBackup(BackupAction):
    """Keeps a backup from being pruned."""

    action = "console.hold_backup"
    changes = (Subject.BACKUPS,)
    question = "Keep this backup until it is released?"
    wants_reason = True

    async def act(self, *arguments: str) -> Outcome:
        """Put it on hold."""
        reason = self.text("reason").strip()[:_LONGEST_REASON] or "asked for in the console"
        by = self.user.name if self.user else "nobody"
        backup = DatabaseBackup(settings=self.connections.settings)
        await self.threads.run(Place.STORAGE, partial(backup.hold, arguments[0], reason, by))
        return Outcome("The backup is on hold: it stays until it is released.")


class ReleaseBackup(BackupAction):
    """Lets a backup be pruned again."""

    action = "console.release_backup"
    changes = (Subject.BACKUPS,)
    question = "Let this backup be pruned again, once nothing else keeps it?"

    async def act(self, *arguments: str) -> Outcome:
        """Release it."""
        backup = DatabaseBackup(settings=self.connections.settings)
        await self.threads.run(Place.STORAGE, partial(backup.release, arguments[0]))
        return Outcome("The backup is not on hold any more.")


def find_problems(survey: Survey, lag: ArchiveLag | None, now: datetime) -> list[Problem]:
    """Return what is wrong with the backups, the worst first; pure."""
    good = next((entry for entry in survey.entries if entry.good), None)
    found = []
    if good is None:
        found.append(Problem("danger", "There is no good backup", "make one now"))
    elif good.is_old(now):
        old = wording.duration((now - good.started_at).total_seconds())
        found.append(Problem("danger", f"The newest good backup is {old} old", "make one now"))
    for entry in survey.entries:
        if (why := verdict(entry)) is not None:
            link = f"/backups/{entry.id}"
            mend = "do not rely on it; verify it again once what the error names is mended"
            found.append(Problem("danger", f"{entry.id} is not good: {why}", mend, link))
    for each in survey.coverage:
        if each.missing is not None:
            text = f"WAL is missing from {each.missing} on, after the base {each.backup_id}"
            mend = "a new physical backup begins an archive without the gap"
            found.append(Problem("danger", text, mend, f"/backups/{each.backup_id}"))
    if lag is not None and lag.slot_bytes > _FAR_BEHIND_BYTES:
        text = f"The archive of WAL is {wording.size(lag.slot_bytes)} behind the server"
        found.append(Problem("warning", text, "`samplemind backup pitr archive`"))
    return found


def verdict(entry: CatalogEntry) -> str | None:
    """Return what speaks against a backup; none: nothing."""
    if entry.problem:
        return entry.problem
    failure = entry.failure
    if failure is None:
        return None
    return f"level {failure.level}: {'; '.join(failure.problems) or 'it failed'}"


def last_drill(entries: Iterable[CatalogEntry]) -> HistoryEvent | None:
    """Return the newest drill of any of them, successful or not."""
    drills = [event for entry in entries for event in entry.latest if event.level == DRILL_LEVEL]
    return max(drills, key=lambda event: event.at, default=None)


def time_line(
    entries: Sequence[CatalogEntry], coverage: Sequence[Coverage], now: datetime, span: timedelta
) -> tuple[Strip, ...]:
    """Return what the time line shows of the time before now: one strip for each class; pure."""

    def place(moment: datetime) -> float:
        return round(1000 * max(0.0, min(1.0, 1 - (now - moment) / span)), 2)

    def stretches(each: Coverage) -> list[Stretch]:
        until = each.to_time or each.from_time
        ends = wording.exact(until)
        reached = Stretch(
            place(each.from_time),
            place(until),
            "covered",
            f"any moment from {wording.exact(each.from_time)} to {ends}",
        )
        if each.missing is None:
            return [reached]
        why = f"no recovery from here on: {each.missing} is missing"
        return [reached, Stretch(place(until), 1000, "gap", why)]

    shown = [entry for entry in entries if now - entry.started_at <= span]
    within = [each for each in coverage if now - (each.to_time or each.from_time) <= span]
    strips = []
    for kind in KINDS:
        marks = tuple(_mark(entry, place) for entry in shown if _kind(entry) == kind)
        added = within if kind == BackupKind.PHYSICAL else []
        strips.append(
            Strip(kind, marks, tuple(part for each in reversed(added) for part in stretches(each)))
        )
    unknown = tuple(_mark(entry, place) for entry in shown if _kind(entry) not in KINDS)
    return tuple(strips) if not unknown else (*strips, Strip("unreadable", unknown))


def commands(entry: CatalogEntry) -> tuple[tuple[str, str], ...]:
    """Return what to run to restore this backup, each with what it does."""
    if entry.manifest is not None and entry.manifest.kind is BackupKind.PHYSICAL:
        moment = f"{entry.manifest.finished_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}+00"
        restore = "samplemind backup pitr restore --into /var/lib/recovered --to"
        return (
            ("To the end of the archive, into a new data directory", f"{restore} end"),
            (
                "To a moment (the earliest of this backup; choose yours)",
                f'{restore} "{moment}"',
            ),
        )
    return (
        (
            "Beside the live databases, to look at it",
            f"samplemind backup restore {entry.id} --into samplemind_check",
        ),
        ("Only say what would be done", f"samplemind backup restore {entry.id} --drop --dry-run"),
        (
            "In place of the live databases, after a safety backup; stop the workers before",
            f"samplemind backup restore {entry.id} --drop",
        ),
    )


def evidence_of(event: HistoryEvent) -> tuple[tuple[str, str], ...]:
    """Return what a drill measured, in words; digests of tables are only counted."""
    told: list[tuple[str, str]] = []
    for name, value in event.evidence.items():
        words = wording.words(name.removesuffix("_s").removesuffix("_ms"))
        if isinstance(value, dict):
            told.append((words, f"{len(value)} compared"))
        elif name.endswith("_ms"):
            told.append((words, f"{value} ms"))
        elif name.endswith("_s") and isinstance(value, int | float):
            told.append((words, wording.duration(value)))
        else:
            told.append((words, str(value)))
    return tuple(told)


def job_look(job: JobStatus) -> str:
    """Return how a job's state looks."""
    looks = {
        JobState.RUNNING: "active",
        JobState.RETRYING: "warning",
        JobState.SUCCEEDED: "success",
        JobState.FAILED: "danger",
        JobState.DEAD: "danger",
    }
    return looks.get(job.state, "muted")


def job_progress(job: JobStatus) -> tuple[str, float | None]:
    """Return how far a job is: in words, and as a share of 1 where its end is known."""
    told = job.progress or {}
    if job.state.ended:
        return job.error or "", None
    done, total = told.get("done"), told.get("total")
    phase = str(told.get("phase", ""))
    if not done:
        return phase, None
    if not total:
        return f"{phase}: {wording.size(done)}", None
    return f"{phase}: {wording.size(done)} of {wording.size(total)}", min(1.0, done / total)


def _mark(entry: CatalogEntry, place: Any) -> Mark:
    bad = verdict(entry)
    look = "bad" if bad else "proven" if entry.verified else "unproven"
    proof = f"verified at level {entry.verified.level}" if entry.verified else "not verified"
    title = f"{wording.exact(entry.started_at)}: {bad or proof}"
    return Mark(entry.id, place(entry.started_at), look, title)


def _kind(entry: CatalogEntry) -> str:
    return entry.manifest.kind.value if entry.manifest else "unreadable"


async def _inspect(asker: RoomHandler, backup_id: str) -> tuple[CatalogEntry, list[HistoryEvent]]:
    backup = DatabaseBackup(settings=asker.connections.settings)
    return await asker.threads.run(Place.STORAGE, partial(backup.inspect, backup_id))


ROOM = Room(
    "backups",
    "Backups",
    (
        ("/backups", BackupsPage),
        ("/backups/create", Create),
        ("/backups/drill", Drill),
        (f"/backups/{_ID}", BackupPage),
        (f"/backups/{_ID}/verify", Verify),
        (f"/backups/{_ID}/drill", Drill),
        (f"/backups/{_ID}/hold", HoldBackup),
        (f"/backups/{_ID}/release", ReleaseBackup),
    ),
)
