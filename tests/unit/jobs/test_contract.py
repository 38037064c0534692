"""What other services see of the jobs: light to import, checked, versioned, written down."""

import subprocess
import sys
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from samplemind.errors import InvalidInputError
from samplemind.jobs.catalogue import PAGE, render
from samplemind.jobs.payloads import PAYLOADS, IndexFiles, Payload, payload_of

HEAVY = ("sqlalchemy", "beanie", "pymongo", "numpy", "librosa", "celery", "kombu", "redis")


def test_importing_the_client_loads_no_driver_no_celery_and_no_numpy() -> None:
    program = (
        "import sys, samplemind.jobs.client, samplemind.jobs.payloads\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_catalogue_is_up_to_date() -> None:
    assert PAGE.read_text() == render(), "docs/tasks.md is stale: run `make docs`"


def test_each_job_has_one_payload() -> None:
    assert len({payload.job_name for payload in PAYLOADS}) == len(PAYLOADS)
    assert all(payload_of(payload.job_name) is payload for payload in PAYLOADS)


@pytest.mark.parametrize(
    "fields",
    [{}, {"ids": []}, {"ids": ["no id"]}, {"ids": [str(uuid4())], "more": 1}, {"ids": None}],
)
def test_a_payload_that_does_not_fit_is_refused_with_the_field_named(
    fields: dict[str, Any],
) -> None:
    with pytest.raises(InvalidInputError, match=r"search\.index_files: (ids|more)"):
        IndexFiles.read(fields)


class Renamed(Payload):
    job_name = "test.renamed"
    schema_version: ClassVar[int] = 2
    path: str

    @classmethod
    def upgrade(cls, fields: dict[str, Any], version: int) -> dict[str, Any]:
        return {"path": fields["file"]} if version == 1 else fields


def test_an_older_producer_is_understood_and_a_newer_one_is_told() -> None:
    assert Renamed.read({"file": "a"}).path == "a"
    assert Renamed.read({"path": "a"}, 2).path == "a"
    with pytest.raises(InvalidInputError, match="bring this side up to date"):
        Renamed.read({"path": "a"}, 3)
