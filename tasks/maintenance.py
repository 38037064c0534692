"""Jobs by which the database looks after itself; each stops at the end of its window."""

from typing import Any

from samplemind.jobs.payloads import (
    AnalyzeTables,
    MaintainPartitions,
    ReindexBloated,
    SnapshotStatements,
    VacuumDue,
    VacuumTables,
    WatchSchedule,
)
from samplemind.maintenance.partitions import maintain_partitions
from samplemind.maintenance.statements import snapshot_statements
from samplemind.maintenance.vacuum import analyze_tables, reindex_bloated, vacuum_due, vacuum_tables
from samplemind.maintenance.watchdog import watch
from worker.app import app
from worker.runtime import connections, run
from worker.task import Job

# A window's minutes, and one VACUUM or REINDEX that was begun in its last one.
_NIGHT = {"soft_time_limit": 4 * 3600, "time_limit": 4 * 3600 + 60}


@app.task(base=Job, name=VacuumDue.job_name, **_NIGHT)
def vacuum() -> dict[str, Any]:
    """VACUUM and ANALYZE the tables that need it."""
    return run(vacuum_due(connections().settings)).figures()


@app.task(base=Job, name=ReindexBloated.job_name, **_NIGHT)
def reindex() -> dict[str, Any]:
    """Build bloated indexes anew, one at a time."""
    return run(reindex_bloated(connections().settings)).figures()


@app.task(base=Job, name=AnalyzeTables.job_name, **_NIGHT)
def analyze(**payload: Any) -> dict[str, Any]:
    """Renew the planner's statistics of tables that were loaded in bulk."""
    tables = AnalyzeTables.model_validate(payload).tables
    return run(analyze_tables(connections().settings, tables)).figures()


@app.task(base=Job, name=VacuumTables.job_name, ignore_result=False, **_NIGHT)
def vacuum_named(**payload: Any) -> dict[str, Any]:
    """VACUUM and ANALYZE the tables that somebody asked for."""
    tables = VacuumTables.model_validate(payload).tables
    return run(vacuum_tables(connections().settings, tables)).figures()


@app.task(base=Job, name=SnapshotStatements.job_name)
def snapshot() -> dict[str, Any]:
    """Keep the figures of the statements that cost most."""
    return {"statements": run(snapshot_statements(connections()))}


@app.task(base=Job, name=MaintainPartitions.job_name)
def partitions() -> dict[str, Any]:
    """Make the audit log's partitions of the months to come."""
    return run(maintain_partitions(connections().settings))


@app.task(base=Job, name=WatchSchedule.job_name)
def watch_schedule() -> dict[str, Any]:
    """Tell which periodic job is overdue or failing."""
    return run(watch(connections()))
