"""What bounds every query of the search.

Invariant: no search runs longer than its time limit, and none takes more than one core. The limits
are the transaction's (SET LOCAL): they end with it, and no other user of the connection sees them.
"""

from collections.abc import Mapping

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

STATEMENT_TIMEOUT_MS = 2000

# Starting parallel workers or compiling a plan costs more than any of these queries takes.
_PLANNING = {"max_parallel_workers_per_gather": "0", "jit": "off"}
LIMITING = """
    set_config('statement_timeout', CAST(:timeout_ms AS text), true)
    || set_config('max_parallel_workers_per_gather', '0', true) || set_config('jit', 'off', true)
"""
"""What a query's first statement may select to bound those that follow, sparing a round trip.

`timeout_ms` is its parameter; `note_limits` says that it was done.
"""
PLAN_MODE = "plan_cache_mode"
_LIMITED = "samplemind.search.limited"  # key in the session's info: settings of its transaction


async def limit_queries(
    session: AsyncSession,
    *,
    timeout_ms: int = STATEMENT_TIMEOUT_MS,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Bound the statements that follow in this transaction; asks nothing where they are already.

    Args:
        session: whose transaction is bounded.
        timeout_ms: milliseconds after which the server ends a statement.
        extra: further settings of the server, such as `hnsw.ef_search`.
    """
    wanted = {"statement_timeout": str(timeout_ms), **_PLANNING, **(extra or {})}
    present = present_limits(session)
    missing = {name: value for name, value in wanted.items() if present.get(name) != value}
    if not missing:
        return
    # One round trip; names and values are both bound, so neither is ever read as SQL.
    calls = ", ".join(f"set_config(:n{i}, :v{i}, true)" for i in range(len(missing)))
    parameters: dict[str, str] = {}
    for i, (name, value) in enumerate(missing.items()):
        parameters |= {f"n{i}": name, f"v{i}": value}
    await session.execute(text(f"SELECT {calls}"), parameters)
    session.info[_LIMITED] = (session.get_transaction(), {**present, **missing})


def plan_mode(*, is_whole: bool) -> str:
    """Return how the server plans a query of the whole library, or of a part of it.

    To plan it anew for each word costs more than most queries take, and leads to the same plan.
    How to reach an owner's files, or what passes a filter, depends on how many they are.
    """
    return "force_generic_plan" if is_whole else "auto"


def note_limits(
    session: AsyncSession, *, timeout_ms: int, extra: Mapping[str, str] | None = None
) -> None:
    """Remember that a statement with `LIMITING` was run, so that nothing asks for it again.

    Args:
        session: in whose transaction it was.
        timeout_ms: that it was given.
        extra: further settings that it made.
    """
    limits = {"statement_timeout": str(timeout_ms), **_PLANNING, **(extra or {})}
    session.info[_LIMITED] = (session.get_transaction(), {**present_limits(session), **limits})


def present_limits(session: AsyncSession) -> dict[str, str]:
    """Return the server's settings that the session's transaction was given here."""
    transaction = session.get_transaction()
    known, present = session.info.get(_LIMITED, (None, {}))
    return dict(present) if transaction is not None and known is transaction else {}
