"""MongoDB in a backup: every collection of a database at one cluster time, as raw BSON.

Invariant: all collections are read with read concern snapshot at the same `atClusterTime`, each
getMore in the session that opened its cursor, so a transaction is in the backup whole or not at
all; but for capped ones, which MongoDB reads at no moment, and which no transaction writes.
Documents are never decoded: they are written back byte by byte as they were. A digest over
documents does not depend on their order.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from bson import Int64, json_util
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import ConfigurationError, OperationFailure

from samplemind.connections.mongo import translating_errors
from samplemind.errors import (
    BackupCorruptError,
    PermanentError,
    SettingsError,
    StackNotRunningError,
    TransientError,
)
from samplemind.settings import MongoSettings

Raw = CodecOptions(document_class=RawBSONDocument)
Document = dict[str, Any]

_LENGTH_BYTES = 4
_LEAST_DOCUMENT_BYTES = 5
_MOST_DOCUMENT_BYTES = 64 * 2**20
_BLOCK_BYTES = 1 << 20
_BATCH_DOCUMENTS = 10_000  # a reply holds 16 MiB at most, whatever is asked for
_INSERT_BYTES = 8 * 2**20
_INSERT_DOCUMENTS = 10_000
_SNAPSHOT_TOO_OLD = 239
_NOT_A_REPLICA_SET = 123
_MASK = (1 << 128) - 1
# Of BSON's types, those that a cursor's reply may hold.
_STRING, _ARRAY, _BINARY = 0x02, 0x04, 0x05
_FIXED_BYTES = {0x01: 8, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8}

STAGE = "samplemind.restoring."
"""Begins the names of collections that are being restored beside those that they will replace."""


@dataclass(frozen=True)
class Collection:
    """A collection or view, with what is needed to make it again."""

    name: str
    view: bool
    options: str
    """Extended JSON: validators, collation, capped, or a view's pipeline."""
    indexes: str
    """Extended JSON of the index specifications; empty list for a view."""
    size_bytes: int
    documents: int
    """As many as the server estimates; the stream's own count is the truth."""
    timeseries: bool = False
    capped: bool = False
    """MongoDB reads none of these at a moment; it is read as it stands when its turn comes."""

    @property
    def stored_as(self) -> str:
        """The collection that its documents are read from."""
        return stored_name(self.name, timeseries=self.timeseries)

    @property
    def object_name(self) -> str:
        """The object's name below its backup."""
        return f"mongo/data/{quote(self.name, safe='')}.bson"


def stored_name(name: str, *, timeseries: bool) -> str:
    """Return where the documents of a collection lie: of a time series, its buckets are copied."""
    return f"system.buckets.{name}" if timeseries else name


class DocumentDigest:
    """Counts and hashes documents such that their order does not matter."""

    def __init__(self) -> None:
        self.documents = 0
        self._sum = 0

    def add(self, raw: bytes) -> None:
        """Take one document's bytes."""
        self.documents += 1
        digest = hashlib.blake2b(raw, digest_size=16).digest()
        self._sum = (self._sum + int.from_bytes(digest, "big")) & _MASK

    @property
    def digest(self) -> str:
        """What they hash to so far."""
        return f"{self._sum:032x}"


