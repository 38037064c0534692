"""What the stores' URLs say, read by the library that will connect with them.

Invariant: no error here repeats any part of a URL, since each part may be one of its password: a
character that is not percent-encoded ends the password early and makes the rest a host, a port or
a database. Nothing is connected and no name is resolved.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

from pydantic import SecretStr

from samplemind.endpoints import Store
from samplemind.errors import SettingsError

_SCHEMES: dict[Store, tuple[str, ...]] = {
    Store.POSTGRES: ("postgresql", "postgres", "postgresql+psycopg"),
    Store.MONGO: ("mongodb", "mongodb+srv"),
    Store.BROKER: ("redis", "rediss"),
    Store.CACHE: ("redis", "rediss"),
}
_UNREADABLE = (
    "the URL cannot be read; in its user and password, : / ? # [ ] @ and % must be "
    "percent-encoded (%3A %2F %3F %23 %5B %5D %40 %25)"
)


def read_address(store: Store, url: SecretStr) -> str:
    """Return the host and port of a store's URL, or hosts and ports, without user and password.

    Raises:
        SettingsError: the URL is not one that the store's library reads.
    """
    text = url.get_secret_value()
    scheme, _, rest = text.partition("://")
    if scheme not in _SCHEMES[store]:
        allowed = ", ".join(f"{scheme}://" for scheme in _SCHEMES[store])
        message = f"a URL that starts with one of {allowed} is needed"
        raise SettingsError(message)
    authority, _, path = rest.partition("?")[0].partition("/")
    if store is not Store.POSTGRES and not authority:
        message = "the URL names no host"
        raise SettingsError(message)
    address = None if "@" in path else _READERS[store](text)
    if address is None:
        raise SettingsError(_UNREADABLE)
    return address


def libpq_url(url: str) -> str:
    """Return a PostgreSQL URL as libpq knows it, without SQLAlchemy's driver in the scheme."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


# The drivers are loaded by whoever has such a URL: the settings are read by every command.


def _read_postgres(url: str) -> str | None:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        fields = conninfo_to_dict(libpq_url(url))
    except psycopg.Error:
        return None
    hosts = str(fields.get("host") or "localhost").split(",")
    ports = [port or "5432" for port in str(fields.get("port") or "5432").split(",")]
    if not all(port.isdecimal() for port in ports):  # libpq looks only when it connects
        return None
    ports += ports[-1:] * (len(hosts) - len(ports))
    return ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False))


def _read_mongo(url: str) -> str | None:
    from pymongo.errors import PyMongoError
    from pymongo.uri_parser import parse_uri

    try:
        # PyMongo resolves the name of a +srv URL before it has read the rest.
        parse_uri(url.replace("mongodb+srv://", "mongodb://", 1))
    except (PyMongoError, ValueError):
        return None
    return urlsplit(url).netloc.rpartition("@")[2]


def _read_redis(url: str) -> str | None:
    from redis import ConnectionPool

    try:
        # Makes no connection yet, and takes every parameter as one would.
        ConnectionPool.from_url(url).make_connection()
    except (ValueError, TypeError):
        return None
    return urlsplit(url).netloc.rpartition("@")[2]


_READERS: dict[Store, Callable[[str], str | None]] = {
    Store.POSTGRES: _read_postgres,
    Store.MONGO: _read_mongo,
    Store.BROKER: _read_redis,
    Store.CACHE: _read_redis,
}
