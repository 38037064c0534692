import asyncio
import io
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from alembic import command
from pydantic import SecretStr
from sqlalchemy import CheckConstraint, Executable, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from samplemind.connections.postgres_engine import create_unpooled_engine
from samplemind.endpoints import Store
from samplemind.errors import ConflictError, TransientError
from samplemind.migrate import MIGRATIONS, alembic_config, migrate_postgres, pending_revisions
from samplemind.migration_lock import hold_migration_lock
from samplemind.models.base import Base
from samplemind.settings import Settings

# Whatever a migration can leave behind, apart from Alembic's own table.
_LEFT_BEHIND = text(
    """
    SELECT 'relation ' || relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE 'alembic_version%'
    UNION ALL SELECT 'function ' || proname FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT 'type ' || typname FROM pg_type
    WHERE typnamespace = 'public'::regnamespace AND typname NOT LIKE '%alembic_version'
    UNION ALL SELECT 'extension ' || extname FROM pg_extension WHERE extname <> 'plpgsql'
    UNION ALL SELECT 'configuration ' || cfgname FROM pg_ts_config
    WHERE cfgnamespace = 'public'::regnamespace
    """
)
_CHECKS = text(
    """
    SELECT conname FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
    WHERE contype = 'c' AND pg_class.relnamespace = 'public'::regnamespace
      AND NOT relispartition
    """
)


def _engine(settings: Settings) -> AsyncEngine:
    assert settings.postgres.url is not None
    return create_unpooled_engine(settings.postgres.url)


async def _names(settings: Settings, query: Executable) -> set[str]:
    engine = _engine(settings)
    async with engine.connect() as connection:
        return set(await connection.scalars(query))


async def _alembic(settings: Settings, run: Callable[..., object], *arguments: object) -> None:
    await asyncio.to_thread(run, alembic_config(settings), *arguments)


async def test_up_down_and_up_again_leaves_what_the_models_say(empty_database: Settings) -> None:
    everything = await pending_revisions(empty_database)
    assert everything[0] == "001"
    assert await migrate_postgres(empty_database) == everything[-1]
    assert await pending_revisions(empty_database) == []

    await _alembic(empty_database, command.downgrade, "base")
    assert await _names(empty_database, _LEFT_BEHIND) == set()

    assert await migrate_postgres(empty_database) == everything[-1]
    # Raises where autogenerate finds a difference in tables, columns, types, server defaults,
    # indexes, keys or unique constraints.
    await _alembic(empty_database, command.check)


async def test_autogenerate_sees_changed_types_and_defaults(empty_database: Settings) -> None:
    await migrate_postgres(empty_database)
    engine = _engine(empty_database)
    for statement in (
        "ALTER TABLE users ALTER COLUMN display_name TYPE varchar(20)",
        "ALTER TABLE api_keys ALTER COLUMN times_used SET DEFAULT 7",
        "DROP INDEX ix_users_roles",
    ):
        async with engine.begin() as connection:
            await connection.execute(text(statement))
        with pytest.raises(Exception, match="New upgrade operations detected"):
            await _alembic(empty_database, command.check)
        await _alembic(empty_database, command.downgrade, "base")
        await migrate_postgres(empty_database)


async def test_the_tables_have_the_checks_that_the_models_name(migrated: Settings) -> None:
    # Autogenerate does not compare these.
    named = {
        str(constraint.name)
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert len(named) > 20
    assert await _names(migrated, _CHECKS) == named


async def test_the_offline_script_makes_the_same_schema(empty_database: Settings) -> None:
    config = alembic_config(empty_database)
    del config.attributes["settings"]  # it needs neither a server nor an address
    config.output_buffer = io.StringIO()
    await asyncio.to_thread(command.upgrade, config, "head", sql=True)
    engine = _engine(empty_database)
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.set_autocommit(True)
        await driver.execute(config.output_buffer.getvalue())
    assert await pending_revisions(empty_database) == []
    await _alembic(empty_database, command.check)


async def test_deployers_at_once_wait_for_each_other_and_migrate_once(
    empty_database: Settings,
) -> None:
    variables = {
        f"SAMPLEMIND_{store.value.upper()}_URL": _secret(empty_database.url(store))
        for store in Store
    }
    everything = await pending_revisions(empty_database)
    async with _engine(empty_database).connect() as connection, hold_migration_lock(connection):
        deployers = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "alembic", "upgrade", "head"),
                cwd=MIGRATIONS.parent,
                env={**os.environ, **variables},
                stderr=asyncio.subprocess.PIPE,
            )
            for _ in range(2)
        ]
        for deployer in deployers:
            assert b"postgres.migration_waits" in await _first_event(deployer)
        assert await pending_revisions(empty_database) == everything
    ends = await asyncio.gather(*(deployer.communicate() for deployer in deployers))
    assert [deployer.returncode for deployer in deployers] == [0, 0], ends
    assert await pending_revisions(empty_database) == []


