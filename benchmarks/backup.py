"""Backups beside PostgreSQL's own tools, over a database of rows, text and vectors.

BENCH_BACKUP_ROWS sets its size: 400000 makes some 1.7 GB. Everything is encrypted, and
goes to a real S3 server on loopback where the rclone wheel is installed, else to a folder.

BENCH_BACKUP_HOME keeps the databases for the next run, and
BENCH_BACKUP_PIECES chooses what is measured, so that a large database is built once and
measured in pieces: backups, foreground, memory, documents, verifications, restores, physical.
"""

import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from pydantic import SecretStr

from benchmarks.row import Row, row
from samplemind.backup import mongo as mongo_store
from samplemind.backup.control import Control
from samplemind.backup.database_backup import DatabaseBackup
from samplemind.backup.manifest import BackupKind, Manifest
from samplemind.backup.postgres_tools import PostgresTools, Server, find_tools
from samplemind.backup.scratch import RecoveryTarget
from samplemind.backup.verification import Level
from samplemind.backup.wal import drop_slot
from samplemind.embedded.stack import EmbeddedStack
from samplemind.endpoints import Store
from samplemind.settings import (
    BackupSettings,
    Settings,
    StorageKind,
    StorageSettings,
    load_settings,
)
from samplemind.storage.opening import open_store
from samplemind.urls import libpq_url

ROWS = int(os.environ.get("BENCH_BACKUP_ROWS", "100000"))
HOME = os.environ.get("BENCH_BACKUP_HOME")
PIECES = (
    "backups",
    "foreground",
    "memory",
    "documents",
    "verifications",
    "restores",
    "physical",
)
CHOSEN = os.environ.get("BENCH_BACKUP_PIECES", ",".join(PIECES)).split(",")
_LOGIN = "samplemind,samplemind-secret"
_KEY = base64.b64encode(b"benchmark key of 32 bytes length"[:32]).decode()
_TABLES = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE samples (id bigint PRIMARY KEY, title text, data jsonb, tags text[], words tsvector);
INSERT INTO samples SELECT i, 'Deep kick ' || i || ' ' || md5(i::text),
    jsonb_build_object('bpm', 90 + i % 80, 'key', 'F# minor', 'path', '/packs/' || md5(i::text)),
    ARRAY['kick', 'dark', 'p' || i % 500],
    to_tsvector('english', 'deep dark kicks ' || md5(i::text))
FROM generate_series(1, {rows}) i;
CREATE INDEX ON samples USING gin (words);
CREATE TABLE vectors (id bigint PRIMARY KEY, e vector(128));
INSERT INTO vectors SELECT i,
    (SELECT array_agg((random() - 0.5)::real) FROM generate_series(1, 128 + 0 * i))::vector
