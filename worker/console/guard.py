"""What every handler of the console keeps to, Flower's own as well as ours.

Invariant: no handler answers before it is known who asks and what they may do; nothing is changed
by a request that another site's page made; no page runs a script that the console did not serve.
Flower's handlers are not trusted with any of it: each is wrapped in `Guarded`.
"""

import hmac
import json
import math
import re
import secrets
from collections.abc import Awaitable
from typing import Any, ClassVar, cast
from urllib.parse import urlencode, urlsplit

from flower.views import BaseHandler
from tornado.web import HTTPError, RequestHandler, StaticFileHandler

from samplemind.log import get_logger
from samplemind.models.audit_log import AuditOutcome
from worker.console import audit, wording
from worker.console.access import (
    ANYONE,
    LOOPBACK_NAMES,
    Attempt,
    Role,
    User,
    read_basic,
    read_bearer,
)

_SAFE = ("GET", "HEAD", "OPTIONS")
_FORWARDED = ("X-Forwarded-For", "X-Real-Ip", "Forwarded")
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_YEAR_S = 31_536_000
_MARK = "signed_in_before"
_MARK_LIFE_DAYS = 30

_log = get_logger(__name__)


def secure(handler: RequestHandler, nonce: str) -> None:
    """Set the headers that keep a browser from doing what the console did not ask for."""
    policy = (
        "default-src 'none'; "
        f"script-src 'self' 'nonce-{nonce}'; "
        "style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    for name, value in (
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        # Not no-referrer: with it, a form's Origin would be null.
        ("Referrer-Policy", "same-origin"),
        ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ):
        handler.set_header(name, value)
    handler.clear_header("Server")
    if handler.request.protocol == "https":
        handler.set_header("Strict-Transport-Security", f"max-age={_YEAR_S}")


class Files(StaticFileHandler):
    """Styles, scripts and pictures, which are no secret."""

    def set_default_headers(self) -> None:
        """Set the security headers."""
        secure(self, secrets.token_urlsafe(16))


