"""A console as a process over real stores, and a real browser in front of it."""

import asyncio
import base64
import json
import math
import shutil
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Playwright

from samplemind.connections.resources import Connections
from samplemind.endpoints import Store
from samplemind.jobs.wire import Queue
from samplemind.settings import Settings
from tests.browser.scenes import furnish, send_events
from tests.conftest import empty_stores
from tests.worker.processes import WorkerProcess, wait_until
from worker.console.depths import Depths

T = TypeVar("T")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
OPERATOR = ("ada", "wonder land")
VIEWER = ("vic", "only looks")
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}


@dataclass
class Stage:
    """Where the console is, over which stores, and the ids of what it shows."""

    settings: Settings
    address: str
    names: dict[str, str]
    environment: dict[str, str]
    """Of the console's process, and of any other of this stage."""


@dataclass
class Visit:
    """One person's browser; it notes what went wrong and whom it asked."""

    context: BrowserContext
    page: Page
    stage: Stage
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def open(self, path: str) -> Page:
        """Go to a page of the console; names of the stage may stand in the path."""
        self.page.goto(self.stage.address + path.format(**self.stage.names))
        return self.page

    def check_harmless(self) -> None:
        """Nothing failed in the page, and no other machine was asked for anything."""
        assert self.complaints == []
        assert self.hosts <= {urlsplit(self.stage.address).netloc}


def beside(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it in a thread: the browser's driver has a loop of its own in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()


def leave_depths(home: Path) -> None:
    """Leave what a console that ran for an hour has seen of the queues."""
    run = home / "run"
    run.mkdir(mode=0o700)
    depths = Depths(run / "console-depths.json")
    for step in range(360):
        indexed = round(40 + 35 * math.sin(step / 25))
        analysed = max(0, 180 - abs(step - 200) * 2)
        waiting = {Queue.INDEX: indexed, Queue.AUDIO: analysed, Queue.DEFAULT: step % 7}
        depths.add(time.time() - (360 - step) * 10, [waiting.get(queue, 0) for queue in Queue])
    depths.save()


@contextmanager
def set_stage(settings: Settings, directory: Path) -> Iterator[Stage]:
    """Fill the stores, start a console; stop it at the end."""

    # What the console keeps and finds in its home, such as backups, lies in the directory.
    settings = settings.model_copy(update={"home": directory})

    async def fill() -> dict[str, str]:
        async with Connections(settings) as connections:
            await empty_stores(connections)
            return await furnish(connections)

    names = beside(fill)
    urls = {store: settings.url(store) for store in Store}
    environment = {
        f"SAMPLEMIND_{store.name}_URL": url.get_secret_value()
        for store, url in urls.items()
        if url is not None
    }
    environment |= {
        "SAMPLEMIND_HOME": str(directory),
        "SAMPLEMIND_CONSOLE_BASIC_AUTH": ":".join(OPERATOR),
        "SAMPLEMIND_CONSOLE_BASIC_AUTH_VIEWERS": ":".join(VIEWER),
    }
    leave_depths(directory)
    process = WorkerProcess("console", environment, directory / "console.log")
    try:
        wait_until(lambda: process.logged("console_ready"), seconds=60, what="the console is ready")
        (line,) = [each for each in process.log.read_text().splitlines() if "console_ready" in each]
        address = f"http://127.0.0.1:{json.loads(line)['port']}"
        yield Stage(settings, address, names, environment)
    finally:
        process.process.terminate()
        process.wait(20)


def show_events(stage: Stage) -> None:
    """Tell the console of jobs until it has seen some; it may not have listened at first."""
    token = base64.b64encode(":".join(OPERATOR).encode()).decode()
    request = urllib.request.Request(  # noqa: S310 - our own address
        f"{stage.address}/api/tasks", headers={"Authorization": f"Basic {token}"}
    )

    def seen() -> bool:
        send_events(stage.settings)
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return bool(json.load(answer))

    wait_until(seen, seconds=30, what="the console has seen events")


@contextmanager
def open_browser(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
    try:
        yield browser
    finally:
        browser.close()


@contextmanager
def visit(
    browser: Browser,
    stage: Stage,
    who: tuple[str, str] | None = OPERATOR,
    *,
    theme: str = "light",
    viewport: dict[str, int] | None = None,
    scripts: bool = True,
) -> Iterator[Visit]:
    context = browser.new_context(
        http_credentials={"username": who[0], "password": who[1]} if who else None,
        viewport=viewport or DESKTOP,
        color_scheme=theme,
        java_script_enabled=scripts,
        reduced_motion="reduce",
    )
    context.set_default_timeout(20_000)
    try:
        found = Visit(context, context.new_page(), stage)
        found.page.on(
            "console",
            lambda message: (
                message.type in ("error", "warning") and found.complaints.append(message.text)
            ),
        )
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        context.on("request", lambda request: found.hosts.add(urlsplit(request.url).netloc))
        yield found
    finally:
        context.close()
