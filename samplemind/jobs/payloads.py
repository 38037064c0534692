"""What each job is told: one model a job, the same for producers and workers.

Invariant: a payload is small and plain JSON; files and results never travel in a message.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from samplemind.errors import InvalidInputError

MOST_IDS = 1000
"""Files that one message may name: 40 kB of JSON."""


class Payload(BaseModel):
    """Base of every payload; `job_name` is the name that the message carries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_name: ClassVar[str]
    schema_version: ClassVar[int] = 1
    """Raised by whoever changes the fields; `upgrade` then reads what older producers send."""
    housekeeping: ClassVar[bool] = False
    """Whether it comes again by itself within the hour: its state is not kept, and its failures
    are one dead letter that counts."""

    @classmethod
    def upgrade(cls, fields: dict[str, Any], version: int) -> dict[str, Any]:
        """Return the fields of this version, given those of an older one."""
        return fields

    @classmethod
    def read(cls, fields: Mapping[str, Any], version: int = 1) -> Self:
        """Return the payload that a message carries.

        Raises:
            InvalidInputError: the fields do not fit, or the version is newer than this code.
        """
        if version > cls.schema_version:
            message = (
                f"{cls.job_name} has payloads up to version {cls.schema_version} here and "
                f"{version} in the message: bring this side up to date"
            )
            raise InvalidInputError(message)
        try:
            return cls.model_validate(cls.upgrade(dict(fields), version))
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'payload'}: {fault['msg']}"
                for fault in error.errors(include_url=False, include_input=False)
            )
            message = f"not a payload of {cls.job_name}: {faults}"
            raise InvalidInputError(message) from error


