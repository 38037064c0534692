"""Search: trying a query with its scores and plans; how the index is, and its upkeep."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlencode

from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError, NotFoundError
from samplemind.jobs.payloads import FoldVectors, Payload, RebuildIndex, ReconcileIndex
from samplemind.maintenance.plans import Plan, PlanNode
from samplemind.models.periodic_run import PeriodicRun
from samplemind.repositories.periodic_runs import PeriodicRunRepository
from samplemind.search.configuration import outdated_words
from samplemind.search.dirty import index_lag
from samplemind.search.filter_text import parse_filters
from samplemind.search.filters import Filters
from samplemind.search.optimizer import SearchOptimizer, SearchStats
from samplemind.search.question import Search
from samplemind.search.trial import TRIED, Trial, try_search
from samplemind.settings import SearchSettings
from worker.console import wording
from worker.console.reading import Panel, Reading, Subject
from worker.console.room import Action, Outcome, Page, Problem, Room

_FILTERS = ("bpm", "key", "kind", "duration")
_LONGEST = 500
_MOST_HITS = 100
_DRIFT = ("missing", "stale", "surplus", "ahead")


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, as the address says it."""

    kind: Search
    query: str
    like: str
    filters: tuple[tuple[str, str], ...]
    tags: str
    limit: int
    with_plans: bool

    @property
    def asks(self) -> bool:
        """Whether there is anything to search for."""
        return bool(self.query or self.like)

    def narrowed(self) -> Filters:
        """Return the filters as the search takes them.

        Raises:
            InvalidInputError: a filter cannot be read.
        """
        values: dict[str, Any] = {name: value for name, value in self.filters if value}
        if self.tags:
            values["tags"] = [tag.strip() for tag in self.tags.split(",") if tag.strip()]
        return parse_filters(values, everything=True)


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial, or what is wrong with the question."""

    trial: Trial | None = None
    refused: str | None = None


class SearchPage(Page):
    """A query to try, and the state of the index."""

    template, room = "search.html", "search"
    renewed_s = 10

    def panels(self, *_: str) -> Mapping[str, Panel]:
        """Read the index's state; search, where something is asked."""
        connections, asked = self.connections, self._asked()
        panels = {
            "lag": Panel(partial(index_lag, connections.broker)),
            # It counts rows, of which there may be millions.
            "stats": Panel(SearchOptimizer(connections).get_search_stats, fresh_s=20, timeout_s=20),
            "reconciled": Panel(partial(_reconciled, connections), fresh_s=4),
        }
        if asked.asks:
            # Whoever reads an answer does not want it searched anew under their eyes.
            panels["tried"] = Panel(
                partial(_try, connections, asked),
                key=(asked,),
                fresh_s=600,
                patience_s=5,
                timeout_s=20,
            )
        return panels

    def facts(self, readings: Mapping[str, Reading]) -> Mapping[str, Any]:
        """Return what was asked, and what is wrong with the index."""
        asked, stats, reconciled = self._asked(), readings["stats"], readings["reconciled"]
        settings = self.connections.settings.search
        drift = drift_of(reconciled.value) if reconciled.ready else None
        return {
            "asked": asked,
            "kinds": TRIED,
            "filters": asked.filters,
            "problems": find_problems(stats.value, drift, settings) if stats.ready else [],
            "drift": drift,
            "target": settings.recall_target,
            "fresh_limit": settings.fresh_limit,
            "explained": explained,
            "plan_lines": plan_lines,
            "similar": partial(_similar, asked),
            "answer": readings.get("tried"),
        }

    def _asked(self) -> Asked:
        kind = self.text("kind_of_search")
        return Asked(
            kind=Search(kind) if kind in TRIED else Search.WORDS,
            query=self.text("q").strip()[:_LONGEST],
            like=self.text("like").strip()[:_LONGEST],
            filters=tuple((name, self.text(name).strip()[:100]) for name in _FILTERS),
            tags=self.text("tags").strip()[:_LONGEST],
            limit=self.whole("limit", 20, least=1, most=_MOST_HITS),
            with_plans=self.text("plans") == "1",
        )


class IndexAction(Action):
    """Upkeep of the index, done by a worker."""

    resource_kind: ClassVar[str] = "search_index"
    changes = (Subject.JOBS, Subject.SCHEDULE)
    job: ClassVar[Payload]
    done: ClassVar[str]

    async def act(self, *_: str) -> Outcome:
        """Send the job."""
        job_id = await self.run_recurring(self.job)
        return Outcome(self.done, details={"job_id": job_id})