async def test_a_deployer_waits_its_turn_and_no_longer(empty_database: Settings) -> None:
    engine = _engine(empty_database)
    async with engine.connect() as first, engine.connect() as second:
        async with hold_migration_lock(first):
            with pytest.raises(TransientError, match="another deployer"):
                async with hold_migration_lock(second, wait_s=0.1):
                    pytest.fail("both hold the lock")
            waiting = asyncio.create_task(_hold_and_release(second))
            # While it waits it must hold no snapshot: CREATE INDEX CONCURRENTLY would wait for it.
            assert not await _holds_snapshot(first)
        await asyncio.wait_for(waiting, timeout=10)


async def test_the_lock_is_free_again_after_a_migration_that_failed(
    empty_database: Settings,
) -> None:
    engine = _engine(empty_database)
    async with engine.connect() as first, engine.connect() as second:
        with pytest.raises(Exception, match="no_such_table"):
            async with hold_migration_lock(first):
                await first.execute(text("SELECT * FROM no_such_table"))
        async with hold_migration_lock(second, wait_s=0):
            pass


async def test_a_migration_does_not_queue_for_long_in_front_of_a_busy_table(
    empty_database: Settings,
) -> None:
    await migrate_postgres(empty_database)
    hurried = empty_database.model_copy(
        update={"postgres": empty_database.postgres.model_copy(update={"lock_timeout_ms": 100})}
    )
    engine = _engine(empty_database)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT count(*) FROM users"))
        with pytest.raises(TransientError, match="lock"):
            await _alembic(hurried, command.downgrade, "base")
    await migrate_postgres(empty_database)
    await _alembic(empty_database, command.check)


async def test_a_database_of_a_newer_installation_is_left_alone(empty_database: Settings) -> None:
    await migrate_postgres(empty_database)
    engine = _engine(empty_database)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '999'"))
    for ask in (pending_revisions, migrate_postgres):
        with pytest.raises(ConflictError, match="999"):
            await _call(ask, empty_database)


async def test_the_migrations_are_found_in_an_installed_wheel(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    await _finish(build, cwd=MIGRATIONS.parent)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "site-packages"
    await _finish([sys.executable, "-m", "zipfile", "-e", str(wheel), str(installed)], cwd=tmp_path)
    program = (
        "from alembic.script import ScriptDirectory as S; from samplemind.migrate import MIGRATIONS"
        " as M; print(M, [r.revision for r in S(str(M)).walk_revisions()][-1])"
    )
    printed = await _finish(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )
    assert printed.split() == [str(installed / "migrations"), "001"]
    assert (installed / "migrations" / "script.py.mako").is_file()


async def _first_event(process: asyncio.subprocess.Process) -> bytes:
    assert process.stderr is not None
    async for line in process.stderr:
        if b"postgres." in line:
            return line
    return b""


async def _hold_and_release(connection: AsyncConnection) -> None:
    async with hold_migration_lock(connection, wait_s=5):
        pass


async def _holds_snapshot(connection: AsyncConnection) -> bool:
    """Return whether another connection is seen with a snapshot in half a second of looking."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 0.5
    idle = 0
    while loop.time() < deadline:
        states = await connection.scalars(
            text(
                "SELECT state FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND backend_type = 'client backend' "
                "AND backend_xmin IS NOT NULL AND now() - query_start > interval '50 ms'"
            )
        )
        if states.all():
            return True
        await connection.commit()
        idle += 1
        await asyncio.sleep(0.01)
    assert idle > 1
    return False


async def _call(ask: Callable[[Settings], Awaitable[object]], settings: Settings) -> None:
    await ask(settings)


def _secret(url: SecretStr | None) -> str:
    assert url is not None
    return url.get_secret_value()


async def _finish(arguments: list[str], **options: object) -> str:
    def run() -> str:
        done = subprocess.run(  # type: ignore[call-overload]
            arguments, check=True, capture_output=True, text=True, **options
        )
        return str(done.stdout)

    return await asyncio.to_thread(run)
