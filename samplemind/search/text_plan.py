"""Choosing how a full-text query is answered: pure, from estimates alone.

A GIN index has no order, so ranking all of a common word's hundred thousand matches takes a quarter
of a second. Few matches are gathered and ranked, every one. Many are met by walking the files in
descending quality, and the first of them are ranked: quality is part of the score, so the best are
among them nearly always. In an OR the best match several words at once and are rare among those
that match one, so these are looked for by themselves.

Invariant: a plan decides how much work is done and which of many near-equals are ranked first,
never which files match.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from samplemind.search.tsquery import Node, all_of, alternatives, estimate, render, two_of

# Matches that are ranked together where not all are: the measured overlap of the first twenty with
# an exact ranking is in docs/adr/0001-search.md.
BAND = 1000
# Files that are walked for them at most; a word in fewer than this share is gathered instead.
WALK = 60_000


@dataclass(frozen=True, slots=True)
class Source:
    """Some of the matches: a tsquery, and whether they are walked to or gathered."""

    query: str
    walked: bool


@dataclass(frozen=True, slots=True)
class TextPlan:
    """What is ranked.

    Attributes:
        query: the tsquery's text form.
        main: where the matches come from.
        extras: where the best of an OR come from, besides.
        matches: about how many files match.
    """

    query: str
    main: Source
    extras: tuple[Source, ...]
    matches: float

    def gathered(self) -> "TextPlan":
        """Return the plan that looks at every match: right at any estimate, slow for many."""
        return TextPlan(self.query, Source(self.query, walked=False), (), self.matches)


def plan_text(
    node: Node, documents: Mapping[str, int], files: int, share: float, rank_up_to: int
) -> TextPlan:
    """Return the plan for a query.

    Args:
        node: the query.
        documents: lexeme → how many files have it.
        files: how many files are indexed.
        share: how much of the library passes the filters, from 0 to 1.
        rank_up_to: matches up to which all are ranked.
    """

    def source(part: Node) -> Source:
        matches = share * estimate(part, documents, files)
        reached = matches * WALK >= BAND * files
        return Source(render(part), walked=matches > rank_up_to and reached)

    main = source(node)
    extras: tuple[Source, ...] = ()
    sides = alternatives(node)
    if main.walked and sides:
        extras = (source(two_of(sides)),)
        if len(sides) > 2:
            extras = (source(all_of(sides)), *extras)
    return TextPlan(main.query, main, extras, share * estimate(node, documents, files))
