"""The loop that works through one chunk: decide, analyse, store, until done or told to stop.

It is synchronous, because an analysis is processor time that a soft time limit must be able to
interrupt; what it awaits goes through `run`, to the loop that owns the connections.

Invariant: whatever ends the loop, each item is ended, given back, or still under a claim that
ends by itself. Nothing is analysed whose content was analysed before by the same version. What one
file raises ends that file's item and no other's.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from samplemind.audio.outcome import AudioRejectedError
from samplemind.batches.claims import (
    Claim,
    ClaimedItem,
    begin_trial,
    claim,
    count_attempt,
    release,
)
from samplemind.batches.outcomes import (
    ItemOutcome,
    can_reuse,
    outcome_of_analysis,
    outcome_of_error,
    outcome_of_known,
    outcome_of_lost_worker,
    outcome_of_transient,
)
from samplemind.batches.recording import record
from samplemind.batches.renewal import Renewal, renewing
from samplemind.batches.running import Run
from samplemind.connections.resources import Connections
from samplemind.documents.audio_file import AudioFile, audio_file_id
from samplemind.errors import TransientError
from samplemind.log import get_logger
from samplemind.repositories.audio_files import AudioFileRepository

if TYPE_CHECKING:
    from samplemind.audio.analysis import FileAnalysis

FLUSH_ITEMS = 16
FLUSH_S = 1.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Analyzer:
    """What looks into files.

    Attributes:
        name: of the analyser.
        version: two versions' results stand side by side.
        analyze: takes the path and whether to work in a process of its own; raises
            `TransientError` where the machine is at fault. Anything else that it raises is held
            against the file.
        interruptions: errors that come from outside, in the middle of whatever runs, to end the
            whole chunk: a soft time limit.
        hash_file: returns the SHA-256 of a file in hex; raises `AudioRejectedError` or
            `TransientError`.
    """

    name: str
    version: str
    analyze: "Callable[[Path, bool], FileAnalysis]"
    hash_file: Callable[[Path], str]
    interruptions: tuple[type[Exception], ...] = ()


@dataclass(slots=True)
class ChunkReport:
    """What became of a chunk's items in this run.

    Attributes:
        claimed: items that this run took.
        again: items given back because the machine failed them; the job should be retried.
        stopped: the batch was cancelled, or another worker took the items.
    """

    claimed: int = 0
    again: int = 0
    stopped: bool = False


def analyze_chunk(
    connections: Connections,
    batch_id: UUID,
    first: int,
    last: int,
    *,
    job_id: str,
    run: Run,
    analyzer: Analyzer,
    queue_drain: Callable[[], None],
) -> ChunkReport:
    """Work through the items from `first` to `last` that nobody else works on.

    Args:
        job_id: the message's id, the same at each delivery.
        queue_drain: called when files wait for the index and no drain is on its way.

    Raises:
        StoreUnavailableError: a store did not answer; deliver the job again.
        NotFoundError: there is no such batch.
    """
    taken = run(claim(connections, batch_id, first, last, job_id=job_id))
    if not taken.items:
        return ChunkReport()
    with renewing(connections, taken, run) as renewal:
        work = _ChunkWork(connections, taken, run, analyzer, queue_drain, renewal)
        try:
            work.go()
        except TransientError:
            # The store is away: the claim ends by itself, or at once for the same job.
            raise
        except BaseException:
            work.give_back()
            raise
    return work.report


class _ChunkWork:
    """One claim being worked on."""

    def __init__(
        self,
        connections: Connections,
        taken: Claim,
        run: Run,
        analyzer: Analyzer,
        queue_drain: Callable[[], None],
        renewal: Renewal,
    ) -> None:
        self.report = ChunkReport(claimed=len(taken.items))
        self._connections = connections
        self._claim = taken
        self._run = run
        self._analyzer = analyzer
        self._queue_drain = queue_drain
        self._renewal = renewal
        self._passed_on: tuple[type[Exception], ...] = (TransientError, *analyzer.interruptions)
        self._max_attempts = connections.settings.batch.max_attempts
        self._begun = 0  # items before this place were begun
        self._known: dict[UUID, AudioFile] = {}
        self._unstored: list[ItemOutcome] = []
        self._stored_at = time.monotonic()

    def go(self) -> None:
        """Work until all items are ended, or the claim is gone."""
        self._known = self._find_known()
        for item in self._claim.items:
            if self._renewal.lost:
                self.report.stopped = True
                break
            self._begun += 1
            outcome = self._settle(item)
            if outcome is not None:
                self._unstored.append(outcome)
            if self._is_flush_due():
                self._flush()
        self._flush()
        if self.report.again:
            self._run(release(self._connections, self._claim))

    def give_back(self) -> None:
        """Store what is known and return the rest, when something ended the loop from outside."""
        untouched = [item.id for item in self._claim.items[self._begun :]]
        try:
            self._flush()
            self._run(release(self._connections, self._claim, untouched=untouched))
        except TransientError as error:
            _log.warning("batch_claim_left", batch_id=str(self._claim.batch_id), reason=str(error))

    def _settle(self, item: ClaimedItem) -> ItemOutcome | None:
        """Return how the item ended; None if it has to be tried again."""
        known = self._known.get(self._file_id(item))
        if item.trials >= self._max_attempts:
            return outcome_of_lost_worker(item)
        try:
            if known is not None and self._is_unchanged(item, known):
                return outcome_of_known(self._claim, item, known)
        except TransientError as error:
            return self._put_off(item, error)
        alone = item.claims > 1
        if alone and not self._begin_trial(item):
            return None
        # What was at fault before is kept apart; after a worker's death most files are not.
        isolated = item.trials > 0 or item.attempts > 1
        try:
            return self._analyze(item, isolated=isolated)
        except TransientError as error:
            return self._put_off(item, error, trial=alone)

    def _begin_trial(self, item: ClaimedItem) -> bool:
        """Get ready for a file that may end this process: it alone is to be blamed for that."""
        self._flush()
        if self._run(begin_trial(self._connections, self._claim, item)):
            return True
        self._run(self._renewal.check())
        return False

    def _put_off(
        self, item: ClaimedItem, error: TransientError, *, trial: bool = False
    ) -> ItemOutcome | None:
        if item.attempts + 1 >= self._max_attempts:
            return outcome_of_transient(item, str(error))
        self._run(count_attempt(self._connections, self._claim, item, trial=trial))
        self.report.again += 1
        return None

    def _analyze(self, item: ClaimedItem, *, isolated: bool) -> ItemOutcome:
        """Analyse one file, in a process of its own if it cannot be done here.

        Raises:
            TransientError: the machine failed, and not the file.
        """
        try:
            return self._look_into(item, isolated=isolated)
        except self._passed_on:
            raise
        except Exception as error:  # noqa: BLE001  # The edge around one file: others go on.
            # A fault in the code or a library that this file brought out, or too little memory:
            # the guarded child has a bound of its own, and reports what goes beyond it.
            _log.exception("file_analysis_failed", item_id=str(item.id), isolated=isolated)
            if isolated:
                return outcome_of_error(item, error)
        return self._analyze(item, isolated=True)

    def _look_into(self, item: ClaimedItem, *, isolated: bool) -> ItemOutcome:
        observed_at, began = datetime.now(UTC), time.monotonic()
        analysis = self._analyzer.analyze(item.path, isolated)
        return outcome_of_analysis(
            self._claim,
            item,
            analysis,
            analyzer=(self._analyzer.name, self._analyzer.version),
            observed_at=observed_at,
            seconds=time.monotonic() - began,
            known=self._known.get(self._file_id(item)),
        )

    def _is_unchanged(self, item: ClaimedItem, known: AudioFile) -> bool:
        if not can_reuse(known, self._analyzer.version):
            return False
        try:
            return self._analyzer.hash_file(item.path) == known.content_hash
        except AudioRejectedError:
            return False  # the analysis will say why it is refused now

    def _is_flush_due(self) -> bool:
        waited = time.monotonic() - self._stored_at
        return len(self._unstored) >= FLUSH_ITEMS or (bool(self._unstored) and waited >= FLUSH_S)

    def _flush(self) -> None:
        if self._unstored:
            outcomes = self._unstored
            stored = self._run(record(self._connections, self._claim, outcomes))
            self._unstored = []
            if stored.drain_due:
                self._queue_drain()
            if stored.finished < len(outcomes):
                self._run(self._renewal.check())
        self._stored_at = time.monotonic()

    def _find_known(self) -> dict[UUID, AudioFile]:
        async def find() -> list[AudioFile]:
            await self._connections.documents()
            ids = [self._file_id(item) for item in self._claim.items]
            return await AudioFileRepository().find_many(ids)

        return {file.id: file for file in self._run(find())}

    def _file_id(self, item: ClaimedItem) -> UUID:
        return audio_file_id(self._claim.owner_id, item.path)
