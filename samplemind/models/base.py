"""What all tables share: naming of constraints, column types, and times.

Invariant: every constraint and index has a name that follows from what it is, so that a migration
can name it on any database. Times are `timestamptz`, ids are UUIDv7 made by the application
(PostgreSQL before 18 has no function for them), text is `text`.
"""

from datetime import datetime
from typing import Annotated, Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, MetaData, Text, Uuid, func, inspect, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from samplemind.ids import new_id

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

PrimaryKey = Annotated[UUID, mapped_column(primary_key=True, default=new_id)]
Count = Annotated[int, mapped_column(BigInteger, server_default=text("0"))]
TextSet = Annotated[list[str], mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))]
CreatedAt = Annotated[datetime, mapped_column(server_default=func.now())]
# Set by the ORM's own updates: a counter that changes does not change what the owner sees.
UpdatedAt = Annotated[datetime, mapped_column(server_default=func.now(), onupdate=func.now())]


class Base(DeclarativeBase):
    """The root of every table."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        str: Text,
        UUID: Uuid,
    }
    # Values that the server sets come back with the statement: a later read would need a query,
    # which a plain attribute access cannot await.
    __mapper_args__: Any = {"eager_defaults": True}  # noqa: RUF012 - typed so by SQLAlchemy

    def __repr__(self) -> str:
        # Never the columns: some hold hashes and tokens, and reprs end in logs.
        identity = inspect(self).identity or ("new",)
        return f"<{type(self).__name__} {' '.join(map(str, identity))}>"
