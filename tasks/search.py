"""Jobs that keep the search index fresh."""

from samplemind.jobs.client import publish
from samplemind.jobs.payloads import IndexDirty, ReconcileIndex
from samplemind.search.indexer import drain
from samplemind.search.reconcile import reconcile
from worker.app import app
from worker.runtime import connections, run
from worker.task import Job


@app.task(base=Job, name=IndexDirty.job_name)
def index_dirty() -> None:
    """Write every file that is marked dirty into the index."""
    run(drain(connections()))


@app.task(base=Job, name=ReconcileIndex.job_name)
def reconcile_index() -> None:
    """Mark what differs between the library and the index, then write it."""
    if run(reconcile(connections())).total:
        publish(app, [IndexDirty()])
