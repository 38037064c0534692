"""Jobs that keep the search index fresh, whole and fast; each may run twice without harm."""

import dataclasses
from datetime import timedelta
from typing import Any

from samplemind.jobs.client import SyncJobs
from samplemind.jobs.payloads import (
    AnalyzeTables,
    DeleteFiles,
    FoldVectors,
    IndexDirty,
    IndexFiles,
    OptimizeSearch,
    RebuildIndex,
    ReconcileIndex,
    RefreshVocabulary,
    ReindexOwner,
)
from samplemind.jobs.publishing import publish
from samplemind.search import indexer
from samplemind.search.bulk import count_written, forget_written
from samplemind.search.fold import FoldReport, fold_vectors
from samplemind.search.indexer import IndexReport
from samplemind.search.optimizer import SEARCH_TABLES, SearchOptimizer
from samplemind.search.rebuild import RebuildPhase, rebuild_index
from samplemind.search.reconcile import reconcile
from samplemind.search.statistics import has_vocabulary
from tasks.progress import Progress
from worker.app import app
from worker.runtime import connections, run
from worker.task import Job

_FOLD_S = 15.0
"""Half of the time between folds, so that drains of the same process are never far behind."""

_URGENT_FOLD_S = 10.0
"""Added where so many vectors wait that searches by sound feel it."""

_SETTLING = timedelta(minutes=1)
"""How long statistics wait after a bulk: what is written meanwhile shares one ANALYZE."""

_FIRST_WORDS = timedelta(seconds=2)
"""How long the first count of words waits for the files that come with the first ones."""

_HOUR_S = 3600
_UPKEEP = {"soft_time_limit": _HOUR_S, "time_limit": _HOUR_S + 60}
# A million files take about ten minutes; ten million still end.
_REBUILD = {"soft_time_limit": 6 * _HOUR_S, "time_limit": 6 * _HOUR_S + 60}


@app.task(base=Job, name=IndexDirty.job_name)
def index_dirty() -> None:
    """Write every file that is marked dirty into the index."""
    _follow_up(run(indexer.drain(connections())))


@app.task(base=Job, name=ReconcileIndex.job_name)
def reconcile_index() -> dict[str, Any]:
    """Mark what differs between the library and the index, then write it."""
    drift = run(reconcile(connections()))
    if drift.total:
        publish(app, [IndexDirty()])
    return dataclasses.asdict(drift)


@app.task(base=Job, bind=True, name=IndexFiles.job_name, ignore_result=False)
def index_files(self: Job, **payload: Any) -> dict[str, Any]:
    """Bring files up to date in the index."""
    ids = IndexFiles.model_validate(payload).ids
    report = run(indexer.index_files(connections(), ids, progress=Progress(self).tell))
    _follow_up(report)
    return dataclasses.asdict(report)


@app.task(base=Job, bind=True, name=DeleteFiles.job_name, ignore_result=False)
def delete_files(self: Job, **payload: Any) -> dict[str, Any]:
    """Take deleted files out of the index."""
    ids = DeleteFiles.model_validate(payload).ids
    report = run(indexer.delete_files(connections(), ids, progress=Progress(self).tell))
    _follow_up(report)
    return dataclasses.asdict(report)


@app.task(base=Job, bind=True, name=ReindexOwner.job_name, ignore_result=False, **_UPKEEP)
def reindex_owner(self: Job, **payload: Any) -> dict[str, Any]:
    """Make the rows of one owner's files anew."""
    owner_id = ReindexOwner.model_validate(payload).owner_id
    report = run(indexer.reindex_owner(connections(), owner_id, progress=Progress(self).tell))
    _follow_up(report)
    return dataclasses.asdict(report)


@app.task(base=Job, bind=True, name=RebuildIndex.job_name, ignore_result=False, **_REBUILD)
def rebuild(self: Job) -> dict[str, Any]:
    """Make the whole index anew; a second one at the same time is refused."""
    progress = Progress(self)

    def tell(phase: RebuildPhase, files: int) -> None:
        progress.tell(files, phase=phase.value)

    report = run(rebuild_index(connections(), progress=tell))
    # It analyzes the tables as well, after the words were counted.
    publish(app, [RefreshVocabulary()])
    return {"id": str(report.id), "files": report.files, "seconds": report.seconds}


@app.task(base=Job, bind=True, name=RefreshVocabulary.job_name, ignore_result=False, **_UPKEEP)
def refresh_vocabulary(self: Job) -> dict[str, Any]:
    """Count the words of the index."""
    counted = SearchOptimizer(connections()).update_statistics(Progress(self).tell)
    return dataclasses.asdict(run(counted))


@app.task(base=Job, bind=True, name=FoldVectors.job_name, ignore_result=False)
def fold(self: Job) -> dict[str, Any]:
    """Move fresh vectors into the approximate index, for some seconds; longer where many wait."""
    tell = Progress(self).tell
    report = run(fold_vectors(connections(), within_s=_FOLD_S, progress=tell))
    if report.waiting > connections().settings.search.fresh_limit:
        more = run(fold_vectors(connections(), within_s=_URGENT_FOLD_S, progress=tell))
        report = FoldReport(report.folded + more.folded, more.waiting)
    return dataclasses.asdict(report)


@app.task(base=Job, bind=True, name=OptimizeSearch.job_name, ignore_result=False, **_UPKEEP)
def optimize(self: Job) -> dict[str, Any]:
    """Clear, tidy, and measure how much the approximate index finds."""
    return run(SearchOptimizer(connections()).optimize(Progress(self).tell)).figures()


def _follow_up(report: IndexReport) -> None:
    """Send what follows from writing: the first words counted soon, and statistics after a bulk.

    A new library would suggest and correct nothing until the hourly count.
    """
    settings, broker = connections().settings, connections().broker
    is_bulk = run(count_written(broker, report.written + report.removed))
    is_first = report.written > 0 and not run(connections().postgres.run(has_vocabulary))
    if not is_bulk and not is_first:
        return
    with SyncJobs(settings) as jobs:
        if is_first:
            jobs.enqueue(
                RefreshVocabulary(),
                idempotency_key="the first words",
                unique_for=timedelta(0),
                delay=_FIRST_WORDS,
            )
        if is_bulk:
            jobs.enqueue(
                AnalyzeTables(tables=SEARCH_TABLES),
                idempotency_key="after a bulk",
                unique_for=timedelta(0),
                delay=_SETTLING,
            )
    if is_bulk:
        run(forget_written(broker))
