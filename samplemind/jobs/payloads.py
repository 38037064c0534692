"""What each job is told: one model a job, the same for producers and workers.

Invariant: a payload is small and plain JSON; files and results never travel in a message.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self
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


class AnalyzeBatch(Payload):
    """Analyse the files of a batch whose place lies within first..last, both included."""

    job_name = "batches.analyze"

    batch_id: UUID
    first: int = Field(ge=0)
    last: int = Field(ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            message = "last must not be less than first"
            raise ValueError(message)
        return self


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


class CollectDeadLetters(Payload):
    """Move dead letters from the broker into PostgreSQL, and send what is to run again."""

    job_name = "jobs.collect_dead_letters"
    housekeeping = True


PAYLOADS: tuple[type[Payload], ...] = (
    AnalyzeBatch,
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
    CollectDeadLetters,
)

_BY_NAME = {payload.job_name: payload for payload in PAYLOADS}


def payload_of(job_name: str) -> type[Payload] | None:
    """Return the payload of the job with that name, if the platform has such a job."""
    return _BY_NAME.get(job_name)
