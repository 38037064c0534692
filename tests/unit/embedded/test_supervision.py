import pytest
from pydantic import SecretStr

from samplemind.embedded.platform import ROLES, STOP_ORDER
from samplemind.embedded.probes import address_of
from samplemind.embedded.supervisor import restart_delay_s
from samplemind.endpoints import Store


def test_a_process_that_keeps_dying_is_started_ever_later_up_to_half_a_minute():
    assert [restart_delay_s(deaths) for deaths in range(1, 9)] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_process_that_has_died_for_days_is_still_started():
    assert restart_delay_s(100_000) == 30


def test_beat_stops_before_the_workers_and_the_console_last():
    assert STOP_ORDER[0] == ("beat",)
    assert STOP_ORDER[-1] == ("console",)
    assert sorted(ROLES) == sorted(role for group in STOP_ORDER for role in group)


@pytest.mark.parametrize(
    ("store", "url", "address"),
    [
        (Store.POSTGRES, "postgresql://u:secret@db.example:5433/x", "db.example:5433"),
        (Store.POSTGRES, "postgresql+psycopg://u:secret@db.example/x", "db.example:5432"),
        (Store.POSTGRES, "postgresql://u:secret@a:1,b:2/x", "a:1,b:2"),
        (Store.MONGO, "mongodb://u:secret@a:27017,b:27018/?replicaSet=r", "a:27017,b:27018"),
        (Store.BROKER, "redis://:secret@cache.example:6380/0", "cache.example:6380"),
    ],
)
def test_an_address_is_shown_without_its_password(store, url, address):
    assert address_of(store, SecretStr(url)) == address
