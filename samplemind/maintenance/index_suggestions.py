"""Which indexes the workload is missing, each proven with the planner.

Invariant: no suggestion that an existing index, or another suggestion, makes needless; each carries
the queries that it serves, their costs before and after, its size, and how that was found.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from samplemind.maintenance.index_candidates import Candidate, find_candidates
from samplemind.maintenance.index_proof import (
    ProofMethod,
    Prover,
    Table,
    generic_plan,
    open_prover,
)
from samplemind.maintenance.index_usage import IndexFacts, read_indexes
from samplemind.maintenance.plans import Plan
from samplemind.maintenance.session import Session, fetch

LEAST_GAIN = 0.3
"""Share of a query's cost that an index must save to count as serving it."""

_LARGE_ROWS = 10_000
_MOST_CANDIDATES = 16
_SIMILAR = 0.95
_TABLES = """
SELECT n.nspname AS schema, c.relname AS name, greatest(c.reltuples, 0) AS rows,
       pg_table_size(c.oid) AS size_bytes
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.reltuples >= %(rows)s AND n.nspname NOT LIKE 'pg_%%'
  AND n.nspname <> 'information_schema'
"""


@dataclass(frozen=True, slots=True)
class WorkloadQuery:
    """A normalised statement and how often it ran."""

    sql: str
    calls: int = 1


@dataclass(frozen=True, slots=True)
class ServedQuery:
    """What a suggestion does for one query, in the planner's units."""

    sql: str
    calls: int
    cost_before: float
    cost_after: float


@dataclass(frozen=True, slots=True)
class IndexSuggestion:
    """An index worth having.

    Attributes:
        cost_before: of all its queries with their calls.
        size_bytes: of the index on the whole table; scaled up where a sample was copied.
        sampled_share: of the table that was copied, 1 for all of it.
    """

    table: str
    keys: tuple[str, ...]
    sql: str
    cost_before: float
    cost_after: float
    size_bytes: int
    method: ProofMethod
    sampled_share: float
    serves: tuple[ServedQuery, ...]

    @property
    def gain(self) -> float:
        """Cost that it saves over the whole workload."""
        return self.cost_before - self.cost_after


@dataclass(slots=True)
class _Search:
    """The state of the search on one table."""

    queries: Sequence[WorkloadQuery]
    costs: dict[str, float]
    chosen: list[tuple[Candidate, int, dict[str, tuple[float, float]]]] = field(
        default_factory=list
    )


async def suggest_indexes(
    session: Session, workload: Sequence[WorkloadQuery]
) -> list[IndexSuggestion]:
    """Return the indexes that the workload is missing, the most worthwhile first."""
    tables = {
        row["name"]: Table(**row) for row in await fetch(session, _TABLES, {"rows": _LARGE_ROWS})
    }
    existing = await read_indexes(session)
    plans = {
        query: plan
        for query in workload
        if (plan := await generic_plan(session, query.sql)) is not None
    }
    found: list[IndexSuggestion] = []
    for name, candidates in _by_table(plans, tables, existing).items():
        queries = [
            query for query, plan in plans.items() if any(n.relation == name for n in plan.nodes())
        ]
        own = [index for index in existing if index.table == name]
        async with open_prover(session, tables[name], own) as prover:
            found += await _search(prover, candidates, queries)
    return sorted(found, key=lambda each: -each.gain)


def is_covered(candidate: Candidate, existing: Sequence[IndexFacts]) -> bool:
    """Return whether an index that is there does the candidate's work."""
    return any(
        index.table == candidate.table
        and index.method == "btree"
        and index.is_valid
        and not index.predicate
        and candidate.is_prefix_of(_keys_of(index))
        for index in existing
    )


def _keys_of(index: IndexFacts) -> list[str]:
    keys = []
    for key in index.keys:
        *name, order, _class, _collation = key.split(" ")
        descending, nulls_first = int(order) & 1, int(order) & 2
        text = " ".join(name) + (" DESC" if descending else "")
        if bool(nulls_first) != bool(descending):
            text += " NULLS FIRST" if nulls_first else " NULLS LAST"
        keys.append(text)
    return keys


