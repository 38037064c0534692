from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplemind.errors import InvalidInputError, SettingsError
from samplemind.jobs.periodic import Periodic, read_table
from samplemind.jobs.times import Cron, parse_when
from samplemind.settings import ScheduleSettings, Settings
from schedules.beat import ENTRIES, table
from worker.scheduler import due_slots

NOON = datetime(2026, 11, 25, 12, 0, 30, tzinfo=UTC)
moments = st.integers(1_577_836_800, 2_051_222_400).map(
    lambda seconds: datetime.fromtimestamp(seconds, UTC)  # 2020 to 2035
)
whens = st.one_of(
    st.integers(1, 200_000).map(lambda seconds: parse_when(f"{seconds}s", name=str(seconds))),
    st.sampled_from(["30 3 * * *", "*/7 * * * *", "0 0 29 2 *", "15 4,16 * * 1-5"]).map(parse_when),
)


@given(whens, moments)
def test_the_slot_of_a_moment_is_the_last_and_none_lies_between_it_and_the_next(when, now):
    slot = when.latest(now)
    following = when.following(slot)
    assert slot <= now < following
    assert when.latest(slot) == slot
    assert when.latest(following - timedelta(seconds=1)) == slot


def test_cron_times_are_read_as_cron_reads_them():
    assert Cron("30 3 * * *").latest(NOON) == datetime(2026, 11, 25, 3, 30, tzinfo=UTC)
    assert Cron("30 3 * * 0").following(NOON) == datetime(2026, 11, 29, 3, 30, tzinfo=UTC)
    assert Cron("0 0 29 2 *").following(NOON) == datetime(2028, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "* * * *", "60 * * * *", "*/0 * * * *", "0s", "0 0 31 2 *"])
def test_a_time_that_is_none_or_never_comes_is_refused(text):
    with pytest.raises(InvalidInputError):
        parse_when(text)


def test_the_settings_move_a_job_and_switch_one_off():
    times = "maintenance.vacuum=5 5 * * *; search.index=20s; retention.run=off"
    settings = Settings(schedule=ScheduleSettings(times=times))
    sent = {entry.name: entry for entry in table(settings)}
    assert str(sent["maintenance.vacuum"].when) == "5 5 * * *"
    assert str(sent["search.index"].when) == "every 20 s"
    assert "retention.run" not in sent
    with pytest.raises(SettingsError, match=r"search\.nothing"):
        table(Settings(schedule=ScheduleSettings(times="search.nothing=20s")))


def test_every_entry_has_its_sentence_and_expires_before_the_next_slot():
    for entry in table(Settings()):
        slot = entry.when.latest(NOON)
        assert entry.reason.endswith(".")
        assert 0 < entry.expires_s(slot) < (entry.when.following(slot) - slot).total_seconds()
    assert len({entry.payload.job_name for entry in ENTRIES}) == len(ENTRIES)


def test_heavy_jobs_do_not_meet():
    starts = [entry.every for entry in ENTRIES if isinstance(entry.every, str)]
    minutes = sorted(int(s.split()[1]) * 60 + int(s.split()[0]) for s in starts)
    assert all(late - early >= 60 for early, late in pairwise(minutes))


def test_the_table_survives_its_way_through_redis():
    entries = table(Settings())
    stored = {entry.name: entry.to_json() for entry in entries}
    assert {e.name: e.when for e in read_table(stored)} == {e.name: e.when for e in entries}


@given(st.lists(st.integers(0, 600), min_size=1, max_size=30))
def test_each_slot_is_due_once_however_irregular_the_looks_are(gaps):
    entry = Periodic("a.job", parse_when("60s"), "Because.", "default")
    now, sent, seen = NOON, {"a.job": int(entry.when.latest(NOON).timestamp())}, []
    for gap in gaps:
        now += timedelta(seconds=gap)
        for _, slot in due_slots({"a.job": entry}, sent, now):
            seen.append(slot)
            sent["a.job"] = int(slot.timestamp())
    assert len(seen) == len(set(seen))
    assert sent["a.job"] == int(entry.when.latest(now).timestamp())
