"""Which full-text queries walk the best files, and which gather every match."""

import pytest

from samplemind.search.text_plan import TextBounds, plan_text
from samplemind.search.tsquery import parse

FILES = 1_000_000
BOUNDS = TextBounds(rank_up_to=6000, least=200, walk=30_000)
# A walk of 30,000 of a million files meets 200 of so many matches.
REACHED = 200 * FILES // 30_000 + 1


@pytest.mark.parametrize(
    ("query", "documents", "kind"),
    [
        ("'a'", {"a": 6000}, "gathered"),
        ("'a'", {"a": REACHED - 1}, "gathered"),
        ("'a'", {"a": REACHED}, "walked"),
        # The sides of an OR are counted, so their sum is as good as a count.
        ("'a' | 'b'", {"a": REACHED // 2, "b": REACHED}, "walked"),
        # How many have both words is guessed: a walk must be expected to meet twice as many.
        ("'a' & 'b'", {"a": REACHED, "b": FILES}, "gathered"),
        ("'a' & 'b'", {"a": 2 * REACHED, "b": FILES}, "walked"),
        ("'a' & 'b' | 'c'", {"a": REACHED, "b": FILES, "c": 1}, "gathered"),
    ],
)
def test_a_query_walks_where_it_may_expect_to_meet_enough(
    query: str, documents: dict[str, int], kind: str
) -> None:
    node = parse(query)
    assert node is not None
    assert plan_text(node, documents, FILES, 1.0, BOUNDS).kind == kind
