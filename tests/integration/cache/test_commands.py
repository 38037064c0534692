import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from samplemind.cache.redis_cache import RedisCache
from samplemind.cli.main import cli
from samplemind.errors import StoreUnavailableError
from samplemind.settings import Settings, get_settings


@pytest.fixture
def run(migrated: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run a command on the test's stores."""
    for store in ("postgres", "mongo", "broker", "cache"):
        url = getattr(migrated, store).url.get_secret_value()
        monkeypatch.setenv(f"SAMPLEMIND_{store.upper()}_URL", url)
    get_settings.cache_clear()

    def call(*arguments: str, **options: Any) -> Any:
        return CliRunner().invoke(cli, arguments, catch_exceptions=False, **options)

    asyncio.run(_fill(migrated))
    yield call
    get_settings.cache_clear()


async def _fill(settings: Settings) -> None:
    redis_cache = RedisCache(settings.cache, with_local_layer=False)
    await redis_cache.redis.flushdb()
    await redis_cache.set_many({"search:1": 1, "search:2": 2, "other:1": 3})
    await redis_cache.aclose()


def _json(result: Any) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_clear_counts_first_and_asks(run: Any) -> None:
    counted = _json(run("cache", "clear", "search:*", "--dry-run", "--json"))
    assert (counted["matching"], counted["deleted"]) == (2, 0)
    assert run("cache", "clear", "search:*", input="n\n").exit_code == 1
    assert _json(run("cache", "clear", "search:*", "--json"))["deleted"] == 2
    assert _json(run("cache", "stats", "--json"))["keys"] == {"other": 1}


def test_stats_and_warm_tell_what_they_found(run: Any) -> None:
    stats = _json(run("cache", "stats", "--json"))
    assert stats["available"] is True
    assert stats["keys"] == {"search": 2, "other": 1}
    assert _json(run("cache", "warm", "--json"))["known"] == 0
    assert "hit_rate" in run("cache", "stats").stdout


def test_an_operator_is_told_that_the_cache_is_down(
    run: Any, monkeypatch: pytest.MonkeyPatch, unused_url: Any
) -> None:
    monkeypatch.setenv("SAMPLEMIND_CACHE_URL", unused_url.get_secret_value())
    get_settings.cache_clear()
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        run("cache", "stats")
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        run("cache", "clear", "*", "--yes")
