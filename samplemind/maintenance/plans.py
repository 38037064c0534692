"""Plans of PostgreSQL as trees of nodes.

Invariant: pure; it reads what `EXPLAIN (FORMAT JSON)` prints and asks nothing of the server. A
figure that a plan does not have (one that was not run has no actual rows) is None and never zero.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_CONDITIONS = (
    "Index Cond", "Recheck Cond", "Filter", "Join Filter", "Hash Cond", "Merge Cond",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PlanNode:
    """One step of a plan.

    Attributes:
        kind: as PostgreSQL names it, "Seq Scan".
        rows: estimated, of one loop.
        actual_rows: of one loop on average; None: it was not run.
        loops: how often it ran; 0: never.
        removed_by_filter: of all loops.
        spilled_kib: written to temporary files.
        details: everything else, by PostgreSQL's names.
    """

    kind: str
    relation: str | None
    schema: str | None
    alias: str | None
    index: str | None
    rows: float
    width_bytes: int
    startup_cost: float
    cost: float
    actual_rows: float | None
    loops: int | None
    milliseconds: float | None
    removed_by_filter: int | None
    conditions: Mapping[str, str]
    sort_keys: tuple[str, ...]
    spilled_kib: int
    blocks_read: int | None
    blocks_hit: int | None
    details: Mapping[str, Any] = field(repr=False)
    children: tuple["PlanNode", ...] = ()
    below_limit: bool = False
    """Whether a node above may stop asking before this one has given everything."""

    @property
    def label(self) -> str:
        """Return the node as people name it: "Seq Scan on search_texts"."""
        parts = [self.kind]
        if self.index:
            parts.append(f"using {self.index}")
        if self.relation:
            named = (
                self.relation
                if self.alias in (None, self.relation)
                else f"{self.relation} {self.alias}"
            )
            parts.append(f"on {named}")
        return " ".join(parts)

    @property
    def all_actual_rows(self) -> float | None:
        """Return the rows of all loops."""
        if self.actual_rows is None or self.loops is None:
            return None
        return self.actual_rows * self.loops

    def walk(self) -> Iterator["PlanNode"]:
        """Yield the node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan as a whole; times in milliseconds, None where it was not run."""

    root: PlanNode
    planning_ms: float | None
    execution_ms: float | None

    def nodes(self) -> Iterator[PlanNode]:
        """Yield every node, parents first."""
        return self.root.walk()


def parse_plan(explained: Any) -> Plan:
    """Return the plan that `EXPLAIN (FORMAT JSON)` gave, decoded from JSON."""
    whole = explained[0]
    return Plan(_node(whole["Plan"]), whole.get("Planning Time"), whole.get("Execution Time"))


def _node(raw: Mapping[str, Any], *, below_limit: bool = False) -> PlanNode:
    ran = "Actual Loops" in raw
    loops = int(raw["Actual Loops"]) if ran else None
    return PlanNode(
        kind=raw["Node Type"],
        relation=raw.get("Relation Name"),
        schema=raw.get("Schema"),
        alias=raw.get("Alias"),
        index=raw.get("Index Name"),
        rows=float(raw["Plan Rows"]),
        width_bytes=int(raw["Plan Width"]),
        startup_cost=float(raw["Startup Cost"]),
        cost=float(raw["Total Cost"]),
        actual_rows=float(raw["Actual Rows"]) if ran else None,
        loops=loops,
        milliseconds=float(raw["Actual Total Time"]) * (loops or 0)
        if "Actual Total Time" in raw
        else None,
        removed_by_filter=_removed(raw, loops),
        conditions={name: raw[name] for name in _CONDITIONS if name in raw},
        sort_keys=tuple(raw.get("Sort Key", ())),
        spilled_kib=_spilled_kib(raw),
        blocks_read=raw.get("Shared Read Blocks"),
        blocks_hit=raw.get("Shared Hit Blocks"),
        details=raw,
        children=tuple(
            _node(child, below_limit=below_limit or raw["Node Type"] == "Limit")
            for child in raw.get("Plans", ())
        ),
        below_limit=below_limit,
    )


def _removed(raw: Mapping[str, Any], loops: int | None) -> int | None:
    if loops is None or "Filter" not in raw:
        return None
    return round(float(raw.get("Rows Removed by Filter", 0)) * loops)


def _spilled_kib(raw: Mapping[str, Any]) -> int:
    spilled = 0
    if raw.get("Sort Space Type") == "Disk":
        spilled += int(raw.get("Sort Space Used", 0))
    spilled += int(raw.get("Disk Usage", 0))  # an aggregate by hash
    if int(raw.get("Hash Batches", 1)) > 1:
        # What is not in memory of a hash that was cut into batches is in files.
        kept = int(raw.get("Peak Memory Usage", 0))
        spilled += kept * (int(raw["Hash Batches"]) - 1)
    spilled += sum(
        int(worker["Sort Space Used"])
        for worker in raw.get("Workers", ())
        if worker.get("Sort Space Type") == "Disk"
    )
    return spilled


def conjuncts(condition: str) -> Sequence[str]:
    """Return the parts of a condition that are joined by AND at its top, without parentheses."""
    parts: list[str] = []
    text = _strip(condition)
    depth, start, quoted = 0, 0, False
    for position, letter in enumerate(text):
        if letter == "'":
            quoted = not quoted
        elif not quoted:
            depth += {"(": 1, ")": -1}.get(letter, 0)
            if depth == 0 and text.startswith(" AND ", position):
                parts.append(_strip(text[start:position]))
                start = position + len(" AND ")
    parts.append(_strip(text[start:]))
    return parts


def _strip(text: str) -> str:
    text = text.strip()
    while text.startswith("(") and _closes_at(text) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _closes_at(text: str) -> int:
    depth, quoted = 0, False
    for position, letter in enumerate(text):
        if letter == "'":
            quoted = not quoted
        elif not quoted:
            depth += {"(": 1, ")": -1}.get(letter, 0)
            if depth == 0:
                return position
    return -1
