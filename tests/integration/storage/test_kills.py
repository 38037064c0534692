"""Programs that are killed with SIGKILL while they upload or prune, at seeded moments.

Expected, always: no half backup is listed, what is listed verifies, and the next run works and
leaves nothing over. KILLS=25 (of each store) runs the full series.
"""

import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from samplemind.backup.catalog import Catalog
from samplemind.backup.encryption import Keyring
from samplemind.backup.pruning import prune
from samplemind.backup.retention import Policy
from samplemind.backup.verification import verify_checksums
from samplemind.storage.local import LocalStore
from samplemind.storage.s3 import S3Store
from samplemind.storage.store import ObjectStore
from tests.integration.storage.test_catalog import publish
from tests.object_stores import rclone_server

_TRIALS = int(os.environ.get("KILLS", "2"))
_KEYRING = Keyring({"k": bytes(32)})

# Makes and prunes backups until it is killed; says when it begins.
_WORKER = """
import sys
from datetime import timedelta
from pathlib import Path
from samplemind.backup.catalog import Catalog
from samplemind.backup.encryption import Keyring
from samplemind.backup.pruning import prune
from samplemind.backup.retention import Policy
from samplemind.storage.local import LocalStore
from samplemind.storage.s3 import S3Store
from tests.integration.storage.test_catalog import publish
from tests.object_stores import s3_settings

place, name = sys.argv[1:]
store = S3Store(s3_settings(int(place))) if place.isdigit() else LocalStore(Path(place))
catalog = Catalog(store, Keyring({"k": bytes(32)}))
print("ready", flush=True)
for number in range(1000):
    publish(catalog, f"{name}-{number:03}", age=timedelta(days=3, seconds=-number))
    if number % 3 == 2:
        prune(catalog, Policy(days=1, last=2), timedelta(hours=1), dry_run=False)
"""


def _kill_after(place: str, name: str, seconds: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _WORKER, place, name], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(seconds)  # the moment of the kill is the trial itself
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def _check_and_recover(store: ObjectStore) -> None:
    catalog = Catalog(store, _KEYRING)
    for entry in catalog.entries():
        assert entry.good
        assert entry.manifest is not None
        assert verify_checksums(store, entry.manifest) == []
    publish(catalog, "afterwards")
    # As if the grace were over; S3 tells times in whole seconds.
    prune(catalog, Policy(days=0), -timedelta(seconds=5), dry_run=False)
    assert [entry.id for entry in catalog.entries()] == ["afterwards"]
    left = {stored.key.split("/")[1] for stored in store.list("")}
    assert left == {"afterwards", "clock"}
    assert store.abort_uploads("", -timedelta(seconds=5)) == 0


@pytest.mark.parametrize("seed", range(_TRIALS))
def test_a_kill_while_backups_are_written_and_pruned_in_a_directory(tmp_path: Path, seed: int):
    _kill_after(str(tmp_path), f"s{seed}", random.Random(seed).uniform(0, 0.5))
    _check_and_recover(LocalStore(tmp_path))


@pytest.mark.parametrize("seed", range(_TRIALS))
def test_a_kill_while_backups_are_written_and_pruned_in_s3(tmp_path: Path, seed: int):
    with rclone_server(tmp_path) as server:
        _kill_after(str(server.port), f"s{seed}", random.Random(seed).uniform(0, 1))
        _check_and_recover(S3Store(server.settings))
