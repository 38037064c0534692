"""What can be done with the items of a batch: one module of `samplemind.batches.kinds` each.

    KIND = Kind("reindex", job=WorkBatch, work=…)

Invariant: a kind is known by its module's name and by nothing else, so that a new one is a new
module. Its work may be done twice and counts once: it ends items only under the claim it was given.
"""

import pkgutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from importlib import import_module
from uuid import UUID

from samplemind.batches import kinds
from samplemind.batches.chunks import ChunkReport
from samplemind.batches.planning import Subject
from samplemind.batches.running import Run
from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError
from samplemind.jobs.payloads import BatchChunk
from samplemind.repositories.batch_items import Chunk


@dataclass(frozen=True, slots=True)
class Work:
    """One chunk to work through, and what its worker lends for that.

    Attributes:
        job_id: the message's id, the same at each delivery.
        run: runs a coroutine on the loop that owns the connections.
        queue_drain: called when files wait for the index and no drain is on its way.
        interruptions: errors that come from outside, in the middle of whatever runs, to end the
            whole chunk: a soft time limit.
    """

    connections: Connections
    chunk: Chunk
    job_id: str
    run: Run
    queue_drain: Callable[[], None]
    interruptions: tuple[type[Exception], ...] = ()


Select = Callable[[Connections, UUID | None], AsyncIterator[Subject]]
"""Streams what a batch over everything of one owner is about."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of batch.

    Attributes:
        name: of its module.
        purpose: what it does with a file, in a few words.
        job: the message of its chunks, by which they find their queue.
        work: works through a chunk, in a worker's main thread.
        select: what it is about where no file is named; None: files must be named.
        chunk_size: items in one job; None: as the settings say.
        in_library: its items are files of the library, and need not exist on the disk.
        destroys: it takes something away, so that a command asks first.
    """

    name: str
    purpose: str
    job: type[BatchChunk]
    work: Callable[[Work], ChunkReport]
    select: Select | None = None
    chunk_size: int | None = None
    in_library: bool = True
    destroys: bool = False


@dataclass(frozen=True, slots=True)
class _Registry:
    added: dict[str, Kind] = field(default_factory=dict)


_registry = _Registry()


def add_kind(kind: Kind) -> None:
    """Make a kind known that lives outside of this package; both producer and workers need it."""
    _registry.added[kind.name] = kind


def find_kind(name: str) -> Kind:
    """Return the kind of this name.

    Raises:
        InvalidInputError: there is none.
    """
    if name in _registry.added:
        return _registry.added[name]
    if name not in kind_names():
        message = f"there is no kind of batch named {name!r}: {', '.join(kind_names())}"
        raise InvalidInputError(message)
    kind: Kind = import_module(f"{kinds.__name__}.{name}").KIND
    return kind


def kind_names() -> list[str]:
    """Return the names of all kinds, in order."""
    own = [module.name for module in pkgutil.iter_modules(kinds.__path__)]
    return sorted({*own, *_registry.added})