class Reconcile(IndexAction):
    """Compares the library with the index and repairs."""

    action = "console.reconcile_index"
    question = "Compare the whole library with the index, and write what differs?"
    job = ReconcileIndex()
    done = "The library is being compared with the index; what differed shows here afterwards."


class Fold(IndexAction):
    """Moves fresh vectors into the approximate index."""

    action = "console.fold_vectors"
    question = "Move the fresh vectors into the approximate index now?"
    job = FoldVectors()
    done = "Fresh vectors are being folded, for some seconds."


class Rebuild(IndexAction):
    """Makes the whole index anew."""

    action = "console.rebuild_index"
    question = "Make the whole index anew? The present one serves until it is done."
    wants_reason = True
    job = RebuildIndex()
    done = "The index is being made anew beside the one that serves; its progress shows here."


def find_problems(
    stats: SearchStats, drift: Mapping[str, int] | None, settings: SearchSettings
) -> list[Problem]:
    """Return what is wrong with the index, the worst first; pure."""
    found = []
    freshness, lag = stats.freshness, stats.lag
    words = outdated_words(freshness.text_configuration, settings.text_configuration)
    if words is not None:
        found.append(Problem("danger", words, "rebuild the index"))
    best = max((each.recall for each in stats.recall), default=None)
    if best is not None and best < settings.recall_target:
        text = f"Searches by sound find {best:.1%} of the nearest; {settings.recall_target:.1%}"
        found.append(Problem("danger", f"{text} is wanted", "`samplemind db vacuum --reindex`"))
    if lag.is_late:
        late = wording.duration(lag.oldest_s)
        text = f"The index is {late} behind: {wording.number(lag.waiting)} files wait"
        found.append(Problem("warning", text, "look whether a worker takes the queue index"))
    if drift is not None and any(drift.values()):
        parts = ", ".join(f"{wording.number(drift[name])} {name}" for name in _DRIFT if drift[name])
        text = f"The last comparison found rows that differ: {parts}"
        found.append(Problem("warning", text, "they were marked; reconcile again to be sure"))
    if freshness.fresh_vectors > settings.fresh_limit:
        text = f"{wording.number(freshness.fresh_vectors)} fresh vectors slow searches by sound"
        found.append(Problem("warning", text, "fold them"))
    return found


def drift_of(run: PeriodicRun | None) -> dict[str, int] | None:
    """Return how the index differed when it was compared last; none: nobody told."""
    figures = run.figures if run is not None else {}
    if not all(isinstance(figures.get(name), int) for name in _DRIFT):
        return None
    return {name: figures[name] for name in _DRIFT}


def explained(parts: Mapping[str, float] | None) -> str:
    """Return what a score is made of, in a line."""
    return ", ".join(f"{wording.words(name)} {value:g}" for name, value in (parts or {}).items())


def plan_lines(plan: Plan) -> list[tuple[int, PlanNode]]:
    """Return the nodes of a plan with their depth, parents first."""

    def below(node: PlanNode, depth: int) -> list[tuple[int, PlanNode]]:
        return [(depth, node), *(line for each in node.children for line in below(each, depth + 1))]

    return below(plan.root, 0)


def _similar(asked: Asked, file_id: object) -> str:
    fields = {"kind_of_search": Search.SIMILAR.value, "like": str(file_id)}
    kept = {name: value for name, value in asked.filters if value}
    return "/search?" + urlencode({**fields, **kept, "plans": "1" if asked.with_plans else ""})


async def _try(connections: Connections, asked: Asked) -> Tried:
    # A question that cannot be answered is told beside its form; the store is well.
    try:
        trial = await try_search(
            connections,
            asked.kind,
            asked.query,
            like=asked.like,
            filters=asked.narrowed(),
            limit=asked.limit,
            with_plans=asked.with_plans,
        )
    except (InvalidInputError, NotFoundError) as error:
        return Tried(refused=str(error))
    return Tried(trial)


async def _reconciled(connections: Connections) -> PeriodicRun | None:
    name = ReconcileIndex.job_name
    async with connections.postgres.session() as session:
        return (await PeriodicRunRepository(session).latest_ended([name])).get(name)


ROOM = Room(
    "search",
    "Search",
    (
        ("/search", SearchPage),
        ("/search/reconcile", Reconcile),
        ("/search/fold", Fold),
        ("/search/rebuild", Rebuild),
    ),
)
