import pkgutil

import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import configure_mappers

import samplemind.models
from samplemind.ids import new_id
from samplemind.models.api_key import ApiKey
from samplemind.models.base import Base
from samplemind.models.oauth_account import OAuthAccount
from samplemind.models.user import User


def test_every_module_of_the_package_is_found_by_its_being_there() -> None:
    modules = {module.name for module in pkgutil.iter_modules(samplemind.models.__path__)}
    with_tables = {mapper.class_.__module__.rpartition(".")[2] for mapper in Base.registry.mappers}
    assert modules - with_tables == {"base"}
    configure_mappers()  # raises where a relationship's other side is missing


def test_every_constraint_and_index_has_a_name_that_postgresql_does_not_cut() -> None:
    limit = postgresql.dialect.max_identifier_length
    for table in Base.metadata.tables.values():
        names = [constraint.name for constraint in table.constraints]
        names += [index.name for index in table.indexes]
        assert None not in names, table.name
        assert [name for name in names if len(str(name)) > limit] == []


@pytest.mark.parametrize(
    "row",
    [
        User(id=new_id(), email="ann@example.org", password_hash="$argon2id$hash"),
        ApiKey(id=new_id(), name="laptop", prefix="smk_abcdef", key_hash=b"hash"),
        OAuthAccount(id=new_id(), provider="google", access_token_encrypted=b"closed hash"),
    ],
)
def test_a_row_shows_its_kind_and_nothing_of_its_contents(row: Base) -> None:
    shown = repr([row, str(row)])
    assert type(row).__name__ in shown
    for contents in ("ann@", "hash", "smk_", "laptop", "google"):
        assert contents not in shown
