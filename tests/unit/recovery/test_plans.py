"""What backups decide and parse without any server."""

import dataclasses
import io
import itertools
import struct
import tarfile
from datetime import UTC, datetime, timedelta

import pytest
from bson import Int64, ObjectId, encode
from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from samplemind.backup.catalog import CatalogEntry, HistoryEvent
from samplemind.backup.chains import choose_footing, find_chain, usable_chains
from samplemind.backup.control import Control, Step
from samplemind.backup.logical import plan_segments
from samplemind.backup.manifest import BackupKind, Manifest, PhysicalRecord, PostgresRecord
from samplemind.backup.mongo import DocumentDigest, read_batch, split_documents
from samplemind.backup.physical import BaseFacts, ManifestTap
from samplemind.backup.postgres_tools import Server, find_tools
from samplemind.backup.proof import count_binary_rows, count_text_rows
from samplemind.backup.relations import Table
from samplemind.backup.wal import WalSegment, find_gap, is_wal_name, parse_lsn
from samplemind.errors import (
    BackupCancelledError,
    BackupCorruptError,
    BackupError,
    MissingToolError,
)

SEGMENT = 16 * 2**20
cuts = st.lists(st.integers(1, 50), max_size=30)


def table(pages: int, size_bytes: int) -> Table:
    return Table("public", "t", 0, size_bytes, size_bytes, pages, ("a",), False, ())


def cut(content: bytes, sizes: list[int]) -> list[bytes]:
    """Cut bytes into blocks of those sizes and the rest."""
    blocks = []
    for size in sizes:
        blocks.append(content[:size])
        content = content[size:]
    return [*blocks, content]


@given(st.integers(0, 5000), st.integers(0, 10**7), st.integers(1, 10**6))
def test_segments_cover_every_page_once_and_whatever_is_added_later(
    pages: int, size_bytes: int, range_bytes: int
) -> None:
    segments = sorted(plan_segments([table(pages, size_bytes)], range_bytes), key=lambda s: s.first)
    assert segments[0].first == 0
    assert segments[-1].end is None
    for before, after in itertools.pairwise(segments):
        assert before.end == after.first > before.first
    assert len({segment.name for segment in segments}) == len(segments)


def test_a_table_of_an_odd_name_has_an_object_that_every_store_can_hold() -> None:
    odd = Table("odd/../schema", 'a"b%ü\n', 0, 0, 0, 0, ("a",), False, ())
    (segment,) = plan_segments([odd])
    assert segment.name == "postgres/data/odd%2F..%2Fschema.a%22b%25%C3%BC%0A.00000"


@given(st.integers(0, 10**6))
def test_a_segment_is_read_from_the_name_that_it_writes(number: int) -> None:
    segment = WalSegment(3, number)
    assert is_wal_name(segment.file_name(SEGMENT))
    assert WalSegment.parse(segment.file_name(SEGMENT), SEGMENT) == segment


@given(st.sets(st.integers(0, 30)), st.integers(0, 30))
def test_the_first_missing_segment_is_found(there: set[int], first: int) -> None:
    names = [WalSegment(1, number).file_name(SEGMENT) for number in there]
    names += [WalSegment(2, number).file_name(SEGMENT) for number in range(40)]
    missing, reached = find_gap(names, WalSegment(1, first), None, SEGMENT)
    expected = first
    while expected in there:
        expected += 1
    assert (reached is None) == (expected == first)
    if reached is not None:
        assert reached.number == expected - 1
    assert (missing is None) == (not any(number > expected for number in there))
    if missing is not None:
        assert missing.number == expected


def test_positions_in_wal_are_numbers() -> None:
    assert parse_lsn("0/16B3748") == 0x16B3748
    assert parse_lsn("1/00000000") == 2**32
    assert WalSegment.at("0/3000028", 1, SEGMENT) == WalSegment(1, 3)


