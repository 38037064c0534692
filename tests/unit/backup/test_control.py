import threading
import time

import pytest

from samplemind.backup.control import Control
from samplemind.errors import BackupCancelledError


def test_a_wait_ends_with_the_cancellation_and_not_with_its_time() -> None:
    control = Control()
    threading.Timer(0.05, control.cancel).start()
    began = time.monotonic()
    with pytest.raises(BackupCancelledError):
        control.pause(60)
    assert time.monotonic() - began < 30


def test_a_wait_that_nobody_cancels_passes() -> None:
    Control().pause(0.01)
