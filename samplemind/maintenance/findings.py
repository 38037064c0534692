"""What a plan shows to be wrong, with the figures that show it.

Invariant: pure, and no finding without evidence: each names its node and the numbers that it
stands on. A small table that is read whole, or a query that wants most rows, is no finding.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from samplemind.maintenance.plans import Plan, PlanNode


class PlanProblem(StrEnum):
    """What can be wrong with a plan."""

    LARGE_SEQUENTIAL_SCAN = "large_sequential_scan"
    ROW_MISESTIMATE = "row_misestimate"
    COSTLY_NESTED_LOOP = "costly_nested_loop"
    SPILL = "spill"
    FILTER_DISCARDS_MOST = "filter_discards_most"
    PARTITIONS_READ_FOR_NOTHING = "partitions_read_for_nothing"


@dataclass(frozen=True, slots=True)
class PlanFinding:
    """One problem: where, by which figures, and what to do."""

    problem: PlanProblem
    node: str
    evidence: Mapping[str, float | int | str]
    recommendation: str


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """From where on a figure is a problem."""

    large_table_rows: int = 10_000
    kept_share: float = 0.1  # a scan that keeps more of its table is right to read it whole
    misestimate_factor: float = 10
    misestimate_rows: int = 100  # below that a wrong estimate chooses no worse plan
    loop_rows: int = 100_000  # rows that the inner side of a nested loop reads in all
    discarded_rows: int = 1000


def find_problems(
    plan: Plan, table_rows: Mapping[str, float], limits: PlanLimits | None = None
) -> list[PlanFinding]:
    """Return what is wrong with the plan, worst first within each kind.

    Args:
        plan: with actual rows where it was run; some problems show only then.
        table_rows: the number of rows of each table in it, by name.
        limits: from where on a figure is a problem.
    """
    bounds = limits or PlanLimits()
    return [
        finding
        for judge in _JUDGES
        for node in plan.nodes()
        if node.loops != 0
        for finding in judge(node, table_rows, bounds)
    ]


def _sequential_scan(
    node: PlanNode, table_rows: Mapping[str, float], limits: PlanLimits
) -> Iterator[PlanFinding]:
    if node.kind != "Seq Scan" or "Filter" not in node.conditions or node.relation is None:
        return
    total = table_rows.get(node.relation, 0)
    kept = node.rows if node.actual_rows is None else node.actual_rows
    if total < limits.large_table_rows or kept > total * limits.kept_share:
        return
    yield PlanFinding(
        PlanProblem.LARGE_SEQUENTIAL_SCAN,
        node.label,
        {"table_rows": total, "rows_kept": kept, "filter": node.conditions["Filter"]},
        f"{node.relation} is read whole for {kept:.0f} of {total:.0f} rows: an index on the "
        "columns of the filter would find them (`samplemind db indexes --suggest`)",
    )


def _misestimate(
    node: PlanNode, _: Mapping[str, float], limits: PlanLimits
) -> Iterator[PlanFinding]:
    if node.actual_rows is None or _is_cut_short(node):
        return
    expected, actual = max(node.rows, 1), max(node.actual_rows, 1)
    if node.below_limit and actual < expected:
        return
    factor = max(expected / actual, actual / expected)
    if factor < limits.misestimate_factor or max(expected, actual) < limits.misestimate_rows:
        return
    # What a wrong child hands up is the child's fault: the lowest wrong node is the one to mend.
    if any(True for child in node.children for _ in _misestimate(child, {}, limits)):
        return
    table = node.relation or "the tables below"
    yield PlanFinding(
        PlanProblem.ROW_MISESTIMATE,
        node.label,
        {"rows_expected": node.rows, "rows_actual": node.actual_rows, "factor": round(factor, 1)},
        f"the planner expected {factor:.0f} times {'more' if expected > actual else 'fewer'} rows: "
        f"ANALYZE {table}; if that does not help, raise the column's statistics target, or CREATE "
        "STATISTICS for columns that depend on each other",
    )


def _nested_loop(
    node: PlanNode, _: Mapping[str, float], limits: PlanLimits
) -> Iterator[PlanFinding]:
    if node.kind != "Nested Loop" or len(node.children) != 2:
        return
    outer, inner = node.children
    loops = outer.rows if inner.loops is None else inner.loops
    scanned = _rows_read(inner) * loops
    # An index look-up in each loop is what nested loops are for.
    if inner.kind not in ("Seq Scan", "Materialize", "CTE Scan") or scanned < limits.loop_rows:
        return
    yield PlanFinding(
        PlanProblem.COSTLY_NESTED_LOOP,
        f"{node.label} over {inner.label}",
        {"loops": loops, "rows_read": scanned, "cost": node.cost},
        f"its inner side is read {loops:.0f} times, {scanned:.0f} rows in all: an index on the "
        "column that is joined, or better estimates of the outer side, would change the plan",
    )


def _spill(node: PlanNode, _: Mapping[str, float], __: PlanLimits) -> Iterator[PlanFinding]:
    if node.spilled_kib:
        yield PlanFinding(
            PlanProblem.SPILL,
            node.label,
            {"spilled_kib": node.spilled_kib},
            f"{node.spilled_kib / 1024:.1f} MiB went to temporary files: set work_mem to some "
            f"{max(1, round(node.spilled_kib * 3 / 1024))} MiB for this query, or give it fewer "
            "rows or an order that an index has",
        )


def _filter(node: PlanNode, _: Mapping[str, float], limits: PlanLimits) -> Iterator[PlanFinding]:
    kept, removed = node.all_actual_rows, node.removed_by_filter
    if kept is None or not removed or node.kind == "Seq Scan":
        return
    share = kept / (kept + removed)
    if removed < limits.discarded_rows or share > limits.kept_share:
        return
    yield PlanFinding(
        PlanProblem.FILTER_DISCARDS_MOST,
        node.label,
        {"rows_kept": kept, "rows_discarded": removed, "filter": node.conditions["Filter"]},
        f"{removed} rows are fetched and thrown away for {kept:.0f}: an index that has the "
        "filter's columns too, or a partial one, would not fetch them",
    )


def _partitions(node: PlanNode, _: Mapping[str, float], __: PlanLimits) -> Iterator[PlanFinding]:
    if node.kind not in ("Append", "Merge Append"):
        return
    scans = [child for child in node.children if child.relation and child.loops]
    empty = [child for child in scans if child.actual_rows == 0]
    if len(scans) < 3 or len(empty) * 2 <= len(scans):
        return
    yield PlanFinding(
        PlanProblem.PARTITIONS_READ_FOR_NOTHING,
        node.label,
        {"partitions_read": len(scans), "without_a_row": len(empty)},
        f"{len(empty)} of {len(scans)} partitions were read and had nothing: name the column that "
        "they are cut by in the condition, so that they are left out",
    )


def _rows_read(node: PlanNode) -> float:
    own = node.rows if node.actual_rows is None else node.actual_rows
    if node.kind in ("Materialize", "CTE Scan"):
        return own
    removed = (node.removed_by_filter or 0) / max(node.loops or 1, 1)
    return own + removed


def _is_cut_short(node: PlanNode) -> bool:
    # A LIMIT gives less than it could; memoised scans differ from loop to loop; bitmaps count
    # what they never look at.
    return node.kind in ("Limit", "Memoize", "Bitmap Index Scan", "BitmapAnd", "BitmapOr")


_Judge = Callable[[PlanNode, Mapping[str, float], PlanLimits], Iterator[PlanFinding]]
_JUDGES: tuple[_Judge, ...] = (
    _sequential_scan,
    _nested_loop,
    _spill,
    _filter,
    _misestimate,
    _partitions,
)