@given(st.lists(st.lists(st.binary(max_size=20), max_size=3), max_size=20), cuts)
def test_rows_of_copy_in_binary_are_counted_however_the_stream_is_cut(
    rows: list[list[bytes]], sizes: list[int]
) -> None:
    content = b"PGCOPY\n\xff\r\n\x00" + struct.pack("!ii", 0, 0)
    for row in rows:
        content += struct.pack("!h", len(row))
        content += b"".join(struct.pack("!i", len(value)) + value for value in row)
    content += struct.pack("!h", -1)
    assert count_binary_rows(cut(content, sizes)) == len(rows)
    with pytest.raises(BackupCorruptError):
        count_binary_rows(cut(content[:-1], sizes))


def test_rows_of_copy_in_text_are_lines() -> None:
    assert count_text_rows([b"a\tb\nc", b"\\nd\te\n"]) == 2
    assert count_text_rows([]) == 0


@given(
    st.lists(st.dictionaries(st.text("abc", max_size=3), st.text(max_size=20)), max_size=9), cuts
)
def test_documents_are_split_however_the_stream_is_cut(
    documents: list[dict[str, str]], sizes: list[int]
) -> None:
    raw = [encode(document) for document in documents]
    content = b"".join(raw)
    assert list(split_documents(cut(content, sizes))) == raw
    if content:
        with pytest.raises(BackupCorruptError, match="ends within"):
            list(split_documents(cut(content[:-1], sizes)))


@given(
    st.lists(st.dictionaries(st.text("abc", max_size=3), st.text(max_size=20)), max_size=120),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(["firstBatch", "nextBatch"]),
)
def test_the_documents_of_a_reply_are_read_byte_by_byte(
    documents: list[dict[str, str]], cursor_id: int, key: str
) -> None:
    cursor = {
        "partial": False, "at": Timestamp(1, 2), "token": {"b": b"1"}, key: documents,
        "id": Int64(cursor_id), "n": 1, "f": 1.5, "none": None, "raw": b"\0\1", "ns": "db.täble",
        "day": datetime(2026, 1, 1, tzinfo=UTC), "of": ObjectId(),
    }  # fmt: skip
    assert read_batch(encode(cursor)) == (cursor_id, [encode(each) for each in documents])


def test_a_digest_of_documents_depends_on_each_and_not_on_their_order() -> None:
    def digest(*documents: bytes) -> str:
        found = DocumentDigest()
        for document in documents:
            found.add(document)
        return found.digest

    assert digest(b"a", b"b", b"b") == digest(b"b", b"a", b"b")
    assert digest(b"a", b"b", b"b") != digest(b"a", b"b")


