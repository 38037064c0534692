"""MongoDB's users and roles that concern one database.

Those that are defined in it, and users of other databases that hold a role in it, with the roles
that they name; as MongoDB keeps them, so that a password stays what it was.

Invariant: who exists already is never altered, as a restore into a living server must not change
who may enter it. What the backup's account may not read is told and not taken for nothing.
"""

import secrets
from collections.abc import Iterable, Iterator
from typing import Any

from bson import decode, encode
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from samplemind.backup.mongo import Document
from samplemind.connections.mongo import translating_errors
from samplemind.errors import PermanentError

_UNAUTHORIZED = 13
_OPTIONS: CodecOptions[Document] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)


class AccountsDeniedError(PermanentError):
    """The account may not read or write users and roles."""


def read_accounts(client: "MongoClient[Document]", database: str) -> Document:
    """Return `{"users": […], "roles": […]}` as they lie in the server.

    Raises:
        AccountsDeniedError: the account may not read them.
    """
    try:
        with translating_errors():
            users = list(
                client.admin["system.users"].find(
                    {"$or": [{"db": database}, {"roles.db": database}]}
                )
            )
            named = {f"{role['db']}.{role['role']}" for user in users for role in user["roles"]}
            roles = list(
                client.admin["system.roles"].find(
                    {"$or": [{"db": database}, {"_id": {"$in": sorted(named)}}]}
                )
            )
    except PermanentError as error:
        if _is_denied(error):
            message = (
                "MongoDB's users and roles are not in it, as its account may not read them: grant "
                "it the role backup in admin"
            )
            raise AccountsDeniedError(message) from error
        raise
    return {"users": users, "roles": roles}


def write_accounts(client: "MongoClient[Document]", accounts: Document) -> list[str]:
    """Create the users and roles that are missing; return the names of the users.

    Raises:
        AccountsDeniedError: the account may not create them.
    """
    token = secrets.token_hex(4)
    names = {kind: f"samplemind_{kind}_{token}" for kind in ("users", "roles")}
    admin = client.admin
    try:
        with translating_errors():
            missing = {
                kind: list(_missing(client, f"system.{kind}", accounts[kind])) for kind in names
            }
            try:
                for kind, documents in missing.items():
                    if documents:
                        admin[names[kind]].insert_many(documents)
                if any(missing.values()):
                    # As MongoDB's own tools restore them: no other command takes credentials.
                    admin.command(
                        {
                            "_mergeAuthzCollections": 1,
                            "tempUsersCollection": f"admin.{names['users']}",
                            "tempRolesCollection": f"admin.{names['roles']}",
                            "drop": False,
                            "db": "",
                        }
                    )
            finally:
                for name in names.values():
                    admin.drop_collection(name)
    except PermanentError as error:
        if _is_denied(error):
            message = (
                "MongoDB's users and roles were not restored, as the account may not: grant it the "
                "role restore in admin"
            )
            raise AccountsDeniedError(message) from error
        raise
    return [user["_id"] for user in missing["users"]]


def encode_accounts(accounts: Document) -> bytes:
    """Return accounts as one document of BSON."""
    return encode(accounts, codec_options=_OPTIONS)


def decode_accounts(content: Iterable[bytes]) -> Document:
    """Return accounts from BSON."""
    return decode(b"".join(content), codec_options=_OPTIONS)


def _missing(
    client: "MongoClient[Document]", collection: str, documents: list[Any]
) -> Iterator[Any]:
    wanted = [each["_id"] for each in documents]
    found = client.admin[collection].find({"_id": {"$in": wanted}}, {"_id": 1})
    there = {each["_id"] for each in found}
    return (each for each in documents if each["_id"] not in there)


def _is_denied(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(cause, OperationFailure) and cause.code == _UNAUTHORIZED
