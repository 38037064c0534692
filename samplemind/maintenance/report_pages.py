"""The health report as Markdown for a ticket and as one HTML file with charts.

Invariant: pure; what comes from the database is escaped. The HTML needs nothing from elsewhere.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

from samplemind.maintenance.report import HealthReport, Item

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;
color:#1c2330;background:#fff}
table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{text-align:left;padding:.4rem .6rem;
border-bottom:1px solid #d8dde6;vertical-align:top}th{color:#586273;font-weight:600}
code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}
.critical{color:#a3121f;font-weight:700}.warning{color:#8a4b00;font-weight:600}.advice{color:#345}
svg text{font:12px system-ui,sans-serif;fill:currentColor}
@media (prefers-color-scheme:dark){body{color:#e4e8ef;background:#14181f}td,th{border-color:#333c4a}
.critical{color:#ff8089}.warning{color:#ffb35c}.advice{color:#a9bddb}th{color:#9aa6b8}}
"""
_BAR_PX = 520
_MOST_BARS = 12


def as_json(report: HealthReport) -> dict[str, Any]:
    """Return the report for `--json`."""
    return {
        "made_at": report.made_at,
        "seconds": report.seconds,
        "healthy": not report.items,
        "items": [asdict(item) for item in report.items],
        **asdict(report.figures),
    }


def as_markdown(report: HealthReport) -> str:
    """Return the report for a ticket."""
    database = report.figures.database
    lines = [
        f"# Database {_cell(database['name'])}, {report.made_at:%Y-%m-%d %H:%M} UTC",
        "",
        f"PostgreSQL {_cell(database['version'])}, {_mib(database['size_bytes'])}",
        "",
        "## What to do",
        "",
    ]
    if not report.items:
        lines.append("Nothing: no table, index or statement stands out.")
    else:
        lines += _markdown_table(
            ("severity", "what", "problem", "evidence", "do", "wins"),
            (
                (
                    item.severity.value,
                    item.subject,
                    item.problem,
                    _evidence(item),
                    item.action,
                    item.wins,
                )
                for item in report.items
            ),
        )
    lines += ["", "## Statements by total time", ""]
    lines += _markdown_table(
        ("share", "calls", "mean ms", "statement"),
        (
            (
                f"{each.share_percent:.1f} %",
                each.calls,
                f"{each.mean_ms:.2f}",
                " ".join(each.query.split())[:160],
            )
            for each in report.figures.slow
        ),
    )
    return "\n".join(lines) + "\n"


def as_html(report: HealthReport) -> str:
    """Return the report as a page with charts."""
    database = report.figures.database
    title = f"Database {database['name']}, {report.made_at:%Y-%m-%d %H:%M} UTC"
    rows = "".join(
        f'<tr><td class="{item.severity.value}">{item.severity.value}</td>'
        f"<td>{escape(item.subject)}<br>{escape(item.problem)}</td>"
        f"<td>{escape(_evidence(item))}</td><td><code>{escape(item.action)}</code></td>"
        f"<td>{escape(item.wins)}</td></tr>"
        for item in report.items
    )
    todo = (
        "<table><tr><th>Severity</th><th>What</th><th>Evidence</th><th>Do</th><th>Wins</th></tr>"
        f"{rows}</table>"
        if report.items
        else "<p>Nothing: no table, index or statement stands out.</p>"
    )
    tables = [(each.table, each.table_bytes + each.index_bytes) for each in report.figures.tables]
    wasted = [
        (each.name, each.wasted_bytes)
        for each in (*report.figures.bloat.tables, *report.figures.bloat.indexes)
        if each.wasted_bytes
    ]
    slow = [(" ".join(each.query.split()), each.total_ms / 1000) for each in report.figures.slow]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>PostgreSQL {escape(str(database['version']))}, "
        f"{_mib(database['size_bytes'])}, {database['sessions']} sessions.</p>"
        f"<h2>What to do</h2>{todo}"
        f"<h2>Statements by total time, seconds</h2>{_chart(slow, '{:,.1f} s')}"
        f"<h2>Largest tables with their indexes</h2>{_chart(_in_mib(tables), '{:,.1f} MiB')}"
        f"<h2>Wasted space</h2>{_chart(_in_mib(wasted), '{:,.1f} MiB')}</body></html>\n"
    )


def _chart(values: Sequence[tuple[str, float]], unit: str) -> str:
    shown = sorted(values, key=lambda pair: -pair[1])[:_MOST_BARS]
    largest = max((value for _, value in shown), default=0)
    if largest <= 0:
        return "<p>None.</p>"
    bars = "".join(
        f'<g transform="translate(0,{34 * place})"><title>{escape(name)}</title>'
        f'<text x="0" y="11">{escape(name[:90])}</text>'
        f'<rect x="0" y="15" width="{max(1.0, _BAR_PX * value / largest):.1f}" height="12" '
        f'fill="#3f74c9"/><text x="{_BAR_PX * value / largest + 8:.1f}" y="26">'
        f"{unit.format(value)}</text></g>"
        for place, (name, value) in enumerate(shown)
    )
    return f'<svg role="img" width="100%" viewBox="0 0 680 {34 * len(shown)}">{bars}</svg>'


def _in_mib(values: Iterable[tuple[str, int]]) -> list[tuple[str, float]]:
    return [(name, value / 2**20) for name, value in values]


def _markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return lines + [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|")


def _evidence(item: Item) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in item.evidence.items())


def _short(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if isinstance(value, str) else json.dumps(value, default=str)
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.1f} MiB"
