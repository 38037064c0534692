"""The console as operators see it, in a real browser over real stores."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from uuid import UUID

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from samplemind.backup.catalog import CatalogEntry
from samplemind.backup.database_backup import DatabaseBackup
from samplemind.batches import Progress, progress
from samplemind.connections.resources import Connections
from samplemind.documents.batch_job import BatchState
from samplemind.models.dead_letter import DeadLetterState
from samplemind.repositories.dead_letters import DeadLetterRepository, LetterFilter
from samplemind.settings import Settings
from tests.browser.scenes import FLOWERS, SCENES, Scene
from tests.browser.stage import (
    CHROMIUM,
    PHONE,
    VIEWER,
    Stage,
    Visit,
    beside,
    open_browser,
    set_stage,
    show_events,
    visit,
)
from tests.console_data import add_batch, add_letters
from tests.worker.processes import WorkerProcess, wait_until
from worker.console.rooms import ROOMS

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium is installed: as root, tests/tools installs it"
    ),
]

ALL = [scene for scenes in SCENES.values() for scene in scenes]
expect.set_options(timeout=20_000)
SERIOUS = ("serious", "critical")
Visiting = Callable[..., AbstractContextManager[Visit]]


@pytest.fixture(scope="module")
def stage(migrated: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with set_stage(migrated, tmp_path_factory.mktemp("console")) as stage:
        yield stage


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, open_browser(playwright) as browser:
        yield browser


@pytest.fixture
def visiting(browser: Browser, stage: Stage) -> Visiting:
    return partial(visit, browser, stage)


def test_every_room_has_a_scene() -> None:
    assert set(SCENES) == {room.path for room in ROOMS}


@pytest.mark.parametrize("scene", ALL, ids=lambda scene: scene.name)
def test_a_page_shows_its_data_to_everybody_in_both_themes_and_on_a_phone(
    visiting: Visiting, scene: Scene
) -> None:
    with visiting() as visitor:
        page = visitor.open(scene.address)
        expect(page.locator("main")).to_contain_text(scene.shows)
        expect(page.locator("html")).to_have_attribute("data-bs-theme", "light")
        assert faults_of(page) == []
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size(PHONE)
        expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
        assert overflow_of(page) <= 0
        assert faults_of(page) == []
        visitor.check_harmless()


@pytest.mark.parametrize("scene", FLOWERS, ids=lambda scene: scene.name)
def test_flowers_own_pages_work_as_they_did(visiting: Visiting, stage: Stage, scene: Scene) -> None:
    show_events(stage)
    with visiting() as visitor:
        page = visitor.open(scene.address)
        expect(page.locator("main")).to_contain_text(scene.shows)
        expect(page.get_by_role("link", name="Overview")).to_be_visible()
        visitor.check_harmless()


def test_whoever_has_no_name_sees_nothing(visiting: Visiting, stage: Stage) -> None:
    with visiting(None) as visitor:
        answer = visitor.context.request.get(f"{stage.address}/overview")
        assert answer.status == 401
        assert "Failed jobs" not in answer.text()


def test_a_viewer_finds_no_button_that_changes_anything(visiting: Visiting) -> None:
    with visiting(VIEWER) as visitor:
        for scene in ALL:
            page = visitor.open(scene.address)
            expect(page.locator("main")).to_contain_text(scene.shows)
            assert page.locator("main form[method=post] button").count() == 0
        visitor.check_harmless()


def test_a_batch_is_cancelled_with_the_keyboard_alone(visiting: Visiting, stage: Stage) -> None:
    batch_id = make_batch(stage)
    with visiting() as visitor:
        page = visitor.open(f"/batches/{batch_id}")
        page.get_by_role("button", name="Cancel").focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("3 files have not ended and never will")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        assert progress_of(stage, batch_id).state is BatchState.RUNNING
        page.keyboard.press("Enter")
        expect(dialog).to_be_visible()
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").filter(has_text="Cancelled")).to_contain_text(
            "3 of 5 files were left"
        )
        expect(page.locator("main .state").first).to_have_text("cancelled")
        assert progress_of(stage, batch_id).state is BatchState.CANCELLED
        visitor.check_harmless()


def test_a_batch_is_cancelled_without_any_script(visiting: Visiting, stage: Stage) -> None:
    batch_id = make_batch(stage)
    with visiting(scripts=False) as visitor:
        page = visitor.open(f"/batches/{batch_id}")
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Cancel this batch?")
        assert progress_of(stage, batch_id).state is BatchState.RUNNING
        page.get_by_role("button", name="Yes, do it").click()
        expect(page.locator("main")).to_contain_text("3 of 5 files were left")
        assert progress_of(stage, batch_id).state is BatchState.CANCELLED


def test_a_failed_job_is_sent_again(visiting: Visiting, stage: Stage) -> None:
    (letter_id,) = make_letters(stage, 1)
    with visiting() as visitor:
        page = visitor.open(f"/failed-jobs/{letter_id}")
        page.get_by_role("button", name="Replay").click()
        page.get_by_role("dialog").get_by_role("button", name="Replay").click()
        expect(page.locator("main")).to_contain_text("1 job was sent again.")
        expect(page.locator("main .state").first).to_have_text("replayed")
        expect(page.locator("main")).to_contain_text("console, ada")
        assert state_of(stage, letter_id) == DeadLetterState.REPLAYED.value
        visitor.check_harmless()


def test_failed_jobs_that_were_ticked_are_discarded_with_a_reason(
    visiting: Visiting, stage: Stage
) -> None:
    first, second, third = make_letters(stage, 3, task="packs.publish")
    with visiting() as visitor:
        page = visitor.open("/failed-jobs?task=packs.publish")
        button = page.get_by_role("button", name="Discard selected")
        expect(button).to_be_disabled()
        for letter_id in (first, second):
            page.locator(f"input[value='{letter_id}']").check()
        button.click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Discard 2 jobs?")
        dialog.get_by_label("Reason").fill("the cache is gone")
        dialog.get_by_role("button", name="Discard").click()
        expect(page.locator("main")).to_contain_text("2 jobs were discarded.")
        states = [state_of(stage, letter_id) for letter_id in (first, second, third)]
        assert states == ["discarded", "discarded", "open"]
        visitor.check_harmless()


def test_a_page_renews_itself_and_leaves_alone_what_somebody_does(
    visiting: Visiting, stage: Stage
) -> None:
    (old,) = make_letters(stage, 1, task="packs.refresh")
    with visiting() as visitor:
        page = visitor.open("/failed-jobs?task=packs.refresh")
        box = page.locator(f"input[value='{old}']")
        box.check()
        search = page.get_by_role("searchbox")
        search.fill("half a wo")
        search.evaluate("field => field.setSelectionRange(2, 5)")
        (new,) = make_letters(stage, 1, task="packs.refresh")
        expect(page.locator(f"tr[data-key='{new}']")).to_be_visible()
        expect(search).to_have_value("half a wo")
        expect(search).to_be_focused()
        assert search.evaluate("field => [field.selectionStart, field.selectionEnd]") == [2, 5]
        expect(box).to_be_checked()
        expect(page.locator("[data-chosen]")).to_have_text("1 selected")
        visitor.check_harmless()


def test_a_chosen_theme_stays(visiting: Visiting) -> None:
    with visiting(theme="light") as visitor:
        page = visitor.open("/overview")
        page.get_by_role("button", name="Select theme").click()
        page.get_by_role("button", name="Dark").click()
        expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
        page.reload()
        expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
        visitor.check_harmless()


def faults_of(page: Page) -> list[str]:
    """Return what keeps somebody from using the page, in words that find it."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{each['id']}: {node['target']}: {node.get('failureSummary', '')[:300]}"
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


