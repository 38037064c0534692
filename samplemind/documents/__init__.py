"""MongoDB documents (Beanie), one aggregate a file."""

from samplemind.documents.analysis_result import AnalysisResult, AnalysisType
from samplemind.documents.audio_file import AudioFile, FileStatus
from samplemind.documents.batch_item import BatchItem, ItemError, ItemState
from samplemind.documents.batch_job import BatchJob, BatchState, Callback

DOCUMENTS = [AudioFile, AnalysisResult, BatchJob, BatchItem]

__all__ = [
    "DOCUMENTS",
    "AnalysisResult",
    "AnalysisType",
    "AudioFile",
    "BatchItem",
    "BatchJob",
    "BatchState",
    "Callback",
    "FileStatus",
    "ItemError",
    "ItemState",
]
