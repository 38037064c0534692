"""Jobs that work through batches."""

from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded

from samplemind import batches
from samplemind.audio.analysis import ANALYZER_NAME, ANALYZER_VERSION, FileAnalysis, analyze_file
from samplemind.audio.guards import hash_file
from samplemind.errors import AudioReadError
from samplemind.jobs.client import publish, publish_chunks
from samplemind.jobs.payloads import AnalyzeBatch, IndexDirty, RescueBatches
from samplemind.settings import AudioSettings
from worker.app import app
from worker.runtime import connections, run
from worker.task import Job


@app.task(base=Job, bind=True, name=AnalyzeBatch.job_name)
def analyze_batch(self: Job, **payload: Any) -> None:
    """Analyse a part of a batch; the last part to end finishes the batch."""
    chunk = AnalyzeBatch.model_validate(payload)
    report = batches.analyze_chunk(
        connections(),
        chunk.batch_id,
        chunk.first,
        chunk.last,
        job_id=self.request.id,
        run=run,
        analyzer=_analyzer(connections().settings.audio),
        queue_drain=lambda: publish(app, [IndexDirty()]),
    )
    if report.again:
        message = f"{report.again} files could not be read for now"
        raise AudioReadError(message)
    run(batches.finish(connections(), chunk.batch_id))


@app.task(base=Job, bind=True, name=RescueBatches.job_name)
def rescue_batches(self: Job) -> None:
    """Publish again the parts of batches that nobody works on."""

    def publish_again(batch_id: UUID, chunk: tuple[int, int]) -> None:
        # Another id than before: if the lost message turns up after all, both count once.
        publish_chunks(app, batch_id, [chunk], attempt=self.request.id)

    batches.republish(connections(), run=run, publish=publish_again)


def _analyzer(audio: AudioSettings) -> batches.Analyzer:
    root, limits = audio.root, audio.limits()

    def analyze(path: Path, isolated: bool) -> FileAnalysis:
        return analyze_file(path, root=root, limits=limits, isolated=isolated)

    return batches.Analyzer(
        name=ANALYZER_NAME,
        version=ANALYZER_VERSION,
        analyze=analyze,
        hash_file=partial(hash_file, root=root, limits=limits),
        interruptions=(SoftTimeLimitExceeded,),
    )