def overflow_of(page: Page) -> int:
    return int(
        page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    )


def make_batch(stage: Stage) -> UUID:
    async def make() -> UUID:
        async with Connections(stage.settings) as connections:
            return await add_batch(connections, BatchState.RUNNING, done=2, pending=3)

    return beside(make)


def make_letters(stage: Stage, count: int, task: str = "search.index_files") -> list[UUID]:
    async def make() -> list[UUID]:
        async with Connections(stage.settings) as connections:
            return await add_letters(connections, count, task=task)

    return beside(make)


def progress_of(stage: Stage, batch_id: UUID) -> Progress:
    async def read() -> Progress:
        async with Connections(stage.settings) as connections:
            return await progress(connections, batch_id)

    return beside(read)


def state_of(stage: Stage, letter_id: UUID) -> str:
    async def read() -> str:
        async with (
            Connections(stage.settings) as connections,
            connections.postgres.session() as session,
        ):
            found = await DeadLetterRepository(session).find(LetterFilter(state=None), limit=1000)
            (letter,) = [each for each in found if each.id == letter_id]
            return letter.state

    return beside(read)


def test_flowers_buttons_ask_before_they_act(visiting: Visiting) -> None:
    with visiting() as visitor:
        page = visitor.open("/workers")
        page.evaluate(
            """() => {
              const button = document.createElement("button");
              button.id = "worker-shutdown";
              button.textContent = "Shut it down";
              button.addEventListener("click", () => button.remove());
              document.querySelector("main, body").append(button);
            }"""
        )
        button = page.get_by_role("button", name="Shut it down")
        asked: list[str] = []
        page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        button.click()
        assert asked == ["Shut this worker down? Its jobs go back to the queue."]
        expect(button).to_be_visible()
        page.once("dialog", lambda dialog: dialog.accept())
        button.click()
        expect(button).to_have_count(0)
        visitor.check_harmless()


