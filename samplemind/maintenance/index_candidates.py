"""Indexes that a plan would gladly have: read off its scans, filters, joins and sorts.

Invariant: pure, and only a guess. A candidate names real columns or expressions of one table, as
PostgreSQL itself prints them; whether it helps is for `index_proof` to find out.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from samplemind.maintenance.plans import Plan, PlanNode, conjuncts

_MOST_KEYS = 3
_JOINS = ("Hash Join", "Merge Join", "Nested Loop")
_PASSING = ("Limit", "Sort", "Incremental Sort", "Gather", "Gather Merge", "Result", "Unique")
_NAME = r'(?:[a-z_][\w$]*|"[^"]+")'
_COLUMN = rf"(?P<alias>{_NAME})\.(?P<column>{_NAME})"
_OPERAND = re.compile(
    rf"^(?:\(?{_COLUMN}\)?(?:::[\w ]+)?"
    rf"|(?P<call>(?P<function>[a-z_]+)\(\(?(?P<of>{_NAME})\.(?P<inner>{_NAME})\)?"
    r"(?:::[\w ]+)?\)))"
    r" (?P<operator>=|<=|>=|<|>) (?P<other>.+)$"
)
_REVERSED = re.compile(rf"^(?P<other>.+) = \(?{_COLUMN}\)?(?:::[\w ]+)?$")
_SORT = re.compile(rf"^{_COLUMN}(?P<order>(?: DESC)?(?: NULLS (?:FIRST|LAST))?)$")


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index that might help; `keys` as they stand in CREATE INDEX."""

    schema: str
    table: str
    keys: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the keys without their order."""
        return tuple(key.split(" ")[0] for key in self.keys)

    def create(self, schema: str, *, concurrently: bool = False) -> str:
        """Return the statement that makes it."""
        how = "CONCURRENTLY " if concurrently else ""
        return f'CREATE INDEX {how}ON {schema}."{self.table}" ({", ".join(self.keys)})'

    def is_prefix_of(self, keys: Sequence[str]) -> bool:
        """Return whether an index of these keys does this one's work as well."""
        return tuple(keys[: len(self.keys)]) == self.keys


@dataclass(slots=True)
class _Wish:
    equal: list[str]
    ranged: list[str]
    sorted_by: list[str]


def find_candidates(plan: Plan, large_tables: Iterable[str]) -> list[Candidate]:
    """Return what the scans of large tables in this plan could use, the simplest first."""
    large = set(large_tables)
    found: dict[Candidate, None] = {}
    for node, above in _with_ancestors(plan.root, ()):
        if node.relation in large and node.kind in ("Seq Scan", "Bitmap Heap Scan", "Index Scan"):
            for keys in _key_lists(_wish(node, above)):
                found[Candidate(node.schema or "public", node.relation, keys)] = None
    return sorted(found, key=lambda each: (len(each.keys), each.keys))


def _with_ancestors(
    node: PlanNode, above: tuple[PlanNode, ...]
) -> Iterator[tuple[PlanNode, tuple[PlanNode, ...]]]:
    yield node, above
    for child in node.children:
        yield from _with_ancestors(child, (*above, node))


def _wish(node: PlanNode, above: Sequence[PlanNode]) -> _Wish:
    wish = _Wish([], [], [])
    for name, condition in node.conditions.items():
        if name != "Recheck Cond":
            _add(wish, node, condition)
    for ancestor in reversed(above):
        if ancestor.kind in ("Sort", "Incremental Sort") and not wish.sorted_by:
            wish.sorted_by = _sort_keys(node, ancestor.sort_keys)
        if ancestor.kind not in _PASSING:
            break
    for ancestor in above:
        if ancestor.kind in _JOINS:
            for name in ("Hash Cond", "Merge Cond", "Join Filter"):
                if name in ancestor.conditions:
                    _add(wish, node, ancestor.conditions[name])
    return wish


def _add(wish: _Wish, node: PlanNode, condition: str) -> None:
    for part in conjuncts(condition):
        found = _OPERAND.match(part)
        key = _key(found, node) if found else None
        if found is None or key is None:
            found = _REVERSED.match(part)
            if found is None or _plain(found["alias"]) != node.alias:
                continue
            key = found["column"]
        other = found["other"]
        if f"{node.alias}." in other:
            continue  # a comparison of two columns of one row
        is_equal = found.groupdict().get("operator", "=") in ("=", None)
        target = wish.equal if is_equal else wish.ranged
        if key not in target:
            target.append(key)


def _key(found: "re.Match[str]", node: PlanNode) -> str | None:
    if found["call"]:
        return (
            f"{found['function']}({found['inner']})" if _plain(found["of"]) == node.alias else None
        )
    return found["column"] if _plain(found["alias"]) == node.alias else None


def _sort_keys(node: PlanNode, sort_keys: Sequence[str]) -> list[str]:
    keys = []
    for text in sort_keys:
        found = _SORT.match(text)
        if found is None or _plain(found["alias"]) != node.alias:
            return []  # a part of the order is worth nothing
        keys.append(found["column"] + found["order"])
    return keys


def _key_lists(wish: _Wish) -> Iterator[tuple[str, ...]]:
    equal = wish.equal[:_MOST_KEYS]
    for key in equal:
        yield (key,)
    if len(equal) > 1:
        yield tuple(equal)
    for key in wish.ranged:
        if key not in equal:
            yield (key,)
            if equal:
                yield (*equal[: _MOST_KEYS - 1], key)
    if wish.sorted_by:
        columns = {key.split(" ")[0] for key in wish.sorted_by}
        before = [key for key in equal if key not in columns]
        keys = [*before, *wish.sorted_by]
        if len(keys) <= _MOST_KEYS + 1:
            yield tuple(keys)


def _plain(name: str) -> str:
    return name.strip('"')
