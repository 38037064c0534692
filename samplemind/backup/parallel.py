"""Doing the same to many things with a few threads, such that the first failure stops the rest.

Invariant: when `run_parallel` returns or raises, no thread of it works any more.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from samplemind.backup.control import Control
from samplemind.carrying import carrying

_NICENESS = 10

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_parallel(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    jobs: int,
    control: Control,
    *,
    gentle: bool = False,
) -> list[Result]:
    """Return what `work` returned for each item, in order, with `jobs` threads at most.

    An interruption of the caller, such as a time limit, cancels the others through `control`.
    `gentle` threads, and the programs that they start, leave the processor to whoever wants it.

    Raises:
        Exception: the first that any of them raised.
    """
    with ThreadPoolExecutor(
        max_workers=max(1, jobs),
        thread_name_prefix="backup",
        initializer=_be_gentle if gentle else None,
    ) as pool:
        futures = [pool.submit(carrying(work), item) for item in items]
        try:
            done, rest = wait(futures, return_when=FIRST_EXCEPTION)
            failed = next((each for each in futures if each in done and each.exception()), None)
            if failed is not None or rest:
                control.cancel()
                for future in rest:
                    future.cancel()
            if failed is not None:
                failed.result()
        except BaseException:
            control.cancel()
            for future in futures:
                future.cancel()
            raise
    return [future.result() for future in futures]


def _be_gentle() -> None:
    # Linux has a niceness for each thread, and a program inherits that of the one that starts it.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