@given(cuts)
def test_the_manifest_is_found_in_a_tar_that_passes_by(sizes: list[int]) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (("base/1", b"x" * 700), ("backup_manifest", b"{}" * 300)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    blocks = cut(archive.getvalue(), sizes)
    tap = ManifestTap(blocks)
    assert b"".join(tap) == archive.getvalue()
    assert tap.manifest == b"{}" * 300
    with pytest.raises(BackupError, match="without its backup_manifest"):
        list(ManifestTap(cut(archive.getvalue()[:1024], sizes)))


def test_a_cancelled_job_stops_at_its_next_block() -> None:
    control = Control()
    blocks = control.watch([b"a", b"b", b"c"])
    assert next(blocks) == b"a"
    control.cancel()
    with pytest.raises(BackupCancelledError):
        next(blocks)


def test_a_rate_limit_holds_over_all_blocks() -> None:
    control = Control(bytes_per_s=1_000_000)
    began = datetime.now(UTC)
    for _ in control.watch([b"x" * 50_000] * 4):
        pass
    assert (datetime.now(UTC) - began).total_seconds() >= 0.19


def test_progress_tells_how_far_and_how_long() -> None:
    steps: list[Step] = []
    control = Control(tell=steps.append)
    control.begin("rows", 100)
    control.begin("indexes")
    assert [(step.phase, step.total) for step in steps] == [("rows", 100), ("indexes", None)]


def test_a_program_gets_its_password_by_its_environment_and_no_setting_of_the_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    server = Server(SecretStr("postgresql+psycopg://ada:s%40cret@db.example.org:5433/music"))
    environment = server.environment(maintenance_work_mem="64MB")
    assert environment["PGPASSWORD"] == "s@cret"
    assert environment["PGHOST"] == "db.example.org"
    assert environment["PGPORT"] == "5433"
    assert environment["PGDATABASE"] == "music"
    assert "PGSERVICE" not in environment
    assert "s@cret" not in repr(server)
    assert server.with_database("other").database == "other"


def test_programs_that_are_too_old_are_told_with_what_to_install() -> None:
    with pytest.raises(MissingToolError, match="install postgresql-client-99"):
        find_tools(99)
    assert find_tools(18).major >= 18


def _facts(**changes: object) -> BaseFacts:
    facts = BaseFacts("18.6", 18, "7", 1, "0/9000000", SEGMENT, 0, True, "0/1000000")
    return dataclasses.replace(facts, **changes)  # type: ignore[arg-type]


def _base(number: int, *, good: bool = True, parent: int | None = None) -> CatalogEntry:
    at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=number)
    manifest = Manifest(
        id=f"b{number}",
        kind=BackupKind.PHYSICAL if parent is None else BackupKind.INCREMENTAL,
        cluster="c",
        parent=None if parent is None else f"b{parent}",
        started_at=at,
        finished_at=at + timedelta(hours=1),
        samplemind_version="0",
        postgres=PostgresRecord(
            database="c", server_version="18.6", tool_version="18", system_identifier="7",
            lsn=f"0/{number + 2}000000", taken_at=at,
        ),
        physical=PhysicalRecord(
            base_object="b", manifest_object="m", timeline=1, start_lsn=f"0/{number + 1}000000",
            end_lsn=f"0/{number + 2}000000",
            first_wal=WalSegment(1, number + 1).file_name(SEGMENT), segment_bytes=SEGMENT,
        ),
    )  # fmt: skip
    failed = HistoryEvent(backup_id=manifest.id, level=1, at=at, ok=False)
    return CatalogEntry(manifest.id, manifest, None, at, () if good else (failed,))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"major": 16}, "PostgreSQL 16 makes no incremental backups: 17 is the first"),
        ({"summarizes": False}, "summarize_wal = on"),
        ({"summarized_since": None}, "no summaries of all its WAL since b2"),
        ({"summarized_since": "0/3000001"}, "no summaries of all its WAL since b2"),
        ({"system_identifier": "8"}, "no good base backup of this server"),
        ({"timeline": 2}, "no good base backup of this server"),
        ({"server_version": "19.1"}, "no good base backup of this server"),
    ],
)
def test_an_incremental_is_refused_with_the_reason(changes: dict[str, object], why: str) -> None:
    entries = [_base(2, parent=1), _base(1)]
    assert choose_footing(entries, _facts(), 6).parent == entries[0].manifest
    footing = choose_footing(entries, _facts(**changes), 6)
    assert footing.parent is None
    assert why in (footing.refusal or "")


def test_an_incremental_stands_on_the_newest_chain_that_is_whole_and_short_enough() -> None:
    entries = [_base(4, parent=3), _base(3, parent=2, good=False), _base(2, parent=1), _base(1)]
    footing = choose_footing(entries, _facts(), 6)
    assert footing.parent is not None
    assert footing.parent.id == "b2"
    assert "1 incrementals: a new one begins" in (
        choose_footing(entries, _facts(), 1).refusal or ""
    )
    assert [[each.id for each in chain] for chain in usable_chains(entries)] == [
        ["b1", "b2"],
        ["b1"],
    ]
    for broken, why in (
        ([_base(4, parent=3)], "b4 stands on b3, which is missing"),
        ([_base(4, parent=4)], "b4 stands on itself"),
        (entries, "b4 stands on b3, which failed"),
    ):
        with pytest.raises(BackupError, match=why):
            find_chain("b4", broken)
