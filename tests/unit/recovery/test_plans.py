"""What backups decide and parse without any server."""

import io
import itertools
import struct
import tarfile
from datetime import UTC, datetime

import pytest
from bson import encode
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from samplemind.backup.control import Control, Step
from samplemind.backup.logical import plan_segments
from samplemind.backup.mongo import DocumentDigest, split_documents
from samplemind.backup.physical import ManifestTap
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
