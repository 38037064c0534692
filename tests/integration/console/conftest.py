"""The console in the test's own loop, over real stores, asked by HTTP as a browser would."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pytest
from celery import Celery
from flower.options import default_options
from pydantic import SecretStr
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets

from samplemind.connections.resources import Connections
from samplemind.settings import ConsoleSettings, MetricsSettings, Settings
from worker.console.application import Console, new_cookie_secret
from worker.console.server import set_options

ADA, VIC = "ada:wonder land", "vic:only:looks"
TOKEN = "t" * 40


@dataclass
class Browser:
    """Somebody with a name, or nobody; keeps cookies as a browser does."""

    port: int
    account: str | None = None
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, **headers: str) -> HTTPResponse:
        return await self._fetch(path, "GET", None, headers)

    async def post(
        self, path: str, fields: dict[str, Any] | None = None, *, token: bool = True, **headers: str
    ) -> HTTPResponse:
        given = dict(fields or {})
        if token:
            self.cookies.setdefault("_xsrf", "a" * 32)
            given["_xsrf"] = self.cookies["_xsrf"]
        return await self._fetch(path, "POST", urlencode(given, doseq=True), headers)

    async def _fetch(
        self, path: str, method: str, body: str | None, headers: dict[str, str]
    ) -> HTTPResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        name, _, password = (self.account or "").partition(":")
        answer = await AsyncHTTPClient().fetch(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            body=body,
            headers=sent,
            auth_username=name if self.account else None,
            auth_password=password if self.account else None,
            raise_error=False,
            follow_redirects=False,
        )
        for cookie in answer.headers.get_list("Set-Cookie"):
            key, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[key] = value
        return answer


@dataclass
class Served:
    console: Console
    port: int

    def by(self, account: str | None) -> Browser:
        return Browser(self.port, account)


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(connections: Connections, tmp_path: Any) -> Serve:
    """Serves a console with these settings of its own."""

    @asynccontextmanager
    async def serving(**settings_of_console: Any) -> AsyncIterator[Served]:
        (tmp_path / "run").mkdir(exist_ok=True)
        console_settings = ConsoleSettings.model_validate(settings_of_console)
        settings: Settings = connections.settings.model_copy(
            update={
                "home": tmp_path,
                "console": console_settings,
                "metrics": MetricsSettings(token=SecretStr(TOKEN)),
            }
        )
        set_options(settings)
        default_options.persistent = False
        url = settings.broker.url
        capp = Celery("console-test", broker=url.get_secret_value() if url else None)
        console = Console(
            settings,
            new_cookie_secret(),
            capp=capp,
            options=default_options,
            io_loop=IOLoop.current(),
        )
        server = HTTPServer(console, xheaders=console_settings.behind_proxy)
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        try:
            yield Served(console, sockets[0].getsockname()[1])
        finally:
            server.stop()
            await server.close_all_connections()
            await console.aclose()
            capp.close()

    return serving


@pytest.fixture
async def served(serve: Serve) -> AsyncIterator[Served]:
    """A console with an operator and a viewer; a scraper has a token."""
    async with serve(
        basic_auth=(SecretStr(ADA),),
        basic_auth_viewers=(SecretStr(VIC),),
    ) as served:
        yield served


def text_of(answer: HTTPResponse) -> str:
    return answer.body.decode()


def json_of(answer: HTTPResponse) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.body)
    return found
