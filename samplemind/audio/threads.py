"""One thread for each numerical library: what a worker process sets before numpy is loaded.

The products of this package are small (64 bands by a hundred frames): splitting them over threads
costs seventy times the work, and two workers that each start a pool per core halve each other's
throughput. The libraries read these variables once, when they are loaded.

This module never imports numpy itself.
"""

import os
import sys
import warnings

READ_BY_NUMPY = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
THREAD_VARIABLES = (*READ_BY_NUMPY, "NUMEXPR_NUM_THREADS")


class ThreadLimitWarning(RuntimeWarning):
    """numpy was loaded before the limits were set, so this process keeps its thread pools."""


def limit_threads() -> bool:
    """Give every numerical library one thread; call this before the first import of numpy.

    Returns:
        True when the limits hold: numpy is not loaded yet, or it was loaded under these same
        limits. Otherwise the variables are set for child processes only, a `ThreadLimitWarning`
        is issued, and the result is False.
    """
    held_before = all(os.environ.get(name) == "1" for name in READ_BY_NUMPY)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    if "numpy" not in sys.modules or held_before:
        return True
    warnings.warn(
        "numpy was imported before limit_threads(): analysis will be slower in this process",
        ThreadLimitWarning,
        stacklevel=2,
    )
    return False
