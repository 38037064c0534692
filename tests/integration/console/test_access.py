"""Who gets in, what a viewer may, and what no other site's page can do."""

import base64
import re

from flower.urls import handlers as flowers_handlers

from samplemind.connections.resources import Connections
from samplemind.repositories.audit import AuditLogRepository
from tests.integration.console.conftest import ADA, TOKEN, VIC, Serve, Served, json_of, text_of
from worker.console.access import SignIns
from worker.console.rooms import ROOMS
from worker.metrics.exporter import Exporter

_ID = "01000000-0000-7000-8000-000000000000"


def paths_of_flower() -> list[str]:
    patterns = [
        spec[0] if isinstance(spec, tuple) else spec.regex.pattern for spec in flowers_handlers
    ]
    public = ("/static", "/login", "/logout", ".*", "/healthcheck")
    return [
        re.sub(r"\(\.[*+]\)", "anything", pattern).removesuffix("$")
        for pattern in patterns
        if not pattern.startswith(public)
    ]


PAGES = ["/", *(f"/{room.path}" for room in ROOMS), *paths_of_flower()]
DEEDS = [
    f"/batches/{_ID}/cancel",
    f"/failed-jobs/{_ID}/replay",
    "/failed-jobs/discard",
    "/api/worker/shutdown/x",
    "/api/worker/pool/restart/x",
    "/api/worker/pool/grow/x",
    "/api/worker/queue/cancel-consumer/x",
    "/api/task/send-task/probes.work",
    "/api/task/async-apply/probes.work",
    "/api/task/apply/probes.work",
    "/api/task/revoke/x",
    "/api/task/timeout/x",
    "/api/task/rate-limit/x",
    "/api/task/abort/x",
]


async def test_nobody_sees_a_page_without_a_name(served: Served) -> None:
    nobody = served.by(None)
    assert {path: (await nobody.get(path)).code for path in PAGES} == dict.fromkeys(PAGES, 401)
    wrong = await served.by("ada:wrong").get("/overview")
    assert wrong.code == 401
    assert wrong.headers["WWW-Authenticate"].startswith("Basic")


async def test_a_viewer_sees_every_room_and_no_button(served: Served) -> None:
    viewer = served.by(VIC)
    for room in ROOMS:
        page = await viewer.get(f"/{room.path}")
        assert page.code == 200, room.path
        assert 'method="post"' not in re.sub(r"<dialog.*?</dialog>", "", text_of(page), flags=re.S)
    assert (await viewer.get("/workers")).code == 200


async def test_a_viewer_may_not_act_and_each_attempt_is_audited(
    served: Served, connections: Connections
) -> None:
    for path in DEEDS:
        answer = await served.by(VIC).post(path, {"confirmed": "1"}, Accept="application/json")
        assert answer.code == 403, path
        assert "operator" in json_of(answer)["message"]
    async with connections.postgres.session() as session:
        entries = await AuditLogRepository(session).with_details({"by": "vic"})
    assert [entry.outcome for entry in entries] == ["denied"] * len(DEEDS)


async def test_an_operator_acts_only_with_the_token_of_our_own_page(served: Served) -> None:
    operator = served.by(ADA)
    fields = {"confirmed": "1"}
    for path in DEEDS:
        assert (await operator.post(path, fields, token=False)).code == 403, path
        for site in ("cross-site", "same-site"):
            assert (await operator.post(path, fields, Sec_Fetch_Site=site)).code == 403, path
        forged = await operator.post(path, fields, Origin="https://evil.example")
        assert forged.code == 403, path


async def test_a_page_lets_only_our_own_scripts_run(served: Served) -> None:
    operator = served.by(ADA)
    for path in ("/overview", "/workers", "/tasks", "/broker", "/nowhere"):
        page = await operator.get(path)
        policy = page.headers["Content-Security-Policy"]
        script = next(part for part in policy.split("; ") if part.startswith("script-src"))
        assert "unsafe" not in script
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        nonce = re.search(r"'nonce-([^']+)'", script)
        assert nonce is not None
        # A script that stands in the page must have the nonce of this very answer.
        inline = re.findall(r"<script(?![^>]*\bsrc=)([^>]*)>", text_of(page))
        assert all(f'nonce="{nonce[1]}"' in attributes for attributes in inline), path
        assert "onclick=" not in text_of(page)
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["X-Frame-Options"] == "DENY"
        assert page.headers["Cache-Control"] == "no-store"
    again = await operator.get("/nowhere")
    assert again.headers["Content-Security-Policy"] != policy


async def test_metrics_take_a_token_and_show_nothing_without_one(served: Served) -> None:
    scraper = served.by(None)
    assert (await scraper.get("/metrics")).code == 401
    assert (await scraper.get("/metrics", Authorization="Bearer wrong")).code == 401
    answer = await scraper.get("/metrics", Authorization=f"Bearer {TOKEN}")
    assert answer.code == 200
    assert "flower_" in text_of(answer)
    # The token opens nothing else.
    assert (await scraper.get("/overview", Authorization=f"Bearer {TOKEN}")).code == 401


async def test_a_probe_is_answered_from_this_machine_only(served: Served) -> None:
    assert (await served.by(None).get("/healthcheck")).code == 200
    assert (await served.by(None).get("/healthcheck", X_Forwarded_For="203.0.113.9")).code == 401
    answer = await served.by(None).get(
        "/healthcheck", X_Forwarded_For="203.0.113.9", Authorization=f"Bearer {TOKEN}"
    )
    assert answer.code == 200


