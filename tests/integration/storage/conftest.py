"""One store of each kind, over servers that are started once a run."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from samplemind.settings import StorageKind, StorageSettings
from samplemind.storage.opening import open_store
from samplemind.storage.store import ObjectStore
from tests.object_stores import azurite_server, google_server, moto_server, rclone_server

KINDS = ("local", "rclone", "moto", "azurite", "google")


@pytest.fixture(scope="session")
def _servers() -> Iterator[tuple[ExitStack, dict[str, StorageSettings]]]:
    with ExitStack() as running:
        yield running, {}


@pytest.fixture(scope="session", params=KINDS)
def storage_settings(
    request: pytest.FixtureRequest, _servers: tuple[ExitStack, dict[str, StorageSettings]]
) -> StorageSettings:
    """Settings of a store of each kind; its server runs until the end."""
    running, known = _servers
    kind: str = request.param
    if kind not in known:
        known[kind] = _start(kind, running)
    return known[kind]


@pytest.fixture
def object_store(
    request: pytest.FixtureRequest, storage_settings: StorageSettings
) -> Iterator[ObjectStore]:
    """A store of each kind, empty below a prefix (or, of the local one, a directory) of its own."""
    if storage_settings.kind is StorageKind.LOCAL:
        directory = Path(request.getfixturevalue("tmp_path")) / "store"
        settings = storage_settings.model_copy(update={"path": directory})
    else:
        prefix = f"{abs(hash(request.node.nodeid)):x}"
        settings = storage_settings.model_copy(update={"prefix": prefix})
    store = open_store(settings, Path("/nowhere"))
    yield store
    store.close()


def _start(kind: str, running: ExitStack) -> StorageSettings:
    if kind == "local":
        return StorageSettings()
    if kind == "moto":
        return running.enter_context(moto_server())
    if kind == "google":
        return running.enter_context(google_server())
    directory = Path(running.enter_context(tempfile.TemporaryDirectory()))
    if kind == "azurite":
        return running.enter_context(azurite_server(directory))
    return running.enter_context(rclone_server(directory)).settings