class BatchChunk(Payload):
    """The items of a batch whose place lies within first..last, both included."""

    batch_id: UUID
    first: int = Field(ge=0)
    last: int = Field(ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            message = "last must not be less than first"
            raise ValueError(message)
        return self


class AnalyzeBatch(BatchChunk):
    """Work through a part of a batch whose kind keeps a core busy: analyses."""

    job_name = "batches.analyze"


class WorkBatch(BatchChunk):
    """Work through a part of a batch of any other kind."""

    job_name = "batches.work"


class FeedBatches(Payload):
    """Hand out what waits for a free place: of limits, of an owner's share of the queue."""

    job_name = "batches.feed"
    housekeeping = True


class RescueBatches(Payload):
    """Publish again the parts of batches that nobody works on."""

    job_name = "batches.rescue"
    housekeeping = True


class IndexDirty(Payload):
    """Write the files that are marked dirty into the search index."""

    job_name = "search.index"
    housekeeping = True


class ReconcileIndex(Payload):
    """Compare the library with the index and mark what differs."""

    job_name = "search.reconcile"
    housekeeping = True


class IndexFiles(Payload):
    """Bring these files up to date in the search index."""

    job_name = "search.index_files"

    ids: tuple[UUID, ...] = Field(min_length=1, max_length=MOST_IDS)


class DeleteFiles(Payload):
    """Take files out of the search index that were deleted from the library."""

    job_name = "search.delete_files"

    ids: tuple[UUID, ...] = Field(min_length=1, max_length=MOST_IDS)


class ReindexOwner(Payload):
    """Make the index rows of all files of one owner anew; none: the library's own files."""

    job_name = "search.reindex_owner"

    owner_id: UUID | None = None


class RebuildIndex(Payload):
    """Make the whole index anew beside the one that serves, and switch."""

    job_name = "search.rebuild"


class RefreshVocabulary(Payload):
    """Count the words that corrections and suggestions go by."""

    job_name = "search.refresh_vocabulary"


class FoldVectors(Payload):
    """Move fresh vectors into the approximate index."""

    job_name = "search.fold"
    housekeeping = True


class OptimizeSearch(Payload):
    """Free dead rows, sort pending lists in, and clear what a dead rebuild has left."""

    job_name = "search.optimize"


class VacuumDue(Payload):
    """VACUUM and ANALYZE the tables that need it, as long as the window lasts."""

    job_name = "maintenance.vacuum"


class ReindexBloated(Payload):
    """Build bloated indexes anew, one at a time, and clear what a broken attempt has left."""

    job_name = "maintenance.reindex"


class AnalyzeTables(Payload):
    """Renew the planner's statistics of these tables, after a bulk load."""

    job_name = "maintenance.analyze"

    tables: tuple[str, ...] = Field(min_length=1, max_length=100)


class VacuumTables(Payload):
    """VACUUM and ANALYZE these tables, whether it is due or not."""

    job_name = "maintenance.vacuum_tables"

    tables: tuple[str, ...] = Field(min_length=1, max_length=100)


class SnapshotStatements(Payload):
    """Keep the figures of the statements that cost most."""

    job_name = "maintenance.snapshot_statements"
    housekeeping = True


class MaintainPartitions(Payload):
    """Make the audit log's partitions of the months to come."""

    job_name = "maintenance.partitions"


class WatchSchedule(Payload):
    """Tell which periodic job is overdue or failing."""

    job_name = "maintenance.watch"
    housekeeping = True


class RunRetention(Payload):
    """Take away what its policy keeps no longer."""

    job_name = "retention.run"


class CreateBackup(Payload):
    """Back both stores up at one moment; another one that runs already is enough."""

    job_name = "backups.create"

    kind: Literal["logical", "dump", "physical", "incremental"] = "logical"
    reason: str = Field("scheduled", max_length=200)


class VerifyBackup(Payload):
    """Check a backup at a level from 0 (sizes) to 3 (restored); none: the newest."""

    job_name = "backups.verify"

    backup_id: str | None = Field(None, max_length=100)
    level: int = Field(1, ge=0, le=3)


class VerifyRestored(Payload):
    """Restore the newest backup into scratch servers and check it there."""

    job_name = "backups.verify_restored"


class DrillBackup(Payload):
    """Recover to a random moment on scratch servers and compare every row; none: the newest."""

    job_name = "backups.drill"

    backup_id: str | None = Field(None, max_length=100)


class CreateBase(Payload):
    """Take what changed since the newest base backup, and verify it; only where WAL is archived."""

    job_name = "backups.create_base"


class PruneBackups(Payload):
    """Delete the backups that retention no longer keeps, and what killed jobs have left."""

    job_name = "backups.prune"


class ArchiveWal(Payload):
    """Bring PostgreSQL's WAL into the store up to now, where an archive was begun."""

    job_name = "backups.archive_wal"
    housekeeping = True


class WarmCache(Payload):
    """Make popular searches anew before they expire from the cache."""

    job_name = "cache.warm"
    housekeeping = True


class CollectDeadLetters(Payload):
    """Move dead letters from the broker into PostgreSQL, and send what is to run again."""

    job_name = "jobs.collect_dead_letters"
    housekeeping = True


PAYLOADS: tuple[type[Payload], ...] = (
    AnalyzeBatch,
    WorkBatch,
    FeedBatches,
    RescueBatches,
    IndexDirty,
    ReconcileIndex,
    IndexFiles,
    DeleteFiles,
    ReindexOwner,
    RebuildIndex,
    RefreshVocabulary,
    FoldVectors,
    OptimizeSearch,
    VacuumDue,
    ReindexBloated,
    AnalyzeTables,
    VacuumTables,
    SnapshotStatements,
    MaintainPartitions,
    WatchSchedule,
    RunRetention,
    CreateBackup,
    VerifyBackup,
    VerifyRestored,
    DrillBackup,
    CreateBase,
    PruneBackups,
    ArchiveWal,
    WarmCache,
    CollectDeadLetters,
)

_BY_NAME = {payload.job_name: payload for payload in PAYLOADS}


def payload_of(job_name: str) -> type[Payload] | None:
    """Return the payload of the job with that name, if the platform has such a job."""
    return _BY_NAME.get(job_name)
