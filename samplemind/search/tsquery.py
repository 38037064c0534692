"""A query as PostgreSQL understood it: a tree of lexemes, read from the text form of a tsquery.

PostgreSQL alone parses what people type; this reads its answer, so that a plan can be chosen by
how common the lexemes are. What is written back is made of quoted lexemes and four operators.

Invariant: `render(parse(text))` means what `text` meant.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

_TOKEN = re.compile(
    r"\s*(?:'(?P<lexeme>(?:[^'\\]|''|\\.)*)'(?P<mark>:\*?[ABCD]*)?"
    r"|(?P<operator>[&|!()]|<(?:-|\d+)>))",
    re.DOTALL,
)

_BACKOFF = 0.8


@dataclass(frozen=True, slots=True)
class Term:
    """One lexeme; `mark` is what followed it, such as `:*`."""

    lexeme: str
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Not:
    """What must not match."""

    part: "Node"


@dataclass(frozen=True, slots=True)
class Joined:
    """Parts under one operator: `&`, `|`, or a phrase's `<->` and `<n>`."""

    operator: str
    parts: tuple["Node", ...]


Node = Term | Not | Joined


def parse(text: str) -> Node | None:
    """Read the text form of a tsquery; none where it holds nothing."""
    tokens = list(_TOKEN.finditer(text))
    return _Reader(tokens).read() if tokens else None


def render(node: Node) -> str:
    """Write a tree as a tsquery's text form."""
    if isinstance(node, Term):
        quoted = node.lexeme.replace("\\", "\\\\").replace("'", "''")
        return f"'{quoted}'{node.mark}"
    if isinstance(node, Not):
        return f"!({render(node.part)})"
    return f" {node.operator} ".join(f"({render(part)})" for part in node.parts)


def lexemes(node: Node) -> Iterator[str]:
    """Yield every lexeme that a match may have; not those that it must not."""
    if isinstance(node, Term):
        yield node.lexeme
    elif isinstance(node, Joined):
        for part in node.parts:
            yield from lexemes(part)


def wants_something(node: Node) -> bool:
    """Return whether every match has some lexeme; `-kick` alone would match nearly all files."""
    if isinstance(node, Term):
        return True
    if isinstance(node, Not):
        return False
    if node.operator == "|":
        return all(wants_something(part) for part in node.parts)
    return any(wants_something(part) for part in node.parts)


def wanted_part(node: Node) -> Node | None:
    """Return the query without what must not match; none where nothing is left."""
    if isinstance(node, Not):
        return None
    if isinstance(node, Term):
        return node
    parts = tuple(part for each in node.parts if (part := wanted_part(each)) is not None)
    if len(parts) < 2:
        return parts[0] if parts else None
    return Joined(node.operator, parts)


def estimate(node: Node, documents: Mapping[str, int], files: int) -> float:
    """Return about how many of `files` match, from how many have each lexeme.

    Words of names are not independent, so each further word is taken to narrow less than the one
    before (exponential backoff, as SQL Server's estimator has it).
    """
    if isinstance(node, Term):
        return documents.get(node.lexeme, 0)
    if isinstance(node, Not):
        return files
    counts = sorted(estimate(part, documents, files) for part in node.parts)
    if node.operator == "|":
        return min(files, sum(counts))
    result, exponent = counts[0], _BACKOFF
    for count in counts[1:]:
        result *= (min(count, files) / max(files, 1)) ** exponent
        exponent *= _BACKOFF
    return result


def is_guessed(node: Node) -> bool:
    """Return whether an estimate is of words that stand together, of which nothing is counted."""
    if not isinstance(node, Joined):
        return False
    return node.operator != "|" or any(map(is_guessed, node.parts))


def alternatives(node: Node, at_most: int | None = 6) -> tuple[Node, ...]:
    """Return the sides of an OR at the top of a query, `at_most` of them; else nothing."""
    if isinstance(node, Joined) and node.operator == "|":
        return node.parts[:at_most]
    return ()


def all_of(parts: tuple[Node, ...]) -> Node:
    """Return the query for files that match every part."""
    return Joined("&", parts)


def two_of(parts: tuple[Node, ...]) -> Node:
    """Return the query for files that match at least two of the parts."""
    return Joined("|", tuple(Joined("&", pair) for pair in combinations(parts, 2)))


class _Reader:
    """Reads by precedence: `!` binds closest, then phrases, then `&`, then `|`."""

    def __init__(self, tokens: list[re.Match[str]]) -> None:
        self._tokens = tokens
        self._place = 0

    def read(self) -> Node:
        return self._chain("|", lambda: self._chain("&", self._phrase))

    def _phrase(self) -> Node:
        left = self._operand()
        while (operator := self._operator()).startswith("<"):
            self._place += 1
            left = Joined(operator, (left, self._operand()))
        return left

    def _chain(self, operator: str, read: Callable[[], Node]) -> Node:
        parts = [read()]
        while self._operator() == operator:
            self._place += 1
            parts.append(read())
        return Joined(operator, tuple(parts)) if len(parts) > 1 else parts[0]

    def _operand(self) -> Node:
        token = self._tokens[self._place]
        self._place += 1
        if token["lexeme"] is not None:
            lexeme = re.sub(r"''|\\(.)", lambda quoted: quoted[1] or "'", token["lexeme"])
            return Term(lexeme, token["mark"] or "")
        if token["operator"] == "!":
            return Not(self._operand())
        inner = self.read()
        self._place += 1  # the closing bracket
        return inner

    def _operator(self) -> str:
        if self._place >= len(self._tokens):
            return ""
        return self._tokens[self._place]["operator"] or ""
