"""`python -m benchmarks.search.serve HOME --files N`: a loaded index to look at, until Ctrl-C.

A home that was loaded before is served as it is.
"""

import argparse
import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks.search.load import load
from benchmarks.search.sounds import Library
from samplemind.embedded.stack import EmbeddedStack
from samplemind.endpoints import Store
from samplemind.migrate import migrate_postgres
from samplemind.settings import Settings, load_settings


@contextmanager
def loaded_index(home: Path, library: Library) -> Iterator[Settings]:
    """Yield settings whose PostgreSQL holds the library; a durable stack of all four stores."""
    with EmbeddedStack(home, Store) as stack:
        settings = load_settings().model_copy(update={"home": home}).with_urls(stack.start())
        asyncio.run(migrate_postgres(settings))
        assert settings.postgres.url is not None
        url = settings.postgres.url.get_secret_value()
        if _is_empty(url):
            print(f"{library.files:,} files loaded in {load(url, library):.0f} s", flush=True)
        yield settings


def _is_empty(url: str) -> bool:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT EXISTS (SELECT FROM search_documents)").fetchone()
    return found != (True,)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search.serve", description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--files", type=int, default=100_000)
    options = parser.parse_args()
    options.home.mkdir(mode=0o711, parents=True, exist_ok=True)
    with loaded_index(options.home, Library(options.files)) as settings:
        assert settings.postgres.url is not None
        print(settings.postgres.url.get_secret_value(), flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
