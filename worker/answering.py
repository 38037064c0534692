"""Short answers by HTTP from a thread of a process: its health, and its figures.

Invariant: an answer is made from what is in memory, and figures are told only to whom the token
lets; nobody who is slow to ask holds anybody up.
"""

import hmac
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FIGURES = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of Prometheus' text format."""


class AnsweringServer(ThreadingHTTPServer):
    """A server whose threads end with the process."""

    daemon_threads = True

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Answering(BaseHTTPRequestHandler):
    """What answers one connection; subclasses say what is asked for."""

    timeout = 5

    def answer(self, status: int, kind: str, body: bytes) -> None:
        """Send a whole answer."""
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_figures(self, token: str | None, page: Callable[[], bytes]) -> None:
        """Send the figures, or refuse who has no token."""
        given = self.headers.get("Authorization", "")
        if token is not None and not hmac.compare_digest(
            given.encode(), f"Bearer {token}".encode()
        ):
            self.answer(401, "text/plain", b"the bearer token of SAMPLEMIND_METRICS_TOKEN\n")
        else:
            self.answer(200, FIGURES, page())

    def log_message(self, *_: Any) -> None:
        """Leave no line for each probe and each scrape."""
