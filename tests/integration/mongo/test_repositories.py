"""What the repositories of audio files and analyses promise."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from samplemind.connections.resources import Connections
from samplemind.documents import AnalysisResult, AnalysisType, AudioFile, FileStatus
from samplemind.documents.analysis_result import MOST_VECTOR_BYTES, analysis_result_id
from samplemind.documents.audio_file import MOST_TAGS, audio_file_id
from samplemind.documents.text import store_path
from samplemind.errors import ConflictError, NotFoundError
from samplemind.ids import new_id
from samplemind.repositories.analyses import AnalysisRepository
from samplemind.repositories.audio_files import AudioFileRepository

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HASH = "0" * 64


@pytest.fixture
async def files(connections: Connections) -> AudioFileRepository:
    await connections.documents()
    return AudioFileRepository()


@pytest.fixture
async def analyses(connections: Connections) -> AnalysisRepository:
    await connections.documents()
    return AnalysisRepository()


def make_file(path: str = "/music/a.wav", **fields: Any) -> AudioFile:
    owner_id = fields.pop("owner_id", None)
    basis: dict[str, Any] = {
        "id": audio_file_id(owner_id, Path(path)),
        "owner_id": owner_id,
        "path": store_path(Path(path)),
        "content_hash": HASH,
        "observed_at": NOW,
        "title": "a",
        "status": FileStatus.ANALYZED,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return AudioFile(**basis | fields)


def make_result(**fields: Any) -> AnalysisResult:
    basis: dict[str, Any] = {
        "audio_file_id": new_id(),
        "content_hash": HASH,
        "analysis_type": AnalysisType.FEATURES,
        "analyzer_name": "samplemind",
        "analyzer_version": "1.0.0",
        "seconds": 0.1,
        "created_at": NOW,
    } | fields
    names = ["audio_file_id", "content_hash", "analysis_type", "analyzer_name", "analyzer_version"]
    return AnalysisResult(id=analysis_result_id(*(basis[name] for name in names)), **basis)


async def test_a_repeated_finding_changes_nothing(files: AudioFileRepository) -> None:
    for hour in range(3):
        later = NOW + timedelta(hours=hour)
        await files.write_found([make_file(tags=["kick"], observed_at=later)], later)
    stored = await files.get(make_file().id)
    assert (stored.revision, stored.updated_at, stored.created_at) == (1, NOW, NOW)
    assert stored.observed_at == NOW + timedelta(hours=2)


async def test_each_real_change_raises_the_revision_by_one(files: AudioFileRepository) -> None:
    for hour, tempo in enumerate((120.0, 128.0, 128.0, None)):
        later = NOW + timedelta(hours=hour)
        await files.write_found([make_file(tempo_bpm=tempo, observed_at=later)], later)
    stored = await files.get(make_file().id)
    assert (stored.revision, stored.tempo_bpm) == (3, None)
    assert (stored.created_at, stored.updated_at) == (NOW, NOW + timedelta(hours=3))


async def test_an_earlier_look_loses_against_a_later_one(files: AudioFileRepository) -> None:
    await files.write_found([make_file(title="late", observed_at=NOW + timedelta(hours=1))], NOW)
    await files.write_found([make_file(title="early")], NOW)
    stored = await files.get(make_file().id)
    assert (stored.title, stored.revision) == ("late", 1)


async def test_what_people_wrote_survives_an_analysis(files: AudioFileRepository) -> None:
    await files.write_found([make_file()], NOW)
    documents = AudioFile.get_pymongo_collection()
    await documents.update_one({}, {"$set": {"description": "From my first tape."}})
    await files.write_found([make_file(tempo_bpm=99.0)], NOW)
    stored = await files.get(make_file().id)
    assert (stored.description, stored.tempo_bpm) == ("From my first tape.", 99.0)


async def test_workers_that_meet_a_new_file_at_once_make_one_document(
    files: AudioFileRepository,
) -> None:
    new = [make_file(f"/music/{number}.wav") for number in range(20)]
    await asyncio.gather(*(files.write_found(new, NOW) for _ in range(8)))
    stored = await files.find_many([file.id for file in new])
    assert [file.revision for file in stored] == [1] * 20


async def test_the_same_path_of_two_owners_is_two_files(files: AudioFileRepository) -> None:
    owner = new_id()
    await files.write_found([make_file(), make_file(owner_id=owner)], NOW)
    mine = await files.find_by_path(owner, Path("/music/a.wav"))
    library = await files.find_by_path(None, Path("/music/a.wav"))
    assert mine is not None
    assert library is not None
    assert mine.id != library.id
    assert (mine.owner_id, library.owner_id) == (owner, None)


async def test_a_second_document_for_one_path_is_refused(files: AudioFileRepository) -> None:
    await files.write_found([make_file()], NOW)
    with pytest.raises(ConflictError):
        await files.write_found([make_file(id=new_id())], NOW)


async def test_a_file_that_does_not_exist_is_told_as_such(files: AudioFileRepository) -> None:
    with pytest.raises(NotFoundError):
        await files.get(new_id())
    assert await files.find_many([]) == []


async def test_versions_of_searchable_files_come_in_the_order_of_ids(
    files: AudioFileRepository,
) -> None:
    new = [make_file(f"/music/{number}.wav") for number in range(50)]
    refused = make_file("/music/text.wav", status=FileStatus.REJECTED)
    await files.write_found([*new, refused], NOW)
    streamed = [entry async for entry in files.stream_versions()]
    assert streamed == [(file_id, (NOW, 1)) for file_id in sorted(file.id for file in new)]
    assert await files.find_versions([refused.id, new[0].id]) == {new[0].id: (NOW, 1)}


async def test_a_result_is_stored_once_and_never_changed(analyses: AnalysisRepository) -> None:
    file_id = new_id()
    for seconds in (0.1, 0.2):
        await analyses.insert_missing([make_result(audio_file_id=file_id, seconds=seconds)])
    [stored] = await AnalysisResult.find(AnalysisResult.audio_file_id == file_id).to_list()
    assert stored.seconds == 0.1


async def test_versions_stand_side_by_side(analyses: AnalysisRepository) -> None:
    file_id = new_id()
    versions = [
        make_result(
            audio_file_id=file_id,
            analyzer_version=str(number),
            created_at=NOW + timedelta(days=number),
        )
        for number in range(3)
    ]
    await analyses.insert_missing(versions)
    await analyses.insert_missing([*versions, make_result()])
    listed = await analyses.find_many([result.id for result in versions])
    assert sorted(result.analyzer_version for result in listed) == ["0", "1", "2"]
    assert (await analyses.get(versions[0].id)).analyzer_version == "0"
    with pytest.raises(NotFoundError):
        await analyses.get(new_id())


async def test_documents_that_grow_without_bound_are_refused(connections: Connections) -> None:
    await connections.documents()
    with pytest.raises(ValidationError):
        make_file(tags=["tag"] * (MOST_TAGS + 1))
    with pytest.raises(ValidationError):
        make_file(description="x" * 10_001)
    with pytest.raises(ValidationError):
        make_result(blocks={"mel": bytes(MOST_VECTOR_BYTES + 1)})
    with pytest.raises(ValidationError):
        make_file(path="relative.wav")
