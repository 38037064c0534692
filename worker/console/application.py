"""Flower's application with every handler guarded, and ours before it.

Invariant: a request meets a guarded handler or none. Tornado asks the handlers that are added here
before those that Flower has of its own, and ours end in one that takes every path.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from flower.api import tasks
from flower.app import Flower
from flower.urls import handlers as flowers_handlers
from flower.urls import settings as flowers_settings
from flower.views import auth
from flower.views.error import NotFoundErrorHandler
from flower.views.monitor import Healthcheck, Metrics
from flower.views.tasks import TasksDataTable
from tornado.routing import URLSpec
from tornado.web import RedirectHandler, RequestHandler, StaticFileHandler, url

from samplemind.connections.resources import Connections
from samplemind.settings import ConsoleSettings, OAuthProvider, Settings
from worker.console.access import Accounts, Role, SignIns
from worker.console.depths import Depths
from worker.console.guard import Files, Guarded
from worker.console.hits import Hits
from worker.console.loader import Loader, check_templates
from worker.console.reading import Board
from worker.console.room import Room
from worker.console.rooms import ROOMS
from worker.console.threads import Threads
from worker.metrics import catalogue
from worker.metrics.page import Page
from worker.roles import run_directory

_STATIC = Path(__file__).parent / "static"

_LOGINS: dict[OAuthProvider, type[RequestHandler]] = {
    OAuthProvider.GOOGLE: auth.GoogleAuth2LoginHandler,
    OAuthProvider.GITHUB: auth.GithubLoginHandler,
    OAuthProvider.GITLAB: auth.GitLabLoginHandler,
    OAuthProvider.OKTA: auth.OktaLoginHandler,
}
# What Flower's handlers need that is not a viewer's look or an operator's deed.
_EXCEPTIONS: dict[type[RequestHandler], dict[str, Any]] = {
    TasksDataTable: {"needs": Role.VIEWER, "audited": False},  # it posts its filters
    auth.LogoutHandler: {"needs": Role.NOBODY},
    Metrics: {"takes_token": True},
    Healthcheck: {"takes_token": True, "answers_probes": True},
    # A job's arguments and result as they are, and a thread that waits for them.
    tasks.TaskResult: {"needs": Role.OPERATOR, "audited": False},
}

# The pool is shared by few people who look; a store that is away is told within seconds.
_POOL_SIZE = 4
_POOL_OVERFLOW = 4
_TIMEOUT_MS = 3000
_SETTLING_S = 5.0


class Console(Flower):
    """The whole console; it listens to nothing before it is started."""

    def __init__(
        self,
        settings: Settings,
        cookie_secret: str,
        *,
        rooms: tuple[Room, ...] = ROOMS,
        **options: Any,
    ) -> None:
        """Put the handlers together.

        Args:
            settings: with the URL of each store.
            cookie_secret: signs the cookies.
            rooms: of the navigation.
            **options: Flower's own (`options`, `capp`, `io_loop`, `events`).

        Raises:
            SampleMindError: this is not the Flower that our changes were made for.
        """
        check_templates()
        console = settings.console
        secret = console.oauth_secret
        super().__init__(
            **options,
            **flowers_settings
            | {
                "cookie_secret": cookie_secret,
                "template_loader": Loader(),
                "xsrf_cookie_kwargs": {"samesite": "Strict"},
                "static_handler_class": Files,
                "oauth": {
                    "key": console.oauth_key,
                    "secret": secret.get_secret_value() if secret else None,
                    "redirect_uri": console.oauth_redirect_uri,
                },
                "log_function": lambda handler: None,
            },
        )
        self.metrics_token = settings.metrics.token
        self.rooms = rooms
        self.accounts = Accounts(console)
        self.sign_ins = SignIns()
        self.board = Board()
        self.threads = Threads()
        self.connections = Connections(_patient_of_few(settings))
        self.depths = Depths(run_directory(settings) / "console-depths.json")
        self.hits = Hits(run_directory(settings) / "console-hits.json")
        self._running: set[asyncio.Task[Any]] = set()
        self.add_handlers(r".*", list(_handlers(rooms, console)))

    def asset(self, name: str) -> str:
        """Return the address of a file of ours, which changes when the file does."""
        return f"/assets/{name}?v={_digest(_STATIC / name)}"

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        """Let something go on beside the request that began it."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def start(self) -> None:
        """Serve until the loop is stopped."""
        for sampled in (self.depths, self.hits):
            self.io_loop.add_callback(self.run, sampled.watch(self.connections))
        super().start()

    def stop(self) -> None:
        """Keep what was seen; Flower keeps its own."""
        if self.started:
            self.depths.save()
            self.hits.save()
        super().stop()

    async def settle(self) -> None:
        """Wait until what goes on beside the requests has ended."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def leave(self) -> None:
        """End what was begun, such as an entry of the audit log, and then the loop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.settle(), _SETTLING_S)
        await self.aclose()
        self.io_loop.stop()

    async def aclose(self) -> None:
        """Close what the rooms opened; what they began is given up."""
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.board.aclose()
        self.threads.close()
        await self.connections.aclose()
        self.executor.shutdown(wait=False)

    def put_figures(self, page: Page) -> None:
        """Note what this process counts, for whoever scrapes the platform."""
        for reason, count in self.sign_ins.refused.items():
            page.put(catalogue.SIGN_INS_REFUSED, reason.value, to=count)