FROM generate_series(1, {rows}) i;
CREATE TABLE job_log (id bigint PRIMARY KEY, at timestamptz, state text, note text);
INSERT INTO job_log SELECT i, now() - i * interval '1 s', 'done', md5(i::text) || md5((i * 7)::text)
FROM generate_series(1, {rows} * 4) i;
CREATE INDEX ON job_log (at);
SET maintenance_work_mem = '1GB';
CREATE INDEX near ON vectors USING hnsw (e vector_l2_ops);
ANALYZE;
"""


def rows(*, quick: bool) -> list[Row]:
    """Return the rows of backup, verification and restore."""
    count = 20_000 if quick else ROWS
    with _stack() as settings, _store(settings) as stored:
        assert stored.postgres.url is not None
        server = Server(stored.postgres.url)
        _fill(stored, server, count)
        bench = _Bench(DatabaseBackup(settings=stored), server, find_tools(18), stored)
        return [found for piece in CHOSEN for found in getattr(bench, piece)()]


@dataclass
class _Bench:
    backup: DatabaseBackup
    server: Server
    tools: PostgresTools
    settings: Settings
    full_restore_s: float | None = None
    """Of the logical backup, once that was measured; the physical one is compared with it."""

    def backups(self) -> list[Row]:
        with tempfile.TemporaryDirectory() as folder:
            dump = self.tools.path("pg_dump")
            environment = self.server.environment()
            piped = _seconds(
                lambda: _shell(
                    f'"{dump}" -Fc -Z0 | zstd -q -1 -T2 -o "{folder}/piped.zst"', environment
                )
            )
            plain = _seconds(lambda: self._dump_and_upload(dump, Path(folder) / "plain.dump"))
        began = time.perf_counter()
        made = self._create()
        seconds = time.perf_counter() - began
        postgres_bytes = sum(
            record.size_bytes for record in made.objects if record.name.startswith("postgres/")
        )
        assert made.postgres is not None
        share = postgres_bytes / made.postgres.source_bytes
        return [
            row(
                f"logical backup of {made.source_bytes / 1e6:.0f} MB, encrypted, to the store",
                seconds,
                "s",
                peer=("pg_dump -Fc -Z0 | zstd -1 -T2 to a file", piped),
                ratio=piped / seconds,
                goal="≤ 1.2 ×",
                met=seconds <= 1.2 * piped,
            ),
            row(
                "the same",
                seconds,
                "s",
                peer=("pg_dump -Fc to a file, then uploaded", plain),
                ratio=plain / seconds,
                goal="≥ 5 × faster",
                met=plain >= 5 * seconds,
            ),
            row(
                "stored size of the database's",
                share * 100,
                "%",
                goal="≤ 21",
                met=share <= 0.21,
            ),
        ]

    def _dump_and_upload(self, dump: str, path: Path) -> None:
        _shell(f'"{dump}" -Fc -f "{path}"', self.server.environment())
        store = open_store(self.settings.storage, self.settings.home)
        with path.open("rb") as file:
            store.put_stream("plain.dump", iter(lambda: file.read(1 << 20), b""))
        store.delete("plain.dump")
        store.close()

    def memory(self) -> list[Row]:
        memory_mib = self._memory_mib()
        return [
            row(
                "peak memory of the backup's process",
                memory_mib,
                "MiB",
                goal="≤ 300",
                met=memory_mib <= 300,
            ),
        ]

    def foreground(self) -> list[Row]:
        quiet = self._p95(lambda: time.sleep(5))
        commanded = self._p95(self._create)
        as_job = self._p95(self._create_as_job)
        return [
            row(
                "foreground p95 during a backup that is a job",
                as_job * 1000,
                "ms",
                peer=("without", quiet * 1000),
                ratio=quiet / as_job,
                goal="≤ 1.2 ×",
                met=as_job <= 1.2 * quiet,
            ),
            row(
                "foreground p95 during a backup that somebody waits for",
                commanded * 1000,
                "ms",
                peer=("without", quiet * 1000),
                ratio=quiet / commanded,
            ),
        ]

    def documents(self) -> list[Row]:
        name = self.settings.mongo.database
        with mongo_store.connect(self.settings.mongo) as client:
            source = mongo_store.MongoSource(client, name)
            source.pin()
            collections = source.collections()
            blocks: dict[str, list[bytes]] = {}
            size = sum(each.size_bytes for each in collections)

            def read() -> None:
                for each in collections:
                    blocks[each.name] = list(source.dump(each, mongo_store.DocumentDigest()))

            def write() -> None:
                for each in collections:
                    digest = mongo_store.DocumentDigest()
                    mongo_store.restore_documents(
                        client[f"{name}_copy"], each.name, blocks[each.name], digest
                    )

            reading, writing = _seconds(read), _seconds(write)
            client.drop_database(f"{name}_copy")
        return [
            row(
                "MongoDB at one moment, read and hashed, one thread",
                size / reading / 1e6,
                "MB/s",
                goal="≥ 140",
                met=size / reading / 1e6 >= 140,
            ),
            row("MongoDB restored, one thread", size / writing / 1e6, "MB/s"),
        ]

    def verifications(self) -> list[Row]:
        made = self._create()
        seconds = _seconds(lambda: self._verify(made, Level.CHECKSUMS))
        restored = _seconds(lambda: self._verify(made, Level.RESTORED))
        rate = made.stored_bytes / seconds / 1e6
        return [
            row("verification at level 1", rate, "MB/s", goal="≥ 150", met=rate >= 150),
            row(
                "verification at level 3, without vector indexes",
                restored,
                "s",
                goal="< 30",
                met=restored < 30,
            ),
        ]

    def restores(self) -> list[Row]:
        peer = self._peer_restore()
        made = self._create()
        name = f"{self.server.database}_copy"
        report = self.backup.restore_backup(made.id, into=name)
        # The peer restores PostgreSQL alone.
        data_s = report.data_s - report.documents_s
        open_s = report.open_s - report.documents_s
        full_s = report.seconds - report.documents_s
        self.full_restore_s = full_s
        with self.server.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        return [
            row(
                "restored from the store, 4 jobs: data",
                data_s,
                "s",
                peer=("pg_restore -j4 from a directory dump", peer["data"]),
                ratio=peer["data"] / data_s,
                goal="≤ 0.8 ×",
                met=data_s <= 0.8 * peer["data"],
            ),
            row(
                "open for traffic, vector index deferred",
                open_s,
                "s",
                peer=("the full restore", full_s),
                ratio=full_s / open_s,
                goal="≤ 0.4 ×",
                met=open_s <= 0.4 * full_s,
            ),
            row(
                "the full restore",
                full_s,
                "s",
                peer=("pg_restore -j4", peer["full"]),
                ratio=peer["full"] / full_s,
            ),
        ]

    def physical(self) -> list[Row]:
        physical = self._physical_restore()
        full_s = self.full_restore_s
        return [
            row(
                "physical restore, to the server's first answer",
                physical,
                "s",
                peer=None if full_s is None else ("the full restore", full_s),
                ratio=None if full_s is None else full_s / physical,
                goal="≤ 0.2 ×",
                met=None if full_s is None else physical <= 0.2 * full_s,
            ),
        ]

    def _physical_restore(self) -> float:
        try:
            self.backup.create_backup(BackupKind.PHYSICAL)
        finally:
            drop_slot(self.server)
        with tempfile.TemporaryDirectory(prefix="samplemind-bench-") as folder:
            Path(folder).chmod(0o711)
            began = time.perf_counter()
            with self.backup.recover(RecoveryTarget(immediate=True), Path(folder) / "data"):
                return time.perf_counter() - began

    def _peer_restore(self) -> dict[str, float]:
        target = self.server.with_database(f"{self.server.database}_peer")
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            dump, restore = (self.tools.path(name) for name in ("pg_dump", "pg_restore"))
            _shell(f'"{dump}" -Fd -j2 -f "{folder}/dump"', self.server.environment())
            environment = target.environment(maintenance_work_mem="1GB")
            began = time.perf_counter()
            for section, jobs in (("pre-data", 1), ("data", 4), ("post-data", 4)):
                with self.server.connect() as connection:
                    if section == "pre-data":
                        connection.execute(f"DROP DATABASE IF EXISTS {target.database}")
                        connection.execute(f"CREATE DATABASE {target.database}")
                _shell(
                    f'"{restore}" --section={section} -j{jobs} -d {target.database} '
                    f'"{folder}/dump"',
                    environment,
                )
                found[section] = time.perf_counter() - began
        with self.server.connect() as connection:
            connection.execute(f"DROP DATABASE {target.database}")
        return {"data": found["data"], "full": found["post-data"]}

    def _create(self) -> Manifest:
        return self.backup.create_backup(control=Control())

    def _create_as_job(self) -> Manifest:
        beside = self.settings.backup.beside_queries()
        backup = DatabaseBackup(settings=self.settings.model_copy(update={"backup": beside}))
        return backup.create_backup(control=backup.control())

    def _verify(self, made: Manifest, level: Level) -> None:
        found = self.backup.verify_backup(made.id, level=level)
        assert found.ok, found.problems

    def _memory_mib(self) -> float:
        """Return the peak of a process that makes a backup as an operator does."""
        process = subprocess.Popen(
            [Path(sys.executable).with_name("samplemind"), "backup", "create"],
            env=_environment(self.settings),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_maxrss / 1024

    def _p95(self, work: Callable[[], object]) -> float:
        """Return the 95th percentile of a service's queries, asked while the work is done."""
        url = libpq_url(self.server.url.get_secret_value())
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.foreground"],
            env={**os.environ, "FOREGROUND_URL": url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        work()
        told, _ = process.communicate()
        return float(statistics.quantiles(json.loads(told), n=20)[-1])


@contextmanager
def _stack() -> Iterator[Settings]:
    with ExitStack() as places:
        name = HOME or places.enter_context(tempfile.TemporaryDirectory(prefix="samplemind-bench-"))
        home = Path(name)
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o711)  # as root, PostgreSQL runs as another account, which must get in
        stack = EmbeddedStack(home, (Store.POSTGRES, Store.MONGO))
        try:
            yield load_settings().model_copy(update={"home": home}).with_urls(stack.start())
        finally:
            stack.stop()


