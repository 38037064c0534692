"""What a PostgreSQL database holds, as a backup sees it: tables, sequences, extensions.

Invariant: each question is asked through the connection that is given, so that inside a snapshot
all the answers are of one moment. Identifiers are quoted by psycopg, never by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

BINARY_TYPES = (
    "vector",
    "halfvec",
    "sparsevec",
    "bytea",
    "_float4",
    "_float8",
    "_vector",
    "_bytea",
)
"""Types whose binary form is much smaller and quicker than their text."""

SAMPLE_ROWS = 20_000
"""Rows about which a sampled fingerprint speaks at most, or so; a smaller table is taken whole."""

_OWN_SCHEMAS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
# What belongs to an extension comes back with CREATE EXTENSION.
_NO_EXTENSION = (
    "NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass "
    "AND d.objid = c.oid AND d.deptype = 'e')"
)
_TABLES = f"""
SELECT n.nspname, c.relname,
       greatest(c.reltuples, 0)::bigint,
       pg_relation_size(c.oid),
       pg_table_size(c.oid),
       pg_relation_size(c.oid) / current_setting('block_size')::int,
       array_agg(a.attname::text ORDER BY a.attnum)
           FILTER (WHERE a.attnum IS NOT NULL AND a.attgenerated = ''),
       coalesce(bool_or(t.typname::text = ANY(%s)) FILTER (WHERE a.attgenerated = ''), false)
           AND coalesce(bool_and(t.typsend <> 0 AND t.typreceive <> 0)
                        FILTER (WHERE a.attgenerated = ''), false),
       (SELECT array_agg(k.attname::text ORDER BY array_position(i.indkey::int2[], k.attnum))
          FROM pg_index i JOIN pg_attribute k
            ON k.attrelid = i.indrelid AND k.attnum = ANY(i.indkey)
         WHERE i.indrelid = c.oid AND i.indisprimary)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND {_OWN_SCHEMAS} AND {_NO_EXTENSION}
GROUP BY c.oid, n.nspname, c.relname
ORDER BY n.nspname, c.relname
"""  # noqa: S608 - constants of this module
_UNLOGGED = f"""
SELECT n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND {_OWN_SCHEMAS} AND {_NO_EXTENSION}
ORDER BY 1, 2
"""  # noqa: S608 - constants of this module
_SEQUENCES = f"""
SELECT n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence = 'p' AND {_OWN_SCHEMAS} AND {_NO_EXTENSION}
ORDER BY 1, 2
"""  # noqa: S608 - constants of this module
_VIEWS = f"""
SELECT n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated AND {_OWN_SCHEMAS} AND {_NO_EXTENSION}
ORDER BY c.oid
"""  # noqa: S608 - constants of this module
_EXTENSIONS = "SELECT extname, extversion FROM pg_extension ORDER BY 1"


@dataclass(frozen=True)
class Table:
    """A table that holds rows of its own; a partitioned one does not, its partitions do."""

    schema: str
    name: str
    estimated_rows: int
    heap_bytes: int
    size_bytes: int
    """With what is stored out of line; without indexes."""
    pages: int
    columns: tuple[str, ...]
    """Those that are written, in order; generated ones are computed anew."""
    binary: bool
    """Whether its rows travel in binary: some column gains by it, and every one can."""
    key: tuple[str, ...]
    """The columns of the primary key; empty where there is none."""

    @property
    def qualified_name(self) -> str:
        """Schema and name, for people and manifests."""
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        """Schema and name, quoted for a statement."""
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True)
class SequencePlace:
    """Where a sequence stands: the last number, and whether that was given out."""

    schema: str
    name: str
    last: int
    called: bool

    @property
    def qualified_name(self) -> str:
        """Schema and name."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Fingerprint:
    """What rows of a table hash to, in whatever order they lie; every `modulus`th by its key."""

    rows: int
    modulus: int
    digest: str


def list_tables(connection: psycopg.Connection) -> list[Table]:
    """Return every ordinary table and leaf partition that is no extension's and not temporary."""
    rows = connection.execute(_TABLES, (list(BINARY_TYPES),)).fetchall()
    return [
        Table(
            schema=schema,
            name=name,
            estimated_rows=estimated,
            heap_bytes=heap,
            size_bytes=size,
            pages=pages,
            columns=tuple(columns or ()),
            binary=binary,
            key=tuple(key or ()),
        )
        for schema, name, estimated, heap, size, pages, columns, binary, key in rows
    ]


def list_unlogged_tables(connection: psycopg.Connection) -> list[str]:
    """Return the names of the tables that `list_tables` leaves out as the server may empty them."""
    return [f"{schema}.{name}" for schema, name in connection.execute(_UNLOGGED).fetchall()]


def list_sequences(connection: psycopg.Connection) -> list[SequencePlace]:
    """Return every sequence with its place."""
    found = []
    for schema, name in connection.execute(_SEQUENCES).fetchall():
        row = connection.execute(
            sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(schema, name))
        ).fetchone()
        if row is not None:
            found.append(SequencePlace(schema, name, row[0], row[1]))
    return found


def list_materialized_views(connection: psycopg.Connection) -> list[tuple[str, str]]:
    """Return schema and name of each materialised view that holds something, oldest first."""
    return [(schema, name) for schema, name in connection.execute(_VIEWS).fetchall()]


def list_extensions(connection: psycopg.Connection) -> dict[str, str]:
    """Return the version of each extension by its name."""
    return dict(connection.execute(_EXTENSIONS).fetchall())


def count_large_objects(connection: psycopg.Connection) -> int:
    """Return how many large objects the database has."""
    row = connection.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone()
    return 0 if row is None else int(row[0])


def database_bytes(connection: psycopg.Connection) -> int:
    """Return what the database takes on the server's disk."""
    row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return 0 if row is None else int(row[0])


def count_rows(connection: psycopg.Connection, table: Table) -> int:
    """Return how many rows a table holds of its own."""
    statement = sql.SQL("SELECT count(*) FROM ONLY {}").format(table.identifier)
    row = connection.execute(statement).fetchone()
    return 0 if row is None else int(row[0])


def sample_modulus(table: Table) -> int:
    """Return by which share of its rows a table is known: one in so many; 1 is all of them."""
    return max(1, table.estimated_rows // SAMPLE_ROWS)


def fingerprint(
    connection: psycopg.Connection, table: Table, modulus: int | None = None
) -> Fingerprint:
    """Hash a table's rows such that their order does not matter.

    Args:
        connection: with the canonical text settings of `Server.connect`.
        table: as `list_tables` told it; only its name and key are used.
        modulus: every how many rows one is taken, by the hash of its key; 1: all of them;
            none: as many as a sample needs.
    """
    each = sample_modulus(table) if modulus is None else modulus
    row = sql.SQL("t.*::text")
    key = sql.SQL("ROW({})::text").format(_columns(table.key)) if table.key else row
    where: sql.Composable = sql.SQL("")
    if each > 1:
        where = sql.SQL("WHERE (hashtext({}) & 2147483647) %% {} = 0").format(
            key, sql.Literal(each)
        )
    statement = sql.SQL(
        'SELECT count(*), coalesce(sum(hashtextextended({} COLLATE "C", 0)::numeric), 0)::text '
        "FROM ONLY {} AS t {}"
    ).format(row, table.identifier, where)
    found = connection.execute(statement.as_string(connection).replace("%%", "%")).fetchone()
    assert found is not None  # noqa: S101 - an aggregate has one row
    return Fingerprint(rows=found[0], modulus=each, digest=found[1])


def _columns(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier("t", name) for name in names)
