"""Analysing audio files: what `samplemind ingest` submits."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from samplemind.batches.chunks import Analyzer, ChunkReport, analyze_chunk
from samplemind.batches.kind import Kind, Work
from samplemind.cache.features import AudioFeatureCache
from samplemind.jobs.payloads import AnalyzeBatch

if TYPE_CHECKING:
    from samplemind.audio.analysis import FileAnalysis


def work(given: Work) -> ChunkReport:
    """Analyse the files of a chunk.

    Those whose content their document knows are skipped; of those whose content was analysed as
    any other file, the features come from the cache.
    """
    return analyze_chunk(
        given.connections,
        given.chunk.batch_id,
        given.chunk.first,
        given.chunk.last,
        job_id=given.job_id,
        run=given.run,
        analyzer=_analyzer(given),
        queue_drain=given.queue_drain,
    )


def _analyzer(given: Work) -> Analyzer:
    # It loads scipy's filters, which a service that only submits batches never needs.
    from samplemind.audio.analysis import ANALYZER_NAME, ANALYZER_VERSION, analyze_file
    from samplemind.audio.guards import hash_file

    audio = given.connections.settings.audio
    root, limits = audio.root, audio.limits()
    features = AudioFeatureCache(given.connections.cached)
    memory = features.memory(ANALYZER_VERSION, limits, given.run)

    def analyze(path: Path, isolated: bool) -> "FileAnalysis":
        return analyze_file(path, root=root, limits=limits, isolated=isolated, memory=memory)

    return Analyzer(
        name=ANALYZER_NAME,
        version=ANALYZER_VERSION,
        analyze=analyze,
        hash_file=partial(hash_file, root=root, limits=limits),
        interruptions=given.interruptions,
    )


KIND = Kind("analyze", "analyses audio files", job=AnalyzeBatch, work=work, in_library=False)