@contextmanager
def _store(settings: Settings) -> Iterator[Settings]:
    """Settings with a key, and with an S3 server where the wheel has one."""
    backup = BackupSettings.model_validate({"keys": {"bench": _KEY}})
    settings = settings.model_copy(update={"backup": backup})
    rclone = Path(sys.executable).with_name("rclone")
    if not rclone.is_file():
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="samplemind-bench-") as root, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        (Path(root) / "backups").mkdir()
        server = subprocess.Popen(
            [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", _LOGIN, root],
            env={"HOME": root, "RCLONE_CONFIG": f"{root}/none.conf"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _await_port(port)
            user, _, secret = _LOGIN.partition(",")
            storage = StorageSettings(
                kind=StorageKind.S3,
                bucket="backups",
                endpoint=f"http://127.0.0.1:{port}",
                access_key=SecretStr(user),
                secret_key=SecretStr(secret),
            )
            yield settings.model_copy(update={"storage": storage})
        finally:
            server.kill()
            server.wait()


def _fill(settings: Settings, server: Server, count: int) -> None:
    with server.connect() as connection:
        if _is_filled(connection, count):
            return
        connection.execute("DROP TABLE IF EXISTS samples, vectors, job_log")
        connection.execute(_TABLES.format(rows=count))
    with mongo_store.connect(settings.mongo) as client:
        documents = client[settings.mongo.database]["audio_files"]
        documents.drop()
        for start in range(0, count, 10_000):
            documents.insert_many(
                {"_id": n, "path": f"/packs/{n}.wav", "blocks": os.urandom(300), "note": "x" * 300}
                for n in range(start, start + 10_000)
            )
    with server.connect() as connection:
        connection.execute(f"COMMENT ON TABLE samples IS '{count}'")


def _is_filled(connection: psycopg.Connection, count: int) -> bool:
    """Tell whether a run before has left these databases behind; the comment was its last word."""
    row = connection.execute("SELECT obj_description(to_regclass('samples'))").fetchone()
    return row is not None and row[0] == str(count)


def _environment(settings: Settings) -> dict[str, str]:
    storage = settings.storage
    urls = (settings.postgres.url, settings.mongo.url, storage.access_key, storage.secret_key)
    postgres, mongo, user, secret = (url.get_secret_value() if url else "" for url in urls)
    return {
        **os.environ,
        "SAMPLEMIND_HOME": str(settings.home),
        "SAMPLEMIND_POSTGRES_URL": postgres,
        "SAMPLEMIND_MONGO_URL": mongo,
        "SAMPLEMIND_BROKER_URL": "redis://127.0.0.1:1/0",
        "SAMPLEMIND_CACHE_URL": "redis://127.0.0.1:1/0",
        "SAMPLEMIND_STORAGE_KIND": storage.kind.value,
        "SAMPLEMIND_STORAGE_BUCKET": storage.bucket or "",
        "SAMPLEMIND_STORAGE_ENDPOINT": storage.endpoint or "",
        "SAMPLEMIND_STORAGE_ACCESS_KEY": user,
        "SAMPLEMIND_STORAGE_SECRET_KEY": secret,
        "SAMPLEMIND_BACKUP_KEYS": f'{{"bench": "{_KEY}"}}',
    }


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _shell(command: str, environment: dict[str, str]) -> None:
    subprocess.run(["/bin/sh", "-c", command], env=environment, check=True)
