"""Search by sound: nearest, many at once, and within one owner's files, each with its recall."""

import time
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.row import Row, row
from benchmarks.search.bench import Bench
from benchmarks.search.figures import Peer, share_row
from benchmarks.search.measure import time_peer
from benchmarks.search.peers import HnswlibPeer
from benchmarks.search.sounds import EMBEDDING_VERSION, OWNER_SHARES, Vectors
from benchmarks.search.truth import RECALL_AT, VectorTruth, recall
from samplemind.search.filters import Filters
from samplemind.search.recall import calibrate
from samplemind.search.sound import Sound
from samplemind.search.vector import VectorSearch

_RECALL = 0.95
_GOAL_MS, _GOAL_FILTERED_MS, _GOAL_EACH_MS = 5, 35, 1
_WITHIN = 20.0  # times hnswlib's time
_BATCH = 1_000

_EVERYTHING = Filters(everything=True)


async def sound_rows(bench: Bench) -> list[Row]:
    """Return the rows of all vector queries; calibrates the index first, as its task does."""
    async with bench.pool.session() as session:
        await calibrate(session)
    truth = VectorTruth(bench.library)
    search = VectorSearch(bench.settings)
    questions = bench.library.query_vectors(bench.questions)
    rows = await _nearest_rows(bench, search, questions, truth)
    rows += await _batch_rows(bench, search)
    for share, owner in zip(OWNER_SHARES, bench.library.owners, strict=False):
        if share * bench.library.files >= RECALL_AT:
            rows += await _owner_rows(bench, search, questions, truth, share, owner)
    return rows


async def _nearest_rows(
    bench: Bench, search: VectorSearch, questions: Vectors, truth: VectorTruth
) -> list[Row]:
    async def ask(session: AsyncSession, vector: Vectors) -> list[UUID]:
        return await _nearest(session, search, vector, _EVERYTHING)

    peer = HnswlibPeer(truth.vectors)
    reached = peer.reach(_RECALL, questions, truth.places(questions))
    timings = time_peer(peer.search, list(questions))
    found = [await bench.asking(ask)(question) for question in questions]
    return [
        *await bench.latency(
            "similar",
            ask,
            list(questions),
            goal_ms=_GOAL_MS,
            peer=Peer("hnswlib", timings.p95, _WITHIN),
        ),
        share_row(
            f"similar, recall@10, {bench.size}", recall(found, truth.nearest(questions)), _RECALL
        ),
        row(f"hnswlib, recall@10, {bench.size}", reached, "of 1"),
    ]


async def _batch_rows(bench: Bench, search: VectorSearch) -> list[Row]:
    vectors = bench.library.query_vectors(_BATCH)
    sounds = [Sound(vector, EMBEDDING_VERSION) for vector in vectors]

    async def ask(session: AsyncSession, _: int) -> None:
        await search.batch_similarity_search(session, sounds, filters=_EVERYTHING, limit=RECALL_AT)

    took = []
    for attempt in range(4):
        started = time.perf_counter()
        await bench.asking(ask)(attempt)
        took.append((time.perf_counter() - started) * 1000 / _BATCH)
    each = max(took[1:])
    return [
        row(
            f"similar, {_BATCH} at once, each, {bench.size}",
            each,
            "ms",
            goal=f"≤ {_GOAL_EACH_MS}",
            met=each <= _GOAL_EACH_MS,
        )
    ]


async def _owner_rows(
    bench: Bench,
    search: VectorSearch,
    questions: Vectors,
    truth: VectorTruth,
    share: float,
    owner: UUID,
) -> list[Row]:
    filters = Filters(owner_id=owner, viewer_id=owner)

    async def ask(session: AsyncSession, vector: Vectors) -> list[UUID]:
        return await _nearest(session, search, vector, filters)

    found = [await bench.asking(ask)(question) for question in questions]
    name = f"similar, owner of {share:.2%}"
    return [
        *await bench.latency(name, ask, list(questions), goal_ms=_GOAL_FILTERED_MS),
        share_row(
            f"{name}, recall@10, {bench.size}",
            recall(found, truth.nearest(questions, owner)),
            _RECALL,
        ),
    ]


async def _nearest(
    session: AsyncSession, search: VectorSearch, vector: Vectors, filters: Filters
) -> list[UUID]:
    results = await search.similarity_search(
        session, Sound(vector, EMBEDDING_VERSION), filters=filters, limit=RECALL_AT
    )
    return [hit.id for hit in results.results]
