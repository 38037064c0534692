"""The embedded MongoDB: a replica set of one, because transactions need a replica set.

Invariant: the only user has the stack's password, and was made through mongod's localhost
exception, which ends with the first user.
"""

import base64
import hashlib
import json
import socket
from typing import Any

from pydantic import SecretStr
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from samplemind.embedded.binaries import server_binary
from samplemind.embedded.home import StackHome
from samplemind.embedded.ports import LOOPBACK
from samplemind.embedded.server import USER, Server
from samplemind.endpoints import Store
from samplemind.errors import StoreUnavailableError

REPLICA_SET = "samplemind"
_TIMEOUT_MS = 5_000
_AUTHENTICATION_FAILED = 18
_ALREADY_INITIALIZED = 23


class MongoServer(Server):
    """mongod with authentication, a key file and a small cache."""

    def __init__(self, home: StackHome, password: SecretStr) -> None:
        super().__init__(Store.MONGO, home, password)

    def prepare(self, port: int) -> list[str]:
        """Write the key file and the settings."""
        self.make_data_directory(self.data)
        password = self.password.get_secret_value()
        digest = hashlib.sha256(f"key file {password}".encode()).digest()
        key_file = self.home.write_private("mongo.key", base64.b64encode(digest).decode())
        settings = {
            "storage": {
                "dbPath": str(self.data),
                # The default is half of the memory, which PostgreSQL and the workers need too.
                "wiredTiger": {"engineConfig": {"cacheSizeGB": 0.25}},
            },
            "replication": {"replSetName": REPLICA_SET, "oplogSizeMB": 512},
            "net": {
                "bindIp": LOOPBACK,
                "port": port,
                # A socket's path may not exceed 107 bytes, and it would lie in /tmp.
                "unixDomainSocket": {"enabled": False},
            },
            "security": {"keyFile": str(key_file), "authorization": "enabled"},
            "setParameter": {
                # Writes about a megabyte a minute for MongoDB's support, who are not asked here.
                "diagnosticDataCollectionEnabled": False,
                # Waits for clients to leave; with one node they have nowhere to go.
                "shutdownTimeoutMillisForSignaledShutdown": 100,
            },
        }
        # JSON is YAML, which is what mongod reads, but for letters that JSON writes as two escapes.
        text = json.dumps(settings, indent=1, ensure_ascii=False)
        settings_file = self.home.write_private("mongo.conf", text)
        return [str(server_binary(Store.MONGO)), "--config", str(settings_file)]

    def complete(self, port: int) -> None:
        """Ask it with the password; make the replica set and the user where missing."""
        _require_listener(port)
        try:
            if not self._accepts_password(port):
                self._make_user(port)
            with self._client(port, authenticated=True) as client:
                _follow_port(client, port)
                _require_primary(client)
        except PyMongoError as error:
            message = f"MongoDB does not answer: {type(error).__name__}"
            raise StoreUnavailableError(message) from error

    def url(self, port: int) -> SecretStr:
        """Return its URL, which names the replica set."""
        password = self.password.get_secret_value()
        return SecretStr(
            f"mongodb://{USER}:{password}@{LOOPBACK}:{port}/"
            f"?replicaSet={REPLICA_SET}&authSource=admin"
        )

    def _accepts_password(self, port: int) -> bool:
        # A client of its own: after a refusal PyMongo takes the server for down for seconds.
        with self._client(port, authenticated=True) as client:
            try:
                client.admin.command("ping")
            except OperationFailure as error:
                if error.code != _AUTHENTICATION_FAILED:
                    raise
                return False
            return True

    def _make_user(self, port: int) -> None:
        with self._client(port, authenticated=False) as client:
            try:
                client.admin.command("replSetInitiate", _replica_set(port))
            except OperationFailure as error:
                if error.code != _ALREADY_INITIALIZED:
                    raise
            _require_primary(client)
            password = self.password.get_secret_value()
            client.admin.command("createUser", USER, pwd=password, roles=["root"])

    def _client(self, port: int, *, authenticated: bool) -> MongoClient[dict[str, Any]]:
        credentials: dict[str, Any] = {}
        if authenticated:
            credentials = {"username": USER, "password": self.password.get_secret_value()}
        return MongoClient(
            LOOPBACK,
            port,
            directConnection=True,
            serverSelectionTimeoutMS=_TIMEOUT_MS,
            connectTimeoutMS=_TIMEOUT_MS,
            socketTimeoutMS=_TIMEOUT_MS,
            **credentials,
        )


def _require_listener(port: int) -> None:
    # PyMongo looks again only every half second, which is long while a server starts.
    try:
        socket.create_connection((LOOPBACK, port), timeout=_TIMEOUT_MS / 1000).close()
    except OSError as error:
        message = "MongoDB does not listen yet"
        raise StoreUnavailableError(message) from error


def _replica_set(port: int) -> dict[str, Any]:
    members = [{"_id": 0, "host": f"{LOOPBACK}:{port}"}]
    return {"_id": REPLICA_SET, "members": members}


def _follow_port(client: MongoClient[dict[str, Any]], port: int) -> None:
    # The set names its member by address: with a new port the node does not know itself.
    config = client.admin.command("replSetGetConfig")["config"]
    if config["members"][0]["host"] != f"{LOOPBACK}:{port}":
        config["members"] = _replica_set(port)["members"]
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)


def _require_primary(client: MongoClient[dict[str, Any]]) -> None:
    if not client.admin.command("hello").get("isWritablePrimary"):
        message = "MongoDB has no primary yet"
        raise StoreUnavailableError(message)