class Guarded(BaseHandler):
    """A handler that knows who asks.

    Attributes:
        needs: the role that a request needs; None: a viewer's to look, an operator's to change.
        takes_token: a scraper's token is enough.
        answers_probes: a probe on this machine itself needs no name.
        audited: a change is written to the audit log here; ours do it themselves, with more facts.
    """

    needs: ClassVar[Role | None] = None
    takes_token: ClassVar[bool] = False
    answers_probes: ClassVar[bool] = False
    audited: ClassVar[bool] = True

    user: User | None = None
    _retry_after_s = 0

    def set_default_headers(self) -> None:
        """Set the security headers; nothing but static files is kept by a browser."""
        self.nonce = secrets.token_urlsafe(16)
        secure(self, self.nonce)
        self.set_header("Cache-Control", "no-store")

    async def prepare(self) -> None:
        """Find out who asks and whether they may.

        Raises:
            HTTPError: 401 without a name, 403 without the role, 421 for a foreign host's name,
                429 after too many failures.
        """
        self._check_host()
        needed = self.needed_role
        if needed is Role.NOBODY:
            return
        self.user = self._sign_in()
        self.current_user = None if self.user is None else self.user.name
        if self.user is None:
            if self._is_let_through():
                return
            self._ask_for_name()
        elif self.user.role < needed:
            await self.denied()
            message = f"{self.user.name} may look, but not act: an operator's name is needed"
            raise HTTPError(403, message)

    @property
    def needed_role(self) -> Role:
        """The role that this request needs."""
        if self.needs is not None:
            return self.needs
        return Role.VIEWER if self.request.method in _SAFE else Role.OPERATOR

    @property
    def may_act(self) -> bool:
        """Whether whoever asks is an operator."""
        return self.user is not None and self.user.role >= Role.OPERATOR

    def get_current_user(self) -> str | None:
        """Return the name of whoever asks; `prepare` has found it."""
        return None if self.user is None else self.user.name

    def check_xsrf_cookie(self) -> None:
        """Refuse what another site's page sent, and what lacks the token of ours.

        Flower asks for no token where passwords are used, although a browser adds those by itself.

        Raises:
            HTTPError: 403.
        """
        site = self.request.headers.get("Sec-Fetch-Site")
        if site is not None and site not in ("same-origin", "none"):
            raise HTTPError(403, "another site's page sent this")
        origin = self.request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.request.host:
            raise HTTPError(403, "another site's page sent this")
        RequestHandler.check_xsrf_cookie(self)

    def set_cookie(self, name: str, value: Any, *arguments: Any, **options: Any) -> None:
        """Set a cookie; over TLS it goes back over TLS only."""
        options.setdefault("secure", self.request.protocol == "https")
        super().set_cookie(name, value, *arguments, **options)

    def get_template_namespace(self) -> dict[str, Any]:
        """Return what all templates may use."""
        namespace = cast("dict[str, Any]", super().get_template_namespace())
        application = self.application
        return namespace | {
            "asset": application.asset,
            "board_rooms": application.rooms,
            "may_act": self.may_act,
            "nonce": self.nonce,
            "open_console": application.accounts.open,
            "user": self.user,
            "wording": wording,
        }

    def render(self, template_name: str, **values: Any) -> Any:
        """Render a page; Flower's own hide their buttons from who may not press them."""
        if "read_only" in values:
            values["read_only"] = not self.may_act
        return super().render(template_name, **values)

    async def denied(self) -> None:
        """Tell the audit log that somebody tried what they may not."""
        await self.audit(AuditOutcome.DENIED)

    def on_finish(self) -> None:
        """Tell the audit log what was done through one of Flower's own handlers."""
        changed = self.audited and self.request.method not in _SAFE
        if changed and self.may_act and self.needed_role is Role.OPERATOR:
            done = self.get_status() < 400
            self.application.run(self.audit(AuditOutcome.SUCCESS if done else AuditOutcome.FAILED))

    def audit(self, outcome: AuditOutcome) -> Awaitable[bool]:
        """Write what was asked of this handler to the audit log."""
        name = _WORD.sub("_", type(self).__name__).lower()
        target = self.path_args[0] if self.path_args else None
        return audit.record(
            self.application.connections,
            f"console.{name}",
            by=self.user.name if self.user else "nobody",
            resource_kind="console",
            resource_id=target,
            outcome=outcome,
            address=self.request.remote_ip,
            details={"path": self.request.path},
        )

    def write_error(self, status_code: int, **values: Any) -> None:
        """Answer a program in JSON, a person with a page; neither hears of the insides."""
        error = values.get("exc_info", (None, None, None))[1]
        message = error.get_message() if isinstance(error, HTTPError) else ""
        if self._retry_after_s:
            self.set_header("Retry-After", str(self._retry_after_s))
        if status_code == 401:
            self._refuse_without_name()
        elif "application/json" in self.request.headers.get("Accept", ""):
            self.set_header("Content-Type", "application/json")
            self.finish(json.dumps({"ok": False, "message": message or self._reason}))
        else:
            title = message or f"Error {status_code}: {self._reason}"
            self.render("refused.html", status_code=status_code, message=title)

    def log_exception(self, kind: Any, error: Any, trace: Any) -> None:
        """Leave a line for a fault of ours; what was refused is told where it was."""
        if not isinstance(error, HTTPError):
            _log.error(
                "console_request_failed",
                path=self.request.path,
                exc_info=(kind, error, trace),
            )

    def _check_host(self) -> None:
        # A page elsewhere may have its own name lead to this machine (DNS rebinding); a console
        # that asks for a password is safe from that, because the browser has none for that name.
        if self.application.accounts.open and self.request.host_name not in LOOPBACK_NAMES:
            raise HTTPError(421, "this console answers to its own machine's names only")

    def _sign_in(self) -> User | None:
        accounts = self.application.accounts
        if accounts.open:
            return ANYONE
        if accounts.by_oauth:
            email = self.get_secure_cookie("user")
            return accounts.find_email(email.decode()) if email else None
        given = read_basic(self.request.headers.get("Authorization", ""))
        if given is None:
            return None
        name, password = given
        return self._check(name, password)

    def _check(self, name: str, password: str) -> User | None:
        sign_ins = self.application.sign_ins
        attempt = Attempt(self.request.remote_ip or "", name, self._mark_of(name))
        wait_s = sign_ins.seconds_to_wait(attempt)
        if wait_s > 0:
            sign_ins.turn_away()
            self._retry_after_s = math.ceil(wait_s)
            raise HTTPError(429, f"too many failed sign-ins: try again in {wait_s:.0f} s")
        user = self.application.accounts.check_password(name, password)
        if user is None:
            sign_ins.fail(attempt)
            _log.warning("console_sign_in_refused", address=attempt.address, name=name[:100])
        else:
            sign_ins.succeed(attempt)
            if not attempt.mark:
                self._mark(name)
        return cast("User | None", user)

    def _mark_of(self, name: str) -> str:
        found = self.get_secure_cookie(_MARK, max_age_days=_MARK_LIFE_DAYS)
        mark, _, marked = (found or b"").decode().partition(" ")
        return mark if marked == name else ""

    def _mark(self, name: str) -> None:
        value = f"{secrets.token_urlsafe(16)} {name}"
        self.set_secure_cookie(
            _MARK, value, expires_days=_MARK_LIFE_DAYS, httponly=True, samesite="Strict"
        )

    def _is_let_through(self) -> bool:
        token = self.application.metrics_token
        given = read_bearer(self.request.headers.get("Authorization", ""))
        if self.takes_token and token is not None and given is not None:
            return hmac.compare_digest(token.get_secret_value().encode(), given.encode())
        here = self.request.remote_ip in LOOPBACK_NAMES
        forwarded = any(name in self.request.headers for name in _FORWARDED)
        return self.answers_probes and here and not forwarded

    def _ask_for_name(self) -> None:
        if self.application.accounts.by_oauth and self.request.method == "GET":
            self.redirect(f"/login?{urlencode({'next': self.request.uri})}")
            return
        raise HTTPError(401)

    def _refuse_without_name(self) -> None:
        if not self.application.accounts.by_oauth:
            self.set_header("WWW-Authenticate", 'Basic realm="SampleMind", charset="UTF-8"')
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("A name and a password are needed.\n")
