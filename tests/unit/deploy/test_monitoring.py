"""Rules, dashboards and the runbook name what exists, and each other."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from samplemind.backup.catalog import OLD_AFTER
from samplemind.cli.main import cli
from samplemind.jobs import standing
from samplemind.jobs.payloads import PAYLOADS
from samplemind.search import dirty
from samplemind.settings import variable_names
from worker.metrics.catalogue import METRICS

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
PROMTOOL = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is missing: apt-get install prometheus"
)

_NAME = re.compile(r"(?<![\w:])samplemind[:_][a-z0-9_:]+")
_COMMAND = re.compile(r"`samplemind ([^`]+)`")
_LABELS = re.compile(r"(samplemind_[a-z_0-9]+)\{([^}]*)\}")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def alerts_section() -> str:
    text = (ROOT / "docs" / "runbook.md").read_text()
    return re.split(r"^## ", text.partition("\n## Alerts\n")[2], flags=re.MULTILINE)[0]


def headings() -> dict[str, str]:
    _, *parts = re.split(r"^### ", alerts_section(), flags=re.MULTILINE)
    return {title: body for title, _, body in (part.partition("\n") for part in parts)}


def queries() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.name}: {panel['title']}", target["expr"]


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [str(PROMTOOL), *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tested_to_fire() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    fired = {
        case["name"] for case in tests if any(q["exp_samples"] for q in case["promql_expr_test"])
    }
    assert fired == {alert["alert"] for alert in alerts()}


def test_each_alert_has_its_heading_and_each_heading_its_alert() -> None:
    assert [alert["alert"] for alert in alerts()] == list(headings())


def test_each_alert_says_where_its_mend_is() -> None:
    for alert in alerts():
        name = alert["alert"]
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert alert["annotations"]["summary"]
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        for part in ("**Means**: ", "**First look**: ", "**Mend**: "):
            assert part in headings()[name], f"{name} lacks {part}"


def test_the_console_calls_late_what_an_alert_calls_late() -> None:
    exprs = {alert["alert"]: alert["expr"] for alert in alerts()}

    def bound(name: str) -> float:
        return float(exprs[name].rpartition(">")[2])

    assert bound("SampleMindBackupTooOld") == OLD_AFTER.total_seconds()
    assert bound("SampleMindIndexBehind") == dirty.LATE_AFTER_S
    told = re.findall(r'queue=~?"([a-z|]+)"}\) > (\d+)', exprs["SampleMindQueueOld"])
    bounds = {queue: float(seconds) for queues, seconds in told for queue in queues.split("|")}
    assert bounds == {queue.value: late for queue, late in standing.LATE_AFTER_S.items()}


def test_every_metric_that_is_asked_for_exists() -> None:
    known = {series for metric in METRICS for series in metric.series()} | recorded()
    for place, query in queries():
        unknown = set(_NAME.findall(query)) - known
        assert not unknown, f"{place} asks for {unknown}"


def test_every_label_that_is_asked_for_exists() -> None:
    labels = {
        series: {*metric.labels, "le", "instance", "job"}
        for metric in METRICS
        for series in metric.series()
    }
    for place, query in queries():
        for name, chosen in _LABELS.findall(query):
            wanted = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", chosen))
            assert wanted <= labels[name], f"{place} asks {name} for {wanted - labels[name]}"


def test_every_metric_is_on_a_dashboard_or_in_a_rule() -> None:
    asked = {name for _, query in queries() for name in _NAME.findall(query)}
    unseen = {metric.name for metric in METRICS if not asked & set(metric.series())}
    # How a worker's main loop is, `/ready` tells in words.
    assert (
        unseen
        == {
            "samplemind_worker_connected",
            "samplemind_worker_waiting_messages",
            "samplemind_worker_looked_timestamp_seconds",
            "samplemind_workers_failing",
            "samplemind_delayed_late_seconds",
        }
        - asked
    )


def test_every_command_in_the_section_exists() -> None:
    for line in _COMMAND.findall(alerts_section()):
        words = line.split()
        command: click.Command = cli
        while isinstance(command, click.Group) and words:
            found = command.get_command(click.Context(command), words[0])
            assert found is not None, f"samplemind {line}: no command {words[0]}"
            command = found
            words.pop(0)
        known = {option for parameter in command.params for option in parameter.opts}
        options = {word for word in words if word.startswith("--")}
        assert options <= known, f"samplemind {line}: no {options - known}"
        jobs = {word for word in words if re.fullmatch(r"[a-z]+\.[a-z_]+", word)}
        assert jobs <= {payload.job_name for payload in PAYLOADS}


def test_every_setting_and_alert_in_the_section_exists() -> None:
    text = alerts_section() + (PROMETHEUS / "prometheus.yml").read_text()
    settings = set(re.findall(r"SAMPLEMIND_[A-Z_]+\b(?!…)", text)) - {
        "SAMPLEMIND_",
        "SAMPLEMIND_STORAGE_",
    }
    assert settings <= set(variable_names())
    assert set(re.findall(r"\bSampleMind[A-Z]\w+", text)) <= set(headings())


def test_every_job_named_in_a_rule_exists() -> None:
    names = {payload.job_name for payload in PAYLOADS}
    areas = {name.partition(".")[0] for name in names}
    for place, query in queries():
        for pattern in re.findall(r'task[!=]~?"([^"]+)"', query):
            assert pattern.replace("[.].*", "") in areas | names, place


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    assert dashboard["uid"] == path.stem
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one in range(len(places)):
        for other in places[one + 1 :]:
            assert not overlap(places[one], other), panels[one]["title"]


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )
