"""The page of settings says what the tree says."""

import re

from samplemind.settings import Settings, variable_names
from samplemind.settings_catalogue import PAGE, render


def row(variable: str) -> list[str]:
    [line] = [line for line in render().splitlines() if line.startswith(f"| `{variable}` |")]
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == render(), "docs/settings.md is stale: run `make docs`"


def test_every_variable_has_a_row_with_its_meaning():
    for variable, meaning in variable_names().items():
        assert row(variable)[3].replace("\\", "") == meaning != ""


def test_a_row_says_unit_bounds_and_default():
    assert row("SAMPLEMIND_BROKER_LEASE_S")[1:3] == ["seconds, at least 3", "`15`"]
    assert row("SAMPLEMIND_STORAGE_PART_MIB")[1:3] == ["MiB, at least 5, at most 512", "`8`"]
    assert row("SAMPLEMIND_STORAGE_KIND")[1] == "`local` or `s3` or `gcs` or `azure`"
    assert row("SAMPLEMIND_POSTGRES_URL")[1:3] == ["secret", ""]
    assert row("SAMPLEMIND_SEARCH_RECALL_TARGET")[1] == "number, more than 0, less than 1"


def test_what_is_checked_between_settings_is_told():
    told = render().partition("## What must fit what")[2]
    for names in (
        ("broker.lease_s", "broker.lease_renewal_s"),
        ("worker.soft_time_limit_s", "worker.time_limit_s"),
        ("batch.claim_s", "mongo.timeout_ms"),
        ("search.hnsw_ef_construction", "search.hnsw_m"),
        ("console.basic_auth", "console.host"),
    ):
        assert any(all(name in line for name in names) for line in told.splitlines()), names
    known = {name.removeprefix("SAMPLEMIND_").lower() for name in variable_names()}
    for group, field in re.findall(r"`([a-z]+)\.(\w+)`", told):
        assert f"{group}_{field}" in known
        assert group in Settings.model_fields
