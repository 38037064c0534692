"""`samplemind demo`: start everything, ingest a synthesised pack, show searches and addresses."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from samplemind.cli.following import errors_of, follow, print_summary
from samplemind.cli.output import console
from samplemind.cli.search import print_results
from samplemind.cli.session import with_connections
from samplemind.cli.stack import down, up
from samplemind.connections.resources import Connections
from samplemind.demo.pack import PACK_NAME, write_pack
from samplemind.embedded.services import list_services
from samplemind.endpoints import Store
from samplemind.errors import ServerStartError
from samplemind.jobs.client import Jobs
from samplemind.search.filters import Filters, Range
from samplemind.search.full_text import FullTextSearch
from samplemind.search.indexer import drain
from samplemind.search.sound import find_by_path, stored_sound
from samplemind.search.vector import VectorSearch
from samplemind.settings import PREFIX, get_settings, load_settings

_SHOWN = 5


@click.command()
@click.option(
    "--once", is_flag=True, help="With stores of its own, stopped and removed at the end."
)
@click.pass_context
def demo(context: click.Context, once: bool) -> None:
    """Start everything, ingest a small pack that is synthesised here, and search it.

    Without --once the platform keeps running in SAMPLEMIND_HOME; a second demo finds it, and
    analyses nothing again.

    Example: samplemind demo --once
    """
    if not once:
        _show(context)
        _print_commands()
        return
    with _temporary_home():
        try:
            _show(context)
        finally:
            context.invoke(down)


@contextmanager
def _temporary_home() -> Iterator[None]:
    # Also without the stores' URLs: what a demo writes must not stay in a real library.
    changed = [f"{PREFIX}HOME", *(f"{PREFIX}{store.name}_URL" for store in Store)]
    before = {name: os.environ.pop(name) for name in changed if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="samplemind-demo-") as home:
        # As root, PostgreSQL runs as another account, which must get in.
        Path(home).chmod(0o711)
        os.environ[f"{PREFIX}HOME"] = home
        try:
            yield
        finally:
            del os.environ[f"{PREFIX}HOME"]
            os.environ.update(before)


def _show(context: click.Context) -> None:
    _print_heading("1. Start the stores, the workers, the scheduler and the console")
    context.invoke(up, detach=True, stores_only=False)
    _print_heading(f"2. Synthesise the pack “{PACK_NAME}” and ingest it")
    folder = load_settings().home / "demo"
    paths = write_pack(folder)
    console.print(f"samplemind ingest {folder} --wait", style="bold", soft_wrap=True)
    with_connections(lambda connections: _ingest(connections, folder))
    _print_heading("3. Search it")
    kick = next(path for path in paths if "Deep_Kick" in path.name)
    with_connections(lambda connections: _search(connections, kick))
    _print_addresses()


async def _ingest(connections: Connections, folder: Path) -> None:
    async with Jobs(connections.settings) as jobs:
        submission = await jobs.submit_batch([folder])
    now = await follow(connections, submission.batch_id)
    print_summary(now, await errors_of(connections, now))
    if now.failed:
        message = "the pack could not be analysed: see the lines above"
        raise ServerStartError(message)
    # The workers index by themselves; the demo only does not want to guess when they are done.
    await drain(connections)


async def _search(connections: Connections, kick: Path) -> None:
    async with connections.postgres.session() as session:
        everything = Filters(everything=True)
        by_words = FullTextSearch(connections.settings.search).search_audio_files
        console.print("By words: samplemind search snare or clap", style="bold")
        found = await by_words(session, "snare or clap", filters=everything, limit=_SHOWN)
        print_results(found)
        console.print("\nFiltered: samplemind search loop --bpm 115..125 --kind loop", style="bold")
        narrow = Filters(everything=True, tempo_bpm=Range(115, 125), kind="loop")
        print_results(await by_words(session, "loop", filters=narrow, limit=_SHOWN))
        console.print(f"\nBy sound: samplemind similar {kick.name}", style="bold")
        file_id = await find_by_path(session, str(kick))
        if file_id is None:
            message = f"{kick} is not in the index, which should hold the whole pack"
            raise ServerStartError(message)
        sound = await stored_sound(session, file_id, filters=everything)
        search = VectorSearch(connections.settings.search)
        print_results(
            await search.similarity_search(session, sound, filters=everything, limit=_SHOWN)
        )


def _print_heading(text: str) -> None:
    console.print(f"\n{text}", style="bold cyan", soft_wrap=True)


def _print_addresses() -> None:
    _print_heading("4. Look at it")
    for service in list_services(load_settings()):
        if service.address:
            console.print(f"{service.name:<12} {service.address}")


def _print_commands() -> None:
    home = get_settings().home
    console.print(
        "\nsamplemind status          services and their health\n"
        "samplemind ingest DIR      analyse and index samples of your own\n"
        "samplemind search WORDS    find them\n"
        "samplemind down            stop everything; the data stays in "
        f"{home}",
        soft_wrap=True,
    )
