"""Names, passwords and how often somebody may guess."""

import base64

import pytest
from pydantic import ValidationError

from samplemind.settings import ConsoleSettings
from worker.console.access import Accounts, Attempt, Role, SignIns, User, read_basic, read_bearer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


def settings(**fields: object) -> ConsoleSettings:
    return ConsoleSettings.model_validate(fields)


def test_each_account_has_its_role_and_a_password_may_hold_anything() -> None:
    accounts = Accounts(
        settings(basic_auth="ada:pass:wörd [1]\nbob:x", basic_auth_viewers='["vic:look"]')
    )
    assert accounts.check_password("ada", "pass:wörd [1]") == User("ada", Role.OPERATOR)
    assert accounts.check_password("bob", "x") == User("bob", Role.OPERATOR)
    assert accounts.check_password("vic", "look") == User("vic", Role.VIEWER)
    for name, password in (("ada", "x"), ("eve", ""), ("", ""), ("vic", "x"), ("ada", "")):
        assert accounts.check_password(name, password) is None
    assert not accounts.open


def test_nobody_is_asked_where_nobody_is_named() -> None:
    assert Accounts(settings()).open


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"host": "0.0.0.0"}, "BASIC_AUTH"),  # noqa: S104
        ({"basic_auth": "ada"}, "user:password"),
        ({"basic_auth": "ada:x\nada:y"}, "named twice"),
        ({"basic_auth": "ada:x", "basic_auth_viewers": "ada:y"}, "keep one of the two"),
        ({"basic_auth_viewers": "vic:y"}, "nobody could act"),
        ({"oauth_operators": "ada@example.org"}, "OAUTH_PROVIDER"),
        ({"oauth_provider": "github"}, "oauth_key"),
        ({"oauth_operators": "*@example.org"}, "e-mail"),
        ({"cookie_secret": "short"}, "32 characters"),
    ],
)
def test_access_that_is_half_set_is_refused_with_the_mend(
    fields: dict[str, str], told: str
) -> None:
    with pytest.raises(ValidationError, match=told) as failure:
        settings(**fields)
    assert "short" not in failure.value.errors()[0]["msg"]


def test_passwords_and_oauth_exclude_each_other() -> None:
    whole = {
        "oauth_provider": "github",
        "oauth_key": "key",
        "oauth_secret": "secret",
        "oauth_redirect_uri": "https://console.example/login",
        "oauth_operators": "ada@example.org, bob@example.org",
        "oauth_viewers": "vic@example.org",
    }
    accounts = Accounts(settings(**whole))
    assert accounts.find_email("bob@example.org") == User("bob@example.org", Role.OPERATOR)
    assert accounts.find_email("vic@example.org") == User("vic@example.org", Role.VIEWER)
    assert accounts.find_email("eve@example.org") is None
    with pytest.raises(ValidationError, match="not both"):
        settings(**whole, basic_auth="ada:x")


def test_a_header_is_read_only_in_its_own_form() -> None:
    assert read_basic(basic("ada:a:b")) == ("ada", "a:b")
    for header in ("", "Basic", "Basic !!!", basic("ada"), "Bearer abc", "Basic /w=="):
        assert read_basic(header) is None
    assert read_bearer("Bearer abc") == "abc"
    assert read_bearer("Bearer ") is None
    assert read_bearer(basic("a:b")) is None


def test_each_failure_beyond_the_free_ones_doubles_the_wait_up_to_a_limit() -> None:
    clock = Clock()
    sign_ins = SignIns(clock)
    for _ in range(4):
        sign_ins.fail(Attempt("192.0.2.1", "ada"))
    assert sign_ins.seconds_to_wait(Attempt("192.0.2.1", "ada")) == 0
    waits = []
    for _ in range(12):
        sign_ins.fail(Attempt("192.0.2.1", "ada"))
        waits.append(sign_ins.seconds_to_wait(Attempt("192.0.2.1", "ada")))
        clock.now += waits[-1]
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]


def test_a_wait_is_one_names_and_one_addresss() -> None:
    sign_ins = SignIns(Clock())
    for _ in range(5):
        sign_ins.fail(Attempt("192.0.2.1", "ada"))
    assert sign_ins.seconds_to_wait(Attempt("192.0.2.1", "ada")) > 0
    assert sign_ins.seconds_to_wait(Attempt("192.0.2.1", "bob")) == 0
    assert sign_ins.seconds_to_wait(Attempt("192.0.2.2", "ada")) == 0


def test_a_browser_that_signed_in_before_waits_for_its_own_failures_only() -> None:
    sign_ins = SignIns(Clock())
    marked = Attempt("192.0.2.1", "ada", "mark")
    for _ in range(60):
        sign_ins.fail(Attempt("192.0.2.1", "ada"))
    assert sign_ins.seconds_to_wait(marked) == 0
    for _ in range(5):
        sign_ins.fail(marked)
    assert sign_ins.seconds_to_wait(marked) > 0
    assert sign_ins.seconds_to_wait(Attempt("192.0.2.1", "ada", "another")) == 0


def test_who_tries_many_names_from_one_address_waits_too() -> None:
    sign_ins = SignIns(Clock())
    for number in range(50):
        sign_ins.fail(Attempt("192.0.2.1", f"user-{number}"))
    assert sign_ins.seconds_to_wait(Attempt("192.0.2.1", "another")) > 0


def test_a_success_and_time_are_forgiving() -> None:
    clock = Clock()
    sign_ins = SignIns(clock)
    for _ in range(4):
        sign_ins.fail(Attempt("192.0.2.1", "ada"))
    sign_ins.succeed(Attempt("192.0.2.1", "ada"))
    sign_ins.fail(Attempt("192.0.2.1", "ada"))
    assert sign_ins.seconds_to_wait(Attempt("192.0.2.1", "ada")) == 0
    for _ in range(4):
        sign_ins.fail(Attempt("192.0.2.1", "ada"))
    clock.now += 3600
    sign_ins.fail(Attempt("192.0.2.1", "ada"))
    assert sign_ins.seconds_to_wait(Attempt("192.0.2.1", "ada")) == 0


def test_what_is_remembered_of_failures_is_bounded() -> None:
    sign_ins = SignIns(Clock())
    for number in range(20_000):
        sign_ins.fail(Attempt(f"192.0.2.{number % 250}", f"user-{number}"))
    assert len(sign_ins) <= 10_000
