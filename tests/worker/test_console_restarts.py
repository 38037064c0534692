"""What the console has seen, and who is signed in, outlive it."""

import json
import signal
import stat
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from samplemind.settings import BrokerSettings, Settings
from tests.browser.scenes import send_events
from tests.worker.processes import open_workshop, wait_until
from tests.worker.test_roles_run import await_console

pytestmark = pytest.mark.timeout(90)


def test_what_a_console_has_seen_is_there_after_a_restart(tmp_path: Path) -> None:
    with open_workshop(tmp_path) as workshop:
        home = {"SAMPLEMIND_HOME": str(tmp_path / "home")}
        settings = Settings(broker=BrokerSettings.model_validate({"url": workshop.broker.url}))
        first = workshop.start_process("console", **home)
        address = await_console(first)
        wait_until(
            lambda: workshop.broker.client.pubsub_numpat() > 0 or bool(_channels(workshop)),
            seconds=20,
            what="the console listens to events",
        )
        send_events(settings, count=5)
        wait_until(lambda: len(tasks_of(address)) == 5, seconds=20, what="the console has seen")
        seen = set(tasks_of(address))
        secret = secret_of(tmp_path / "home")
        first.signal(signal.SIGTERM)
        assert first.wait(20) == 0
        second = workshop.start_process("console", **home)
        assert set(tasks_of(await_console(second))) == seen
        assert secret_of(tmp_path / "home") == secret


def _channels(workshop: Any) -> list[str]:
    return [name for name in workshop.broker.client.pubsub_channels() if "celeryev" in name]


def tasks_of(address: str) -> list[str]:
    with urllib.request.urlopen(f"{address}/api/tasks", timeout=10) as answer:  # noqa: S310
        return list(json.load(answer))


def secret_of(home: Path) -> str:
    path = home / "run" / "console-cookie-secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path.read_text()
