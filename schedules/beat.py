"""When jobs run: one entry a job, a sentence each.

Every job here may run twice or late without harm, so the entries expire before the next one is
due: after an outage one run catches up, not a queue of them. Heavy jobs have cron times that do not
meet; `SAMPLEMIND_SCHEDULE_TIMES` moves or switches off any of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from samplemind.errors import SettingsError
from samplemind.jobs.payloads import (
    ArchiveWal,
    CollectDeadLetters,
    CreateBackup,
    CreateBase,
    DrillBackup,
    FeedBatches,
    FoldVectors,
    IndexDirty,
    MaintainPartitions,
    OptimizeSearch,
    Payload,
    PruneBackups,
    ReconcileIndex,
    RefreshVocabulary,
    ReindexBloated,
    RescueBatches,
    RunRetention,
    SnapshotStatements,
    VacuumDue,
    VerifyBackup,
    VerifyRestored,
    WarmCache,
    WatchSchedule,
)
from samplemind.jobs.periodic import Periodic
from samplemind.jobs.times import When, parse_when
from samplemind.jobs.wire import queue_for
from samplemind.settings import ScheduleSettings, Settings


@dataclass(frozen=True, slots=True)
class Entry:
    """One recurring job: what, how often (an interval, or a cron time in UTC), and why."""

    payload: Payload
    every: timedelta | str
    reason: str

    def when(self) -> When:
        """Return when it is due; intervals are moved apart by the job's name."""
        name = self.payload.job_name
        if isinstance(self.every, str):
            return parse_when(self.every, name=name)
        return parse_when(f"{int(self.every.total_seconds())}s", name=name)

    def as_periodic(self, when: When) -> Periodic:
        """Return the entry as beat sends it."""
        name = self.payload.job_name
        return Periodic(
            name=name,
            when=when,
            reason=self.reason,
            queue=queue_for(name).value,
            kwargs=self.payload.model_dump(mode="json"),
        )


ENTRIES: tuple[Entry, ...] = (
    Entry(
        IndexDirty(),
        timedelta(seconds=10),
        "A drain is sent when a file becomes dirty; this one finds what that message lost.",
    ),
    Entry(
        RescueBatches(),
        timedelta(seconds=20),
        "Parts of a batch whose message was lost, or whose worker died, are published again.",
    ),
    Entry(
        FeedBatches(),
        timedelta(seconds=5),
        "What a limit held back is handed out once the limit allows it, whoever died meanwhile.",
    ),
    Entry(
        CollectDeadLetters(),
        timedelta(seconds=15),
        "Dead letters are moved to where operators look, and replays that were cut short are sent.",
    ),
    Entry(
        ReconcileIndex(),
        timedelta(minutes=15),
        "The index is compared with the library and repaired, whatever events were lost.",
    ),
    Entry(
        FoldVectors(),
        timedelta(seconds=30),
        "New vectors are compared one by one until they are folded into the approximate index.",
    ),
    Entry(
        RefreshVocabulary(),
        timedelta(hours=1),
        "Corrections, suggestions and plans go by counts of the words that are indexed now.",
    ),
    Entry(
        OptimizeSearch(),
        "10 23 * * *",
        "Dead rows slow every search, most of all those in the graph; recall is measured anew.",
    ),
    Entry(
        WatchSchedule(),
        timedelta(minutes=1),
        "A job that is overdue or failing is told, before somebody misses what it does.",
    ),
    Entry(
        SnapshotStatements(),
        timedelta(minutes=30),
        "Figures of the slowest statements are kept, so that a trend can be told from a mood.",
    ),
    Entry(
        MaintainPartitions(),
        "10 0 * * *",
        "Next months' partitions of the audit log are there before the first entry needs them.",
    ),
    Entry(
        VacuumDue(),
        "10 1 * * *",
        "Dead rows are freed and statistics renewed where it is due, after autovacuum had its day.",
    ),
    Entry(
        ReindexBloated(),
        "10 4 * * 0",
        "Bloated indexes are built anew once a week, one at a time, beside all traffic.",
    ),
    Entry(
        RunRetention(),
        "10 6 * * *",
        "What nobody may keep or needs any more goes; the audit log is archived before.",
    ),
    Entry(
        ArchiveWal(),
        timedelta(minutes=1),
        "Recovery to a moment loses a minute at most; does nothing where no archive was begun.",
    ),
    Entry(
        CreateBase(),
        "10 22 * * *",
        "Recovery replays a day of WAL at most; does nothing where no archive was begun.",
    ),
    Entry(
        CreateBackup(),
        "10 2 * * *",
        "Both stores at one moment, every night.",
    ),
    Entry(
        VerifyBackup(level=1),
        "10 3 * * *",
        "Every byte of the newest backup is read and compared with its checksum.",
    ),
    Entry(
        PruneBackups(),
        "10 5 * * *",
        "After the newest backup was verified, what retention no longer keeps is deleted.",
    ),
    Entry(
        VerifyRestored(),
        "10 7 * * 0",
        "The newest backup is restored into scratch servers: only then it is one.",
    ),
    Entry(
        DrillBackup(),
        "10 8 1 * *",
        "Recovery to a random moment, measured and compared row by row, with evidence kept.",
    ),
    Entry(
        WarmCache(),
        timedelta(minutes=2),
        "Popular searches live five minutes: they are made anew before that, or after a flush.",
    ),
)

BEAT_SCHEDULE: Mapping[str, Entry] = {entry.payload.job_name: entry for entry in ENTRIES}
"""The entries by the name of their job."""


def table(settings: Settings, entries: Iterable[Entry] = ENTRIES) -> tuple[Periodic, ...]:
    """Return what beat sends under these settings.

    Raises:
        SettingsError: a time is given for a job that does not recur.
    """
    entries = tuple(entries)
    times = settings.schedule.times
    unknown = times.keys() - {entry.payload.job_name for entry in entries}
    if unknown:
        message = (
            f"schedule.times names {', '.join(sorted(unknown))}, which does not recur; these do: "
            + ", ".join(sorted(entry.payload.job_name for entry in entries))
        )
        raise SettingsError(message)
    return tuple(
        entry.as_periodic(times.get(entry.payload.job_name) or entry.when())
        for entry in entries
        if not _is_off(settings.schedule, entry)
    )


def _is_off(schedule: ScheduleSettings, entry: Entry) -> bool:
    name = entry.payload.job_name
    return name in schedule.times and schedule.times[name] is None