async def test_who_guesses_passwords_has_to_wait_and_a_right_guess_does_not_help(
    served: Served,
) -> None:
    served.console.sign_ins = SignIns(clock=lambda: 0.0)
    for _ in range(5):
        assert (await served.by("ada:guess").get("/overview")).code == 401
    slowed = await served.by(ADA).get("/overview")
    assert slowed.code == 429
    assert int(slowed.headers["Retry-After"]) >= 1
    # Somebody else at the same address gets in.
    assert (await served.by(VIC).get("/overview")).code == 200


async def test_nobody_keeps_an_operator_out_whose_browser_has_signed_in_before(
    served: Served,
) -> None:
    served.console.sign_ins = SignIns(clock=lambda: 0.0)
    operator = served.by(ADA)
    assert (await operator.get("/overview")).code == 200
    for number in range(50):
        assert (await served.by(f"user-{number}:guess").get("/overview")).code == 401
    assert (await served.by(ADA).get("/overview")).code == 429
    assert (await operator.get("/overview")).code == 200
    # A mark is no licence to guess: its own failures count, and it speaks for its own name only.
    thief = served.by("ada:guess")
    thief.cookies = dict(operator.cookies)
    assert [(await thief.get("/overview")).code for _ in range(6)] == [401] * 5 + [429]
    stranger = served.by(VIC)
    stranger.cookies = dict(operator.cookies)
    assert (await stranger.get("/overview")).code == 429
    forger = served.by(ADA)
    forger.cookies["signed_in_before"] = base64.b64encode(b"any ada").decode()
    assert (await forger.get("/overview")).code == 429


async def test_refused_sign_ins_are_among_the_figures_of_the_platform(served: Served) -> None:
    served.console.sign_ins = SignIns(clock=lambda: 0.0)
    exporter = Exporter(served.console.connections.settings, served.console.put_figures)
    name = "samplemind_console_sign_ins_refused_total"
    assert f'{name}{{reason="wrong"}} 0.0' in exporter.render().decode()
    for _ in range(7):
        await served.by("ada:guess").get("/overview")
    told = exporter.render().decode()
    assert f'{name}{{reason="wrong"}} 5.0' in told
    assert f'{name}{{reason="too_soon"}} 2.0' in told


async def test_an_open_console_shows_itself_to_this_machine_and_does_nothing(serve: Serve) -> None:
    async with serve() as open_console:
        anyone = open_console.by(None)
        page = await anyone.get("/overview")
        assert page.code == 200
        assert "View only" in text_of(page)
        assert (await anyone.post(f"/batches/{_ID}/cancel", {"confirmed": "1"})).code == 403
        assert (await anyone.post("/api/task/send-task/probes.work")).code == 403
        # A page elsewhere whose name was made to lead here.
        assert (await anyone.get("/overview", Host="evil.example")).code == 421


async def test_oauth_sends_whoever_has_no_name_to_the_provider(serve: Serve) -> None:
    async with serve(
        oauth_provider="github",
        oauth_key="key",
        oauth_secret="secret",
        oauth_redirect_uri="https://console.example/login",
        oauth_operators="ada@example.org",
        oauth_viewers="vic@example.org",
    ) as served:
        nobody = served.by(None)
        asked = await nobody.get("/batches?state=running")
        assert asked.code == 302
        assert asked.headers["Location"] == "/login?next=%2Fbatches%3Fstate%3Drunning"
        login = await nobody.get("/login")
        assert login.code == 302
        assert login.headers["Location"].startswith("https://github.com/login/oauth/authorize")
        assert (await nobody.post(f"/batches/{_ID}/cancel", {"confirmed": "1"})).code == 401
        # Neither a password nor a cookie that somebody made up is a name.
        assert (await served.by("ada@example.org:x").get("/overview")).code == 302
        nobody.cookies["user"] = base64.b64encode(b"ada@example.org").decode()
        assert (await nobody.get("/overview")).code == 302


async def test_oauth_gives_each_address_its_role(serve: Serve) -> None:
    from tornado.web import create_signed_value

    async with serve(
        oauth_provider="google",
        oauth_key="key",
        oauth_secret="secret",
        oauth_redirect_uri="https://console.example/login",
        oauth_operators="ada@example.org",
        oauth_viewers="vic@example.org",
    ) as served:
        secret = served.console.settings["cookie_secret"]

        def browser_of(email: str):
            browser = served.by(None)
            browser.cookies["user"] = create_signed_value(secret, "user", email).decode()
            return browser

        assert (await browser_of("eve@example.org").get("/overview")).code == 302
        viewer, operator = browser_of("vic@example.org"), browser_of("ada@example.org")
        assert (await viewer.get("/overview")).code == 200
        assert (await viewer.post(f"/batches/{_ID}/cancel", {"confirmed": "1"})).code == 403
        assert "ada@example.org" in text_of(await operator.get("/overview"))
        # There is no such batch, which the operator is told after being let through.
        acted = await operator.post(
            f"/batches/{_ID}/cancel", {"confirmed": "1"}, Accept="application/json"
        )
        assert acted.code == 409


async def test_over_tls_cookies_are_secure_and_the_browser_is_told_to_stay_there(
    serve: Serve,
) -> None:
    async with serve(basic_auth=ADA, behind_proxy=True) as served:
        page = await served.by(ADA).get("/overview", X_Scheme="https")
        assert "max-age" in page.headers["Strict-Transport-Security"]
        assert all("ecure" in each for each in page.headers.get_list("Set-Cookie"))