def test_a_chart_tells_runs_of_one_minute_apart(visiting: Visiting) -> None:
    with visiting() as visitor:
        page = visitor.open("/schedule/search.fold")
        page.locator(".u-over").hover()
        expect(page.locator(".u-legend .u-value").first).to_have_text(
            re.compile(r"^\d\d:\d\d:\d\d$")
        )
        visitor.check_harmless()


def test_a_backup_is_made_and_verified(visiting: Visiting, stage: Stage) -> None:
    backups = DatabaseBackup(settings=stage.settings)

    def asked_for() -> list[CatalogEntry]:
        # Another one, which waits in the queue since the stage was set, is made as well.
        return [
            entry
            for entry in backups.list_backups()
            if entry.manifest and "before the move" in entry.manifest.reason
        ]

    log = stage.settings.home / "maintenance.log"
    worker = WorkerProcess("maintenance", stage.environment, log, "--concurrency=1")
    try:
        worker.wait_until_ready()
        with visiting() as visitor:
            page = visitor.open("/backups")
            page.get_by_role("button", name="Back up now").click()
            page.get_by_role("dialog").get_by_role("textbox").fill("before the move")
            page.get_by_role("dialog").get_by_role("button", name="Back up").click()
            expect(page.get_by_role("status").filter(has_text="backup")).to_be_visible()
            wait_until(lambda: bool(asked_for()), seconds=60, what="the backup is made")
            page = visitor.open(f"/backups/{asked_for()[0].id}")
            page.get_by_role("button", name="Verify").click()
            page.get_by_role("dialog").get_by_role("button", name="Verify").click()
            expect(page.get_by_role("status").filter(has_text="level 1")).to_be_visible()
            wait_until(
                lambda: asked_for()[0].verified is not None,
                seconds=60,
                what="the backup is verified",
            )
            expect(page.locator("main")).to_contain_text("level 1", timeout=60_000)
            visitor.check_harmless()
    finally:
        worker.process.terminate()
        worker.wait(30)
