"""Sending the parts of an upload while the next one is made.

Invariant: so many parts are held at once, and no more. When one fails, or making them does, those
not yet begun are dropped and those on their way are waited for, so nothing is sent afterwards.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from samplemind.carrying import carrying

IN_FLIGHT = 2

Sent = TypeVar("Sent")


def send_parts(parts: Iterable[bytes], send: Callable[[int, bytes], Sent]) -> tuple[Sent, ...]:
    """Call `send` with each part and its number, from 1; return what the calls gave, in order."""
    sent: list[Sent] = []
    flying: list[Future[Sent]] = []
    with ThreadPoolExecutor(IN_FLIGHT) as senders:
        try:
            for number, part in enumerate(parts, 1):
                if len(flying) == IN_FLIGHT:
                    sent.append(flying.pop(0).result())
                flying.append(senders.submit(carrying(send), number, part))
            sent += [future.result() for future in flying]
        except BaseException:
            for future in flying:
                future.cancel()
            raise
    return tuple(sent)
