"""`python -m tests.browser.pictures`: a picture of each page in both themes, for `docs/console`.

Invariant: a picture names neither the machine nor the directory in which it was taken.
"""

import asyncio
import json
import socket
from getpass import getuser
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from samplemind.connections.resources import Connections
from samplemind.documents.indexes import ensure_indexes
from samplemind.embedded.stack import EmbeddedStack
from samplemind.migrate import migrate_postgres
from samplemind.settings import Settings, load_settings
from tests.browser.nights import leave_nights
from tests.browser.scenes import FLOWERS, SCENES
from tests.browser.stage import open_browser, set_stage, show_events, visit
from tests.conftest import temporary_home

PICTURES = Path(__file__).parents[2] / "docs" / "console"
_LARGEST_BYTES = 200_000
_RENAME = """names => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode())
    for (const [name, shown] of Object.entries(JSON.parse(names)))
      texts.currentNode.data = texts.currentNode.data.replaceAll(name, shown);
}"""
_VIEWPORT = {"width": 1280, "height": 800}


def main() -> None:
    """Take them all."""
    with temporary_home() as home, EmbeddedStack(home, durable=False) as stack:
        settings = load_settings().model_copy(update={"home": home}).with_urls(stack.start())
        asyncio.run(_migrate(settings))
        directory = home / "console"
        directory.mkdir()
        with set_stage(settings, directory) as stage, sync_playwright() as playwright:
            leave_nights(stage.settings)
            show_events(stage)
            names = {
                str(directory): "/var/lib/samplemind",
                f"{getuser()}@{socket.gethostname()}": "worker@node-3",
                socket.gethostname(): "node-3",
            }
            with open_browser(playwright) as browser:
                for theme in ("light", "dark"):
                    with visit(browser, stage, theme=theme, viewport=_VIEWPORT) as visitor:
                        for scene in (
                            *(each for room in SCENES.values() for each in room),
                            *FLOWERS,
                        ):
                            page = visitor.open(scene.address)
                            page.get_by_text(scene.shows).first.wait_for()
                            page.wait_for_load_state("networkidle")
                            _take(page, names, PICTURES / f"{scene.name}-{theme}.png")


def _take(page: Page, names: dict[str, str], path: Path) -> None:
    page.evaluate(_RENAME, json.dumps(names))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path, animations="disabled")
    size_bytes = path.stat().st_size
    print(f"{path.name}: {size_bytes:,} bytes")  # noqa: T201
    assert size_bytes < _LARGEST_BYTES, path


async def _migrate(settings: Settings) -> None:
    await migrate_postgres(settings)
    async with Connections(settings) as connections:
        await ensure_indexes(await connections.documents())


if __name__ == "__main__":
    main()