class MongoSource:
    """One database at one cluster time."""

    def __init__(self, client: MongoClient[Document], database: str) -> None:
        """Take a client; the moment is chosen by `pin`."""
        self.client = client
        self.database = database
        self.cluster_time: Timestamp | None = None
        self.server_version = ""
        self.taken_at = datetime.now(UTC)

    def reach(self) -> None:
        """Find the server and log in, so that `pin` takes one round trip.

        Raises:
            StoreUnavailableError: it did not answer.
        """
        with translating_errors():
            self.server_version = str(self.client.server_info()["version"])

    def pin(self) -> None:
        """Choose now as the moment that everything is read at.

        Raises:
            PermanentError: the server is no member of a replica set, so it has no cluster time.
            StoreUnavailableError: it did not answer.
        """
        with translating_errors():
            hello = self.client.admin.command("hello")
        last_write = hello.get("lastWrite")
        if last_write is None:
            message = (
                "MongoDB has no cluster time: a backup of one moment needs a replica set (one "
                "member is enough)"
            )
            raise PermanentError(message)
        # A read at this time waits, if need be, until a majority has it.
        self.cluster_time = last_write["opTime"]["ts"]
        self.taken_at = datetime.now(UTC)

    def collections(self) -> list[Collection]:
        """Return what the database holds now, views last, each after those that it may read."""
        with translating_errors():
            found = [self._describe(dict(info)) for info in self._db.list_collections()]
        kept = [each for each in found if not each.name.startswith(("system.", STAGE))]
        return sorted(kept, key=lambda each: (each.view, -each.size_bytes, each.name))

    def dump(self, collection: Collection, digest: DocumentDigest) -> Iterator[bytes]:
        """Yield a collection's documents as they lay at the moment, one after another.

        Raises:
            TransientError: the moment is too long ago for the server to remember.
        """
        with translating_errors(), self.client.start_session(causal_consistency=False) as session:
            try:
                yield from _blocks(self._batches(session, collection), digest)
            except OperationFailure as error:
                if error.code == _SNAPSHOT_TOO_OLD:
                    message = (
                        "MongoDB no longer remembers the moment of the backup: raise its "
                        "minSnapshotHistoryWindowInSeconds above the time that a backup takes"
                    )
                    raise TransientError(message) from error
                raise

    def _batches(self, session: ClientSession, collection: Collection) -> Iterator[list[bytes]]:
        name = collection.stored_as
        concern = {"level": "snapshot", "atClusterTime": self.cluster_time}
        reply: Any = self._db.command(
            {
                "find": name,
                "readConcern": {"level": "majority"} if collection.capped else concern,
                "noCursorTimeout": True,
                "batchSize": _BATCH_DOCUMENTS,
            },
            codec_options=Raw,
            session=session,
        )
        while True:
            cursor, batch = read_batch(bytes(reply["cursor"].raw))
            yield batch
            if not cursor:
                return
            reply = self._db.command(
                {"getMore": Int64(cursor), "collection": name, "batchSize": _BATCH_DOCUMENTS},
                codec_options=Raw,
                session=session,
            )

    def _describe(self, info: Document) -> Collection:
        name, view = info["name"], info["type"] == "view"
        indexes: list[Any] = [] if view else list(self._db[name].list_indexes())
        stats = {"size": 0, "count": 0} if view else self._db.command("collStats", name)
        return Collection(
            name=name,
            view=view,
            options=json_util.dumps(info.get("options", {}), json_options=_CANONICAL),
            indexes=json_util.dumps([dict(each) for each in indexes], json_options=_CANONICAL),
            size_bytes=int(stats["size"]),
            documents=int(stats.get("count", 0)),
            timeseries=info["type"] == "timeseries",
            capped=bool(info.get("options", {}).get("capped")),
        )

    @property
    def _db(self) -> "Database[Document]":
        return self.client[self.database]


_CANONICAL = json_util.CANONICAL_JSON_OPTIONS


@contextmanager
def connect(settings: MongoSettings) -> Iterator[MongoClient[Document]]:
    """Open a client for a backup's threads and close it at the end of the block.

    Raises:
        StackNotRunningError: the settings hold no URL.
        SettingsError: the URL is no MongoDB URL.
    """
    if settings.url is None:
        message = "no address for mongo: start the embedded stack, or set SAMPLEMIND_MONGO_URL"
        raise StackNotRunningError(message)
    try:
        client: MongoClient[Document] = MongoClient(
            settings.url.get_secret_value(),
            appname="samplemind-backup",
            serverSelectionTimeoutMS=settings.timeout_ms,
            connectTimeoutMS=5_000,
            uuidRepresentation="standard",
            tz_aware=True,
        )
    except (ConfigurationError, ValueError):
        # The cause would print the URL and its password.
        message = "SAMPLEMIND_MONGO_URL is no MongoDB URL that can be used"
        raise SettingsError(message) from None
    try:
        yield client
    finally:
        client.close()


def read_batch(cursor: bytes) -> tuple[int, list[bytes]]:
    """Return a cursor's id (0: it is at its end) and the documents of one reply, as bytes.

    The driver would make an object of each document, which takes longer than all else that is done
    with it here.
    """
    cursor_id = 0
    documents: list[bytes] = []
    for kind, name, start, end in _elements(cursor):
        if name == b"id":
            cursor_id = int.from_bytes(cursor[start:end], "little", signed=True)
        elif kind == _ARRAY and name in (b"firstBatch", b"nextBatch"):
            documents = _array_of_documents(cursor[start:end])
    return cursor_id, documents


def _elements(raw: bytes) -> Iterator[tuple[int, bytes, int, int]]:
    """Yield type, name and place of each element of a document (bsonspec.org)."""
    at, end = _LENGTH_BYTES, len(raw) - 1
    while at < end:
        kind = raw[at]
        stop = raw.index(0, at + 1)
        start = stop + 1
        if kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
        else:
            size = int.from_bytes(raw[start : start + _LENGTH_BYTES], "little")
            # Of documents and arrays the length counts itself; of strings and binaries it does not.
            size += {_STRING: _LENGTH_BYTES, _BINARY: _LENGTH_BYTES + 1}.get(kind, 0)
        yield kind, raw[at + 1 : stop], start, start + size
        at = start + size


def _array_of_documents(raw: bytes) -> list[bytes]:
    """Return the elements of an array that holds nothing but documents."""
    documents = []
    at, end, number = _LENGTH_BYTES, len(raw) - 1, 0
    while at < end:
        # Its type, its index as digits, and a zero.
        at += 2 + len(str(number))
        length = int.from_bytes(raw[at : at + _LENGTH_BYTES], "little")
        documents.append(raw[at : at + length])
        at += length
        number += 1
    return documents


