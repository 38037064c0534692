"""Where a page of a search ended, as a text that the next page is asked for with.

Invariant: a cursor continues the search that made it and no other; one that was altered or belongs
to another query is refused. It says nothing that the page did not show.
"""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from uuid import UUID

from samplemind.errors import InvalidInputError

_MAX_LENGTH = 2000


@dataclass(frozen=True, slots=True)
class Place:
    """A file's place in an order: what it is ordered by, then its id."""

    value: float
    file_id: UUID


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last hit of a page, and the band of matches that was being ranked.

    Attributes:
        last: score and id of the last hit; none: the band starts.
        above: the place in quality below which the band begins; none: at the best.
        below: the place that it ends with; none: at the last match.
        extras: of each further source, the place that it ends with; none where it was whole.
    """

    last: Place | None = None
    above: Place | None = None
    below: Place | None = None
    extras: tuple[Place | None, ...] = ()


def encode(cursor: Cursor, search: object) -> str:
    """Return the text; `search` is whatever the cursor belongs to."""
    places = [_pair(place) for place in (cursor.last, cursor.above, cursor.below)]
    data = [_mark(search), *places, [_pair(place) for place in cursor.extras]]
    return base64.urlsafe_b64encode(json.dumps(data).encode()).decode()


def decode(text: str, search: object) -> Cursor:
    """Read a cursor that `encode` wrote for the same search.

    Raises:
        InvalidInputError: it is another search's, or no cursor.
    """
    try:
        if len(text) > _MAX_LENGTH:
            raise ValueError
        mark, last, above, below, extras = json.loads(base64.b64decode(text, b"-_", validate=True))
        cursor = Cursor(
            _place(last), _place(above), _place(below), tuple(_place(pair) for pair in extras)
        )
    except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
        message = "this is no cursor: give back next_cursor as a page returned it"
        raise InvalidInputError(message) from None
    if mark != _mark(search):
        message = "this cursor belongs to another query or other filters: start from the first page"
        raise InvalidInputError(message)
    return cursor


def _mark(search: object) -> str:
    return hashlib.blake2b(repr(search).encode(), digest_size=8).hexdigest()


def _pair(place: Place | None) -> tuple[float, str] | None:
    return None if place is None else (place.value, str(place.file_id))


def _place(pair: object) -> Place | None:
    if pair is None:
        return None
    if not isinstance(pair, list) or len(pair) != 2:
        raise ValueError
    return Place(float(pair[0]), UUID(pair[1]))