def new_cookie_secret() -> str:
    """Return a secret that nobody knows."""
    return secrets.token_urlsafe(48)


def guarded(handler: type[RequestHandler]) -> type[RequestHandler]:
    """Return a handler of Flower's that knows who asks."""
    if issubclass(handler, Guarded):
        return handler
    bases = (Guarded, handler)
    return type(handler.__name__, bases, dict(_EXCEPTIONS.get(handler, {})))


def _handlers(rooms: tuple[Room, ...], console: ConsoleSettings) -> Iterator[Any]:
    yield url(r"/", Home, {"url": "/overview", "permanent": False}, name="main")
    for room in rooms:
        yield from room.handlers
    yield (r"/assets/(.*)", Files, {"path": str(_STATIC)})
    yield (r"/static/(.*)", Files, {"path": flowers_settings["static_path"]})
    yield (r"/login/?", _login(console))
    for spec in flowers_handlers:
        pattern, handler, arguments, name = _parts(spec)
        if pattern == "/" or handler in (StaticFileHandler, auth.LoginHandler):
            continue
        yield url(pattern, guarded(handler), arguments, name=name)


def _parts(spec: Any) -> tuple[str, type[RequestHandler], Any, str | None]:
    if isinstance(spec, URLSpec):
        return spec.regex.pattern.removesuffix("$"), spec.handler_class, spec.kwargs, spec.name
    return spec[0], spec[1], spec[2] if len(spec) > 2 else None, None


def _login(console: ConsoleSettings) -> type[RequestHandler]:
    provider = console.oauth_provider
    handler = NotFoundErrorHandler if provider is None else _LOGINS[provider]
    return type("Login", (Guarded, handler), {"needs": Role.NOBODY})


class Home(Guarded, RedirectHandler):
    """Leads to what an operator wants to see first."""


def _patient_of_few(settings: Settings) -> Settings:
    postgres = settings.postgres.model_copy(
        update={
            "pool_size": _POOL_SIZE,
            "max_overflow": _POOL_OVERFLOW,
            "pool_timeout_s": _TIMEOUT_MS / 1000,
            "connect_timeout_s": min(settings.postgres.connect_timeout_s, _TIMEOUT_MS // 1000),
        }
    )
    mongo = settings.mongo.model_copy(
        update={"timeout_ms": min(settings.mongo.timeout_ms, _TIMEOUT_MS)}
    )
    return settings.model_copy(update={"postgres": postgres, "mongo": mongo})


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