def split_documents(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield each document's bytes from a stream of them.

    Raises:
        BackupCorruptError: the stream ends within a document or has an impossible length.
    """
    rest = b""
    for block in blocks:
        data = rest + block
        at, end = 0, len(data)
        while end - at >= _LENGTH_BYTES:
            length = int.from_bytes(data[at : at + _LENGTH_BYTES], "little")
            if not _LEAST_DOCUMENT_BYTES <= length <= _MOST_DOCUMENT_BYTES:
                message = f"a document claims to have {length} bytes"
                raise BackupCorruptError(message)
            if end - at < length:
                break
            yield data[at : at + length]
            at += length
        rest = data[at:]
    if rest:
        message = "the stream ends within a document"
        raise BackupCorruptError(message)


def create_collection(database: "Database[Document]", name: str, options: str) -> None:
    """Make a collection or view anew with its options."""
    with translating_errors():
        database.command({"create": name, **json_util.loads(options, json_options=_CANONICAL)})


def drop_staged(database: "Database[Document]") -> None:
    """Remove what restores have left beside the collections."""
    with translating_errors():
        for name in database.list_collection_names(filter={"name": {"$regex": f"^{STAGE}"}}):
            database.drop_collection(name)


def switch_collections(
    database: "Database[Document]",
    prefix: str,
    views: Iterable[tuple[str, str]],
    series: Iterable[str],
    *,
    whole: bool,
) -> None:
    """Give restored collections their names, in place of those that have them.

    Args:
        database: where both lie.
        prefix: of the restored ones.
        views: name and options of each view of the backup, in the order in which they are made.
        series: names of time series, which cannot be renamed and are restored afterwards.
        whole: whether everything goes that the backup does not have.
    """
    views = list(views)
    made_anew = {name for name, _ in views} | set(series)
    with translating_errors():
        there = [dict(info) for info in database.list_collections()]
        staged = [info["name"] for info in there if info["name"].startswith(prefix)]
        coming = {name.removeprefix(prefix) for name in staged} | made_anew
        # A rename replaces a collection, but no view; views first, as they read the others.
        for info in sorted(there, key=lambda info: info["type"] != "view"):
            name = info["name"]
            if name.startswith(("system.", prefix)):
                continue
            replaced = name in coming and info["type"] != "collection"
            if replaced or (whole and name not in coming) or name in made_anew:
                database.drop_collection(name)
        for name in staged:
            database.client.admin.command(
                {
                    "renameCollection": f"{database.name}.{name}",
                    "to": f"{database.name}.{name.removeprefix(prefix)}",
                    "dropTarget": True,
                }
            )
        for name, options in views:
            create_collection(database, name, options)
    drop_staged(database)  # of restores that were killed
    await_majority(database)


def restore_documents(
    database: "Database[Document]", name: str, blocks: Iterable[bytes], digest: DocumentDigest
) -> None:
    """Insert a stream of documents, byte by byte as they were; validators do not look again."""
    collection = database[name].with_options(codec_options=CodecOptions(RawBSONDocument))
    batch: list[RawBSONDocument] = []
    size = 0
    with translating_errors():
        for raw in split_documents(blocks):
            digest.add(raw)
            batch.append(RawBSONDocument(raw))
            size += len(raw)
            if size >= _INSERT_BYTES or len(batch) >= _INSERT_DOCUMENTS:
                _insert(collection, batch)
                batch, size = [], 0
        if batch:
            _insert(collection, batch)


def _insert(collection: Any, batch: list[RawBSONDocument]) -> None:
    # Older documents may have been written before their validator was.
    collection.insert_many(batch, ordered=False, bypass_document_validation=True)


def create_indexes(database: "Database[Document]", name: str, indexes: str) -> int:
    """Build a collection's indexes in one pass; return how many."""
    specifications = [
        {key: value for key, value in each.items() if key not in ("v", "ns")}
        for each in json_util.loads(indexes, json_options=_CANONICAL)
        if each["name"] != "_id_"
    ]
    if specifications:
        with translating_errors():
            database.command({"createIndexes": name, "indexes": specifications})
    return len(specifications)


def digest_collection(database: "Database[Document]", name: str) -> DocumentDigest:
    """Return what the documents of a collection (of a time series, its buckets) hash to now."""
    digest = DocumentDigest()
    collection = database[name].with_options(codec_options=CodecOptions(RawBSONDocument))
    with translating_errors():
        blocks: Any = collection.find_raw_batches()  # bytes, whatever the driver's types say
        for raw in split_documents(blocks):
            digest.add(raw)
    return digest


def await_majority(database: "Database[Document]") -> None:
    """Return when everything that was written before is durable."""
    with translating_errors():
        marker = f"samplemind_restore_{time.time_ns()}"
        database.command(
            {"create": marker, "writeConcern": {"w": "majority", "j": True, "wtimeout": 60_000}}
        )
        database.drop_collection(marker)


def _blocks(batches: Iterable[list[bytes]], digest: DocumentDigest) -> Iterator[bytes]:
    parts: list[bytes] = []
    size = 0
    for batch in batches:
        for raw in batch:
            digest.add(raw)
            size += len(raw)
        parts += batch
        if size >= _BLOCK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)
