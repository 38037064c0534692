"""The main job under fire: real audio, real stores, real workers, one of them killed."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sqlalchemy import select

from samplemind import batches
from samplemind.connections.resources import Connections
from samplemind.documents.analysis_result import AnalysisResult
from samplemind.documents.audio_file import AudioFile
from samplemind.documents.batch_item import BatchItem
from samplemind.documents.batch_job import BatchState
from samplemind.endpoints import Store
from samplemind.jobs.client import Jobs
from samplemind.models.search_document import SearchDocument
from samplemind.search.dirty import index_lag
from samplemind.search.reconcile import reconcile
from samplemind.settings import BatchSettings, Settings
from tests.asynchronous import eventually
from tests.worker.processes import SHORT_LEASES, WorkerProcess

pytestmark = pytest.mark.timeout(150)

GOOD = 160
CHUNK = BatchSettings().chunk_size
RATE_HZ = 44_100


def write_samples(folder: Path) -> None:
    """Write sounds that keep two workers busy for some seconds, and two that are refused."""
    time_s = np.arange(4 * RATE_HZ) / RATE_HZ
    random = np.random.default_rng(7)
    for number in range(GOOD):
        tone = np.sin(2 * np.pi * random.uniform(60, 2000) * time_s)
        beat = np.exp(-8 * (time_s % 0.5))
        sound = 0.4 * beat * (tone + 0.1 * random.standard_normal(len(time_s)))
        soundfile.write(folder / f"loop_{number:03}.wav", sound, RATE_HZ, subtype="PCM_16")
    (folder / "text.wav").write_text("no sound at all, only words that go on for a while\n" * 4)
    (folder / "empty.wav").touch()


class Platform:
    """The processes of a platform on these stores, each started when a test wants it."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._directory = directory
        self._started: list[WorkerProcess] = []
        self._environment = {
            "SAMPLEMIND_HOME": str(directory),
            "SAMPLEMIND_LOG_FORMAT": "json",
            **SHORT_LEASES,
            **{
                f"SAMPLEMIND_{store.name}_URL": url.get_secret_value()
                for store in Store
                if (url := settings.url(store))
            },
        }

    def start(self, role: str, name: str, *arguments: str) -> WorkerProcess:
        log = self._directory / f"{name}.log"
        process = WorkerProcess(role, self._environment, log, *arguments)
        self._started.append(process)
        return process

    def start_worker(self, role: str, name: str) -> WorkerProcess:
        state = f"--statedb={self._directory / f'{name}.state'}"
        worker = self.start(role, name, "--concurrency=1", f"--hostname={role}@{name}", state)
        worker.wait_until_ready()
        return worker

    def stop(self) -> None:
        for process in self._started:
            if process.process.poll() is None:
                process.kill()


@pytest.fixture
def platform(connections: Connections, tmp_path: Path) -> Iterator[Platform]:
    """An index worker and beat; tests start the audio workers."""
    opened = Platform(connections.settings, tmp_path)
    try:
        opened.start_worker("index", "index")
        # Whoever dies between a mark and its message leaves the next drain to beat.
        opened.start("beat", "beat")
        yield opened
    finally:
        opened.stop()


async def test_a_killed_worker_loses_no_file_and_doubles_none(
    connections: Connections, platform: Platform, tmp_path: Path
) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    write_samples(samples)
    doomed = platform.start_worker("audio", "doomed")
    async with Jobs(connections.settings) as jobs:
        batch_id = (await jobs.submit_batch([samples], owner="ada@example.org")).batch_id

    async def some_ended() -> bool:
        return (await batches.progress(connections, batch_id)).ended >= 16

    await eventually(some_ended, seconds=30, what="the first files are analysed")
    doomed.kill()
    left = await batches.progress(connections, batch_id)
    assert left.claimed > 0, "the worker held nothing when it was killed"
    platform.start_worker("audio", "other")

    async def finished() -> bool:
        now = await batches.progress(connections, batch_id)
        return now.state is BatchState.FINISHED

    await eventually(finished, seconds=60, what="the batch has finished")

    async def all_indexed() -> bool:
        lag = await index_lag(connections.broker)
        drift = await reconcile(connections, repair=False)
        return lag.waiting + lag.claimed + drift.total == 0

    await eventually(all_indexed, seconds=30, what="the index holds what the library holds")

    async def settled() -> bool:
        return await connections.broker.hlen("sm:unacked") == 0

    await eventually(settled, seconds=20, what="every message is acknowledged")
    await assert_each_file_ended_once(connections, batch_id)


async def assert_each_file_ended_once(connections: Connections, batch_id: object) -> None:
    items = await BatchItem.find(BatchItem.batch_id == batch_id).to_list()
    assert Counter(item.state.value for item in items) == {"done": GOOD, "failed": 2}
    # Only what the killed worker held may have been begun twice.
    assert sum(item.claims for item in items) <= len(items) + CHUNK
    assert sorted(item.error.code for item in items if item.error) == [
        "rejected:empty",
        "rejected:unknown_format",
    ]
    files = await AudioFile.find_all().to_list()
    assert len({(file.owner_id, file.path) for file in files}) == len(files)
    assert Counter(file.status.value for file in files) == {"analyzed": GOOD, "rejected": 1}
    results = await AnalysisResult.find_all().to_list()
    per_file = Counter(result.audio_file_id for result in results)
    assert len(per_file) == GOOD
    assert set(per_file.values()) == {1}
    async with connections.postgres.session() as session:
        rows = (await session.scalars(select(SearchDocument.file_id))).all()
    assert sorted(rows) == sorted(per_file)
