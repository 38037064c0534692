"""The templates fit the Flower that is installed, and escape what they show."""

import pytest

from samplemind.errors import SampleMindError
from worker.console import loader
from worker.console.loader import Loader, check_templates, read_source


def test_flowers_templates_are_those_that_our_changes_were_made_for() -> None:
    check_templates()
    assert 'Template("rooms.html"' in read_source("navbar.html")
    assert 'nonce="{{ nonce }}"' in read_source("workers.html")


def test_another_flower_stops_the_console_with_the_templates_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(loader._MENDS, "broker.html", (("what is not there", "x"),))
    with pytest.raises(SampleMindError, match=r"broker\.html"):
        check_templates()


def test_templates_escape_what_they_show() -> None:
    text = Loader().load("moment.html").generate(moment=None, never="<b>", wording=None)
    assert b"&lt;b&gt;" in text
