"""`samplemind doctor`: what is wrong and how to mend it, then the effective settings.

Invariant: it changes nothing, and no secret is printed, not even a part of one.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

import click
from pydantic import SecretStr

from samplemind.cli.output import console, json_option, print_json
from samplemind.cli.session import with_connections
from samplemind.connections.resources import Connections
from samplemind.embedded.checks import Finding, Verdict, examine
from samplemind.embedded.home import StackHome
from samplemind.embedded.probes import address_of
from samplemind.endpoints import Store, read_endpoints
from samplemind.errors import StackNotRunningError, TransientError
from samplemind.search.configuration import MEND, index_configuration, outdated_words
from samplemind.secret_files import SUFFIX
from samplemind.settings import Settings, load_settings, variable_names

_MASK = "********"
_COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


class Source(StrEnum):
    """Where a setting's value comes from."""

    DEFAULT = "default"
    ENVIRONMENT = "environment"
    FILE = "file"
    EMBEDDED = "embedded"


@dataclass(frozen=True)
class EffectiveSetting:
    """One setting as it counts now, safe to show."""

    name: str
    value: str
    source: Source
    meaning: str


@click.command()
@json_option
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Check settings, servers, disk and clock; exit 1 if something must be mended.

    Example: samplemind doctor
    """
    settings = load_settings()
    StackHome(settings.home).require_access()
    findings = [*examine(settings), *_examine_index(settings)]
    effective = list(effective_settings(settings, read_endpoints(settings.home)))
    sound = all(finding.verdict is not Verdict.FAIL for finding in findings)
    if as_json:
        print_json(
            {
                "ok": sound,
                "checks": [asdict(finding) for finding in findings],
                "settings": [asdict(setting) for setting in effective],
            }
        )
    else:
        for finding in findings:
            _print_finding(finding)
        console.print()
        for setting in effective:
            _print_setting(setting)
    context.exit(0 if sound else 1)


def effective_settings(
    settings: Settings, endpoints: Mapping[Store, SecretStr]
) -> Iterator[EffectiveSetting]:
    """Yield every setting with its value, secrets masked, and where the value comes from."""
    given = {name.upper() for name, value in os.environ.items() if value}
    values = _values(settings)
    stores = {f"SAMPLEMIND_{store.name}_URL": store for store in Store}
    for name, meaning in variable_names().items():
        store = stores.get(name)
        source = _source(name, given)
        if store is None:
            shown = _shown(values[name])
        else:
            url = settings.url(store)
            if url is None and store in endpoints:
                url, source = endpoints[store], Source.EMBEDDED
            shown = "" if url is None else f"{_MASK}@{address_of(store, url)}"
        yield EffectiveSetting(name, shown, source, meaning)


def _source(name: str, given: set[str]) -> Source:
    if name in given:
        return Source.ENVIRONMENT
    return Source.FILE if f"{name}{SUFFIX}" in given else Source.DEFAULT


def _examine_index(settings: Settings) -> Iterator[Finding]:
    async def work(connections: Connections) -> str | None:
        async with connections.postgres.session() as session:
            return await index_configuration(session)

    try:
        indexed_in = with_connections(work)
    except (StackNotRunningError, TransientError):
        # PostgreSQL's own line has told it.
        return
    warning = outdated_words(indexed_in, settings.search.text_configuration)
    if warning is not None:
        yield Finding("index", Verdict.WARN, warning, f"run `{MEND}`")
    elif indexed_in is not None:
        yield Finding("index", Verdict.OK, f"its words are in {indexed_in}, as queries are")


def _values(settings: Settings) -> dict[str, object]:
    values: dict[str, object] = {"SAMPLEMIND_HOME": settings.home}
    for name in type(settings).model_fields:
        group = getattr(settings, name)
        for leaf in getattr(type(group), "model_fields", ()):
            values[f"SAMPLEMIND_{name}_{leaf}".upper()] = getattr(group, leaf)
    return values


def _shown(value: object) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, SecretStr | tuple):  # the only tuple holds older keys
        return _MASK
    return str(value)


def _print_setting(setting: EffectiveSetting) -> None:
    value = f"{setting.value or '-'} ({setting.source.value})"
    line = f"{setting.name:<43} {value:<30} {setting.meaning}"
    console.print(line, markup=False, soft_wrap=True)


def _print_finding(finding: Finding) -> None:
    colour = _COLOURS[finding.verdict]
    console.print(f"[{colour}]{finding.verdict.value:<4}[/{colour}]", end=" ")
    mend = f" → {finding.mend}" if finding.mend else ""
    console.print(f"{finding.check}: {finding.message}{mend}", markup=False, soft_wrap=True)
