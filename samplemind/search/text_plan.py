"""Choosing how a full-text query is answered: pure, from estimates alone.

A GIN index has no order, so ranking all of a common word's hundred thousand matches takes a quarter
of a second. Few matches are gathered and ranked, every one. Many are met by walking the files in
descending quality, and the first of them are ranked: quality is part of the score, so the best are
nearly always among them. In an OR the best match several words at once and are rare among those
that match one, so these are looked for by themselves.

Invariant: a plan decides how much work is done and which of many near-equals are ranked first,
never which files match.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from samplemind.search.tsquery import (
    Node,
    Term,
    all_of,
    alternatives,
    estimate,
    is_guessed,
    render,
    two_of,
    wanted_part,
)

# Matches of several words at once may be half as many as they are estimated.
_DOUBT = 2


@dataclass(frozen=True, slots=True)
class TextBounds:
    """How much work a query may be.

    Attributes:
        rank_up_to: matches up to which all are gathered and ranked.
        band: matches that are ranked together where not all are.
        prove: matches that are ranked before these, where that may already prove the best.
        least: matches that are enough, where no more are met.
        walk: files that are walked for these at most; a word of fewer files is gathered instead.
    """

    rank_up_to: int = 6000
    band: int = 1000
    prove: int = 250
    least: int = 200
    walk: int = 30_000


@dataclass(frozen=True, slots=True)
class Source:
    """Some of the matches: a tsquery's text form, and whether they are walked to or gathered."""

    query: str
    walked: bool


@dataclass(frozen=True, slots=True)
class Ranked:
    """A query that a part of the rank is for; `is_word`: a single one."""

    query: str
    is_word: bool


@dataclass(frozen=True, slots=True)
class TextPlan:
    """What is ranked.

    Attributes:
        ranked: the sides of the OR that matches are ranked by, or the one query that it is:
            `ts_rank` counts words that must not be there as missing, which would make all ranks
            of `kick -dark` zero.
        main: where the matches come from.
        extras: where the best matches of an OR come from, besides.
        matches: about how many files match.
    """

    ranked: tuple[Ranked, ...]
    main: Source
    extras: tuple[Source, ...]
    matches: float

    @property
    def kind(self) -> str:
        """The plan in a word, for `--explain`."""
        return "walked" if self.main.walked else "gathered"

    @property
    def may_be_proven(self) -> bool:
        """Whether the best are known to be the best without ranking all: ranks have a bound."""
        return self.main.walked and all(part.is_word for part in self.ranked)

    @property
    def share_beyond(self) -> float:
        """The greatest share of the ranks that a match beyond the first band may have.

        Where the extras are whole, a match of an OR that is not among them has one side alone.
        """
        known = self.extras and not any(extra.walked for extra in self.extras)
        return 1 / len(self.ranked) if known else 1.0

    def form(self) -> tuple["TextPlan", dict[str, str]]:
        """Return the plan with names in place of its queries, and the queries by these names.

        Plans of one form have one statement, which need not be made again.
        """
        names: dict[str, str] = {}

        def name(query: str) -> str:
            return names.setdefault(query, f"query_{len(names)}")

        form = TextPlan(
            tuple(replace(part, query=name(part.query)) for part in self.ranked),
            replace(self.main, query=name(self.main.query)),
            tuple(replace(extra, query=name(extra.query)) for extra in self.extras),
            0.0,
        )
        return form, {name: query for query, name in names.items()}

    def gathered(self) -> "TextPlan":
        """Return the plan that looks at every match: right at any estimate, slow for many."""
        return replace(self, main=Source(self.main.query, walked=False), extras=())

    def continued(self, *, walked: bool, extras: int) -> "TextPlan":
        """Return the plan of a later page, whose cursor tells what was ranked before it."""
        known = tuple(Source(source.query, walked=False) for source in self.extras[:extras])
        return replace(self, main=Source(self.main.query, walked=walked), extras=known)


def plan_text(
    node: Node, documents: Mapping[str, int], files: int, share: float, bounds: TextBounds
) -> TextPlan:
    """Return the plan for a query.

    Args:
        node: the query.
        documents: lexeme → how many files have it.
        files: how many files are indexed.
        share: how much of the library passes the filters, from 0 to 1.
        bounds: how much work it may be.
    """

    def source(part: Node) -> Source:
        matches = share * estimate(part, documents, files)
        # A walk that meets too few was for nothing.
        least = _DOUBT * bounds.least if is_guessed(part) else bounds.least
        reached = matches * bounds.walk >= least * files
        return Source(render(part), walked=matches > bounds.rank_up_to and reached)

    main = source(node)
    sides = alternatives(node)
    extras = tuple(source(part) for part in _best_of(sides)) if sides else ()
    wanted = wanted_part(node) or node
    ranked = tuple(
        Ranked(render(part), isinstance(part, Term))
        for part in alternatives(wanted, at_most=None) or (wanted,)
    )
    return TextPlan(ranked, main, extras, share * estimate(node, documents, files))


def _best_of(sides: tuple[Node, ...]) -> tuple[Node, ...]:
    if len(sides) == 2:
        return (all_of(sides),)
    return (all_of(sides), two_of(sides))
