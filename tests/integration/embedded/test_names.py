"""Homes whose names a server or Celery could misread."""

from pathlib import Path

import pytest
from celery.utils.nodenames import node_format

from samplemind.embedded.stack import EmbeddedStack
from samplemind.endpoints import Store
from samplemind.settings import load_settings
from worker.roles import ROLES


def test_every_store_starts_in_a_home_named_with_any_letter(home: Path):
    odd = home / "50 % [x] * Музыка 🎵"
    odd.mkdir(mode=0o711)
    with EmbeddedStack(odd, [Store.MONGO, Store.BROKER], durable=False) as stack:
        assert set(stack.start()) == {Store.MONGO, Store.BROKER}


@pytest.mark.parametrize("role", ["audio", "index", "maintenance"])
def test_a_percent_in_the_home_is_one_for_celery_too(tmp_path: Path, role: str):
    settings = load_settings().model_copy(update={"home": tmp_path / "50%p"})
    option = next(
        argument for argument in ROLES[role].arguments(settings) if "--statedb=" in argument
    )
    expanded = node_format(option.removeprefix("--statedb="), f"{role}@here")
    assert expanded == f"{tmp_path}/50%p/run/{role}@here.state"
