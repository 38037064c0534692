"""A store that is down, slow, refusing, resetting or dying: what each leads to.

| fault | expected |
|---|---|
| down before and during an upload | StoreUnavailableError in bounded time, no object |
| comes back while a request is repeated | the upload succeeds |
| answers 500 for a while, resets connections | repeated by part, the upload succeeds |
| never answers | StoreUnavailableError after the timeout, no object |
| resets in the middle of a download | the download goes on, each byte once |
| killed and restarted in the middle of an upload | StoreUnavailableError, no object, retry works |
| the uploader killed | no object; `abort_uploads` finds what it left |
| wrong credentials, no bucket, disk full | SecretError, StorageError: not to be repeated |
"""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from samplemind.errors import (
    NotFoundError,
    SampleMindError,
    SecretError,
    StorageError,
    StoreUnavailableError,
)
from samplemind.settings import ServerSideEncryption, StorageSettings
from samplemind.storage.local import LocalStore
from samplemind.storage.s3 import S3Store
from samplemind.storage.store import ObjectStore, read_small
from tests.object_stores import FaultyProxy, RcloneServer, moto_server, rclone_server, s3_settings

_PART = 5 * 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    with rclone_server(tmp_path_factory.mktemp("rclone")) as running:
        yield running


@pytest.fixture
def proxy(server: RcloneServer) -> Iterator[FaultyProxy]:
    passing = FaultyProxy(server.port)
    yield passing
    passing.close()


def _through(proxy: FaultyProxy, **changes: object) -> S3Store:
    return S3Store(s3_settings(proxy.port).model_copy(update=changes))


def _absent(server: RcloneServer, key: str) -> bool:
    try:
        S3Store(server.settings).head(key)
    except NotFoundError:
        return True
    return False


def test_a_store_that_is_down_is_told_in_bounded_time(proxy: FaultyProxy, server: RcloneServer):
    proxy.refuse = True
    store = _through(proxy)
    for call in (
        lambda: store.put_stream("down", [b"x"]),
        lambda: store.put_stream("down", [os.urandom(3 * _PART)]),
        lambda: store.put_if_absent("down", b"x"),
        lambda: store.head("down"),
        lambda: list(store.list("")),
        lambda: list(store.get_stream("down")),
        lambda: store.delete("down"),
        lambda: store.abort_uploads("", timedelta(0)),
    ):
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            call()
        assert time.monotonic() - began < 60
    assert _absent(server, "down")


def test_a_store_that_never_answers_is_given_up(proxy: FaultyProxy, server: RcloneServer):
    proxy.silent = True
    with pytest.raises(StoreUnavailableError):
        _through(proxy, attempts=1, timeout_s=1).put_stream("silent", [b"x"])
    assert _absent(server, "silent")


def test_errors_of_the_server_are_repeated(proxy: FaultyProxy):
    proxy.answers_500 = 2
    store = _through(proxy, attempts=4)
    content = os.urandom(3 * _PART)
    written = store.put_stream("500", [content])
    assert written.size_bytes == len(content)
    assert b"".join(store.get_stream("500")) == content


def test_a_reset_in_an_upload_repeats_that_part(proxy: FaultyProxy):
    proxy.reset_after, proxy.max_resets = 2_000_000, 2
    content = os.urandom(3 * _PART)
    store = _through(proxy, attempts=5)
    store.put_stream("reset", [content])
    assert proxy.resets == 2
    assert b"".join(store.get_stream("reset")) == content


def test_a_download_that_is_cut_goes_on_where_it_ended(proxy: FaultyProxy):
    content = os.urandom(2 * _PART)
    store = _through(proxy, attempts=5)
    store.put_stream("cut", [content])
    proxy.cut_answer_after, proxy.max_resets = 3_000_000, 3
    assert b"".join(store.get_stream("cut")) == content
    assert proxy.resets == 3
    proxy.max_resets = 6
    assert b"".join(store.get_stream("cut", 17, 9_000_000)) == content[17 : 17 + 9_000_000]


def test_a_server_that_restarts_in_an_upload_loses_it_whole(tmp_path: Path):
    with rclone_server(tmp_path) as server:
        store = S3Store(server.settings)

        def interrupted() -> Iterator[bytes]:
            yield os.urandom(3 * _PART)
            server.stop()
            server.start()
            yield os.urandom(3 * _PART)

        with pytest.raises(StoreUnavailableError):
            store.put_stream("lost", interrupted())
        assert _absent(server, "lost")
        store.put_stream("lost", [os.urandom(3 * _PART)])
        assert not _absent(server, "lost")


_UPLOADER = """
import os, sys
from samplemind.storage.s3 import S3Store
from tests.object_stores import s3_settings
def blocks():
    for number in range(10000):
        if number == 40:
            print("ready", flush=True)
        yield os.urandom(1 << 20)
S3Store(s3_settings(int(sys.argv[1]))).put_stream("k/killed", blocks())
"""


def test_what_a_killed_uploader_left_is_found_and_removed(tmp_path: Path):
    with rclone_server(tmp_path) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", _UPLOADER, str(server.port)],
            stdout=subprocess.PIPE,
            cwd=Path.cwd(),
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        process.wait()
        process.stdout.close()
        store: ObjectStore = S3Store(server.settings)
        assert list(store.list("")) == []
        assert store.abort_uploads("k/", timedelta(hours=1)) == 0, "it may be at work still"
        assert store.abort_uploads("other/", -timedelta(seconds=5)) == 0
        assert store.abort_uploads("k/", -timedelta(seconds=5)) == 1
        assert store.abort_uploads("k/", -timedelta(seconds=5)) == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"secret_key": SecretStr("another-secret")}, SecretError),
        ({"access_key": SecretStr("another")}, SecretError),
        ({"bucket": "nowhere"}, StorageError),
    ],
)
def test_what_repeating_cannot_mend_is_told_at_once(
    server: RcloneServer, change: dict[str, object], error: type[SampleMindError]
):
    settings: StorageSettings = server.settings.model_copy(update=change)
    with pytest.raises(error) as caught:
        S3Store(settings).put_stream("refused", [b"x"])
    assert "another-secret" not in str(caught.value)


def test_a_condition_holds_against_a_writer_that_is_faster():
    with moto_server() as settings:
        first, second = S3Store(settings), S3Store(settings)
        found = first._found

        def look_then_lose(name: str) -> bool:
            seen = found(name)
            second.put_stream("race", [b"second"])
            return seen

        first._found = look_then_lose  # type: ignore[method-assign]
        assert not first.put_if_absent("race", b"first")
        assert read_small(first, "race") == b"second"


def test_encryption_by_the_server_is_asked_for():
    with moto_server() as settings:
        changes = {"server_side_encryption": ServerSideEncryption.AES256}
        store = S3Store(settings.model_copy(update=changes))
        for key, size in (("small", 10), ("large", 2 * _PART)):
            store.put_stream(key, [os.urandom(size)])
            found = store._client.head_object(Bucket="backups", Key=key)
            assert found["ServerSideEncryption"] == "AES256"


def test_a_directory_that_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = LocalStore(tmp_path)
    store.put_stream("a/b", [b"x"])

    def refuse(_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    # Root may read everything, so the kernel's refusal is played.
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        list(store.list("a/"))
