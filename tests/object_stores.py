"""Servers that speak the protocols of object stores, for tests: each on a free loopback port.

Invariant: a server that was started is stopped by its own handle at the end, with its data in a
temporary directory.
"""

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
from pydantic import SecretStr

from samplemind.settings import StorageKind, StorageSettings

ACCESS_KEY = "samplemind"
SECRET_KEY = "samplemind-secret"
BUCKET = "backups"

_BIN = Path(sys.executable).parent
_START_S = 30
_AZURITE_VERSION = "3.37.0"
_AZURITE_HOME = _BIN.parent / "azurite"
_INSTALL_S = 120
# Azurite's own, in its documentation for everybody.
_AZURITE_ACCOUNT = "devstoreaccount1"
_AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RcloneServer:
    """`rclone serve s3` over a directory; may be killed and started again on its port."""

    def __init__(self, root: Path, *, auth_key: str = f"{ACCESS_KEY},{SECRET_KEY}") -> None:
        self.root = root
        self._auth_key = auth_key
        (root / BUCKET).mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> StorageSettings:
        return s3_settings(self.port)

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                _BIN / "rclone",
                "serve",
                "s3",
                "--addr",
                f"127.0.0.1:{self.port}",
                "--auth-key",
                self._auth_key,
                str(self.root),
            ],
            env={"HOME": str(self.root), "RCLONE_CONFIG": str(self.root / "none.conf")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _await_http(self.port, self._process)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def s3_settings(port: int) -> StorageSettings:
    return StorageSettings(
        kind=StorageKind.S3,
        bucket=BUCKET,
        endpoint=f"http://127.0.0.1:{port}",
        access_key=SecretStr(ACCESS_KEY),
        secret_key=SecretStr(SECRET_KEY),
        part_mib=5,
        timeout_s=10,
        attempts=3,
    )


@contextmanager
def rclone_server(root: Path) -> Iterator[RcloneServer]:
    server = RcloneServer(root)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def moto_server() -> Iterator[StorageSettings]:
    import boto3

    port = free_port()
    with _running([_BIN / "moto_server", "-H", "127.0.0.1", "-p", str(port)], port):
        settings = s3_settings(port)
        boto3.client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        ).create_bucket(Bucket=BUCKET)
        yield settings


@contextmanager
def azurite_server(root: Path) -> Iterator[StorageSettings]:
    from azure.storage.blob import BlobServiceClient

    port = free_port()
    command = [
        _azurite(),
        "--blobPort",
        str(port),
        "--location",
        str(root),
        "--silent",
        "--skipApiVersionCheck",  # it lags behind the client's
        "--disableTelemetry",
    ]
    with _running(command, port):
        endpoint = f"http://127.0.0.1:{port}/{_AZURITE_ACCOUNT}"
        credential = {"account_name": _AZURITE_ACCOUNT, "account_key": _AZURITE_KEY}
        with BlobServiceClient(endpoint, credential=credential) as service:
            service.create_container(BUCKET)
        yield StorageSettings(
            kind=StorageKind.AZURE,
            bucket=BUCKET,
            endpoint=endpoint,
            access_key=SecretStr(_AZURITE_ACCOUNT),
            secret_key=SecretStr(_AZURITE_KEY),
            part_mib=5,
            timeout_s=10,
            attempts=3,
        )


@contextmanager
def google_server() -> Iterator[StorageSettings]:
    import requests

    port = free_port()
    command = [
        _BIN / "gcp-storage-emulator",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--in-memory",
        "--default-bucket",
        BUCKET,
        "--quiet",
    ]
    with _running(command, port):
        endpoint = f"http://127.0.0.1:{port}"
        assert requests.get(f"{endpoint}/storage/v1/b/{BUCKET}", timeout=5).ok
        yield StorageSettings(
            kind=StorageKind.GCS,
            bucket=BUCKET,
            endpoint=endpoint,
            part_mib=5,
            timeout_s=10,
            attempts=3,
        )


def _azurite() -> Path:
    # Once for a checkout: `make setup-dev` needs no Node, and where there is none this is skipped.
    program = _AZURITE_HOME / "node_modules" / ".bin" / "azurite-blob"
    if program.exists():
        return program
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("Azurite needs npm, which is not installed")
    package = f"azurite@{_AZURITE_VERSION}"
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(_AZURITE_HOME), package]
    try:
        installed = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install Azurite within {_INSTALL_S} s")
    if installed.returncode:
        pytest.skip(f"npm could not install Azurite: {installed.stderr.strip()[-200:]}")
    return program


@contextmanager
def _running(command: list[str | Path], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_http(port, process)
        yield
    finally:
        process.terminate()
        process.wait()


def _await_http(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        assert process.poll() is None, "the server ended at its start"
        try:
            with urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                return
        except HTTPError:
            return  # it speaks
        except (URLError, OSError):
            time.sleep(0.05)
    raise AssertionError("the server did not come up in time")


class FaultyProxy:
    """Passes TCP connections on to a server, and does them harm when told to.

    `refuse` closes each connection at once, `reset_after` cuts it after so many bytes of the
    client's, `silent` accepts and never answers, `answers_500` answers every request itself,
    `bytes_per_s` is how fast a connection passes what the client sends.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.refuse = False
        self.silent = False
        self.bytes_per_s: int | None = None
        self.answers_500 = 0
        self.reset_after: int | None = None
        self.resets = 0
        self.max_resets: int | None = None
        self.cut_answer_after: int | None = None
        self._open: set[socket.socket] = set()
        self._closed = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        # Closing alone does not wake a thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            connection.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self.silent:
                while client.recv(1 << 16):
                    pass
                return
            if self.refuse:
                return
            if self.answers_500:
                self.answers_500 -= 1
                self._answer_500(client)
                return
            with socket.create_connection(("127.0.0.1", self._target_port)) as server:
                back = threading.Thread(target=self._back, args=(server, client), daemon=True)
                back.start()
                self._forth(client, server)
                back.join(30)
        except OSError:
            pass  # one of the two hung up, which is what this is about
        finally:
            self._open.discard(client)
            client.close()

    def _forth(self, client: socket.socket, server: socket.socket) -> None:
        passed = 0
        while block := client.recv(1 << 16):
            passed += len(block)
            if self._may_reset() and self.reset_after is not None and passed > self.reset_after:
                self._reset(client)
                # Closing alone would wait for the other thread, which reads from it.
                server.shutdown(socket.SHUT_RDWR)
                return
            server.sendall(block)
            if self.bytes_per_s is not None:
                time.sleep(len(block) / self.bytes_per_s)
        server.shutdown(socket.SHUT_WR)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        try:
            while block := server.recv(1 << 16):
                passed += len(block)
                limit = self.cut_answer_after
                if self._may_reset() and limit is not None and passed > limit:
                    self._reset(client)
                    return
                client.sendall(block)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one of the two hung up

    def _may_reset(self) -> bool:
        return self.max_resets is None or self.resets < self.max_resets

    def _reset(self, client: socket.socket) -> None:
        self.resets += 1
        # Lingering for no time makes the close a reset.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.shutdown(socket.SHUT_RDWR)
        client.close()

    @staticmethod
    def _answer_500(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (block := client.recv(1 << 16)):
            head += block
        client.sendall(
            b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        client.shutdown(socket.SHUT_WR)
        while client.recv(1 << 16):  # reading on, so that the answer is not lost to a reset
            pass