def _by_table(
    plans: Mapping[WorkloadQuery, Plan],
    tables: Mapping[str, Table],
    existing: Sequence[IndexFacts],
) -> dict[str, list[Candidate]]:
    weights: dict[Candidate, float] = defaultdict(float)
    for query, plan in plans.items():
        for candidate in find_candidates(plan, tables):
            if not is_covered(candidate, existing):
                weights[candidate] += query.calls * plan.root.cost
    by_table: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in sorted(weights, key=lambda each: -weights[each]):
        if len(by_table[candidate.table]) < _MOST_CANDIDATES:
            by_table[candidate.table].append(candidate)
    return dict(by_table)


async def _search(
    prover: Prover, candidates: Sequence[Candidate], queries: Sequence[WorkloadQuery]
) -> list[IndexSuggestion]:
    """Choose greedily: the index that saves most, then what saves most beside it, and so on."""
    costs = {}
    for query in queries:
        plan = await prover.plan(query.sql)
        if plan is not None:
            costs[query.sql] = plan.root.cost
    search = _Search([query for query in queries if query.sql in costs], costs)
    remaining = list(candidates)
    while remaining:
        trials = {each: await _try(prover, each, search) for each in remaining}
        helpful = {each: saved for each, saved in trials.items() if saved}
        if not helpful:
            break
        best = _best(helpful, search)
        size = await prover.build(best)
        saved = helpful[best]
        search.chosen.append((best, size, saved))
        search.costs.update({sql: after for sql, (_, after) in saved.items()})
        # Of an order and its reverse one is enough, and what helped nothing will not help now.
        remaining = [each for each in helpful if each.columns != best.columns]
    return _suggestions(prover, search)


async def _try(
    prover: Prover, candidate: Candidate, search: _Search
) -> dict[str, tuple[float, float]]:
    """Return (cost before, after) of each query that the candidate serves beside the chosen."""
    saved = {}
    async with prover.trial():
        await prover.build(candidate)
        for query in search.queries:
            plan = await prover.plan(query.sql)
            before = search.costs[query.sql]
            if plan is not None and plan.root.cost < before * (1 - LEAST_GAIN):
                saved[query.sql] = (before, plan.root.cost)
    return saved


def _best(
    helpful: Mapping[Candidate, dict[str, tuple[float, float]]], search: _Search
) -> Candidate:
    calls = {query.sql: query.calls for query in search.queries}
    gains = {
        candidate: sum(calls[sql] * (before - after) for sql, (before, after) in saved.items())
        for candidate, saved in helpful.items()
    }
    most = max(gains.values())
    # Of those that are about as good, the narrowest: every write pays for each column.
    good = [each for each, gain in gains.items() if gain >= most * _SIMILAR]
    return min(good, key=lambda each: (len(each.keys), -gains[each], each.keys))


def _without_prefixes(
    chosen: Sequence[tuple[Candidate, int, dict[str, tuple[float, float]]]],
) -> list[tuple[Candidate, int, dict[str, tuple[float, float]]]]:
    """Leave out what a wider index that was chosen later does as well, and credit that one."""
    kept = []
    for place, (candidate, size, saved) in enumerate(chosen):
        later = [wider for wider, _, _ in chosen[place + 1 :] if candidate.is_prefix_of(wider.keys)]
        if later:
            continue
        credited = dict(saved)
        for narrow, _, before in chosen[:place]:
            if narrow.is_prefix_of(candidate.keys):
                for sql, (first, last) in before.items():
                    credited[sql] = (first, credited[sql][1] if sql in credited else last)
        kept.append((candidate, size, credited))
    return kept


def _suggestions(prover: Prover, search: _Search) -> list[IndexSuggestion]:
    calls = {query.sql: query.calls for query in search.queries}
    found = []
    for candidate, size, saved in _without_prefixes(search.chosen):
        found.append(
            IndexSuggestion(
                table=candidate.table,
                keys=candidate.keys,
                sql=candidate.create(f'"{candidate.schema}"', concurrently=True),
                cost_before=sum(calls[sql] * before for sql, (before, _) in saved.items()),
                cost_after=sum(calls[sql] * after for sql, (_, after) in saved.items()),
                size_bytes=size,
                method=prover.method,
                sampled_share=prover.share,
                serves=tuple(
                    ServedQuery(sql, calls[sql], before, after)
                    for sql, (before, after) in saved.items()
                ),
            )
        )
    return found
