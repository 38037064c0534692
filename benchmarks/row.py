"""One measured figure, as it is printed and written."""

from typing import TypedDict


class Row(TypedDict):
    """A figure beside its peer (measured in the same run) and its goal; none where there is none.

    `ratio` is how many times better than the peer; `met` is none where no goal is set.
    """

    name: str
    value: float
    unit: str
    peer: str | None
    peer_value: float | None
    ratio: float | None
    goal: str | None
    met: bool | None


def row(
    name: str,
    value: float,
    unit: str,
    *,
    peer: tuple[str, float] | None = None,
    ratio: float | None = None,
    goal: str | None = None,
    met: bool | None = None,
) -> Row:
    """Return a row; without a peer, its fields are none."""
    return Row(
        name=name,
        value=value,
        unit=unit,
        peer=peer[0] if peer else None,
        peer_value=peer[1] if peer else None,
        ratio=ratio,
        goal=goal,
        met=met,
    )
