"""What holds for every room: by the registry, so that a new room is held to it too."""

import re

import pytest

from samplemind.connections.resources import Connections
from samplemind.repositories.audit import AuditLogRepository
from tests.integration.console.conftest import VIC, Served, json_of
from worker.console.room import Action
from worker.console.rooms import ROOMS

_NAMES = (
    "01000000-0000-7000-8000-000000000000",
    "search.fold",
    "20260101T000000Z-logical-00000000",
)


def deed(pattern: str) -> str:
    """Return an address that the pattern takes."""
    filled = [re.sub(r"\(.*\)", name, pattern) for name in _NAMES]
    return next(path for path in filled if re.fullmatch(pattern, path))


DEEDS = [
    deed(pattern)
    for room in ROOMS
    for pattern, handler in room.handlers
    if issubclass(handler, Action)
]


def test_the_registry_names_deeds_of_every_room_that_has_any() -> None:
    assert {path.split("/")[1] for path in DEEDS} >= {
        "batches",
        "failed-jobs",
        "backups",
        "schedule",
        "database",
        "search",
        "cache",
    }


def test_each_deed_says_what_it_changes_so_that_no_page_shows_it_as_it_was() -> None:
    silent = [
        handler.__name__
        for room in ROOMS
        for _, handler in room.handlers
        if issubclass(handler, Action) and not getattr(handler, "changes", ())
    ]
    assert silent == []


@pytest.mark.parametrize("path", DEEDS)
async def test_a_viewer_changes_nothing_in_any_room_and_the_attempt_is_audited(
    served: Served, connections: Connections, path: str
) -> None:
    answer = await served.by(VIC).post(path, {"confirmed": "1"}, Accept="application/json")
    assert answer.code == 403
    assert "operator" in json_of(answer)["message"]
    async with connections.postgres.session() as session:
        (entry,) = await AuditLogRepository(session).with_details({"by": "vic"})
    assert entry.outcome == "denied"
    assert await connections.broker.keys("sm:*") == []
