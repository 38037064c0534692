"""MongoDB's part of a restore: collections with their documents and indexes, views, accounts.

Invariant: documents are counted and hashed on their way and compared with the manifest. Where a
stage is switched into its place, what cannot be renamed comes after that: views read collections
by their names, and MongoDB renames no time series.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pymongo.database import Database

from samplemind.backup import mongo as mongo_store
from samplemind.backup.control import Control
from samplemind.backup.manifest import CollectionRecord, Manifest, MongoRecord
from samplemind.backup.mongo_accounts import decode_accounts, write_accounts
from samplemind.backup.objects import ObjectReader
from samplemind.backup.parallel import run_parallel
from samplemind.backup.staging import Stage
from samplemind.errors import BackupCorruptError
from samplemind.settings import MongoSettings


@dataclass(frozen=True)
class MongoRestore:
    """One restore into one stage; `collections` are those that are wanted, none of them: all."""

    manifest: Manifest
    record: MongoRecord
    reader: ObjectReader
    stage: Stage
    settings: MongoSettings
    collections: Sequence[str]
    jobs: int
    control: Control

    @property
    def views(self) -> list[tuple[str, str]]:
        """Name and options of each view, in the order in which they are made."""
        return [(each.name, each.options) for each in self._chosen if each.view]

    @property
    def series(self) -> list[CollectionRecord]:
        """The time series."""
        return [each for each in self._chosen if each.timeseries]

    def run(self) -> int:
        """Restore what the stage can take; return how many documents.

        Raises:
            BackupCorruptError: a collection has other documents than the backup says.
        """
        staged = bool(self.stage.prefix)
        plain = [
            each for each in self._chosen if not each.view and not (each.timeseries and staged)
        ]
        self.control.begin("documents", sum(each.size_bytes for each in plain))
        with mongo_store.connect(self.settings) as client:
            database = client[self.settings.database]
            documents = sum(
                run_parallel(
                    lambda each: self._restore(database, each, self.stage.prefix + each.name),
                    plain,
                    self.jobs,
                    self.control,
                )
            )
            if not staged:
                for name, options in self.views:
                    mongo_store.create_collection(database, name, options)
            mongo_store.await_majority(database)
        return documents

    def run_series(self) -> int:
        """Restore time series under their own names, after the switch; return their buckets."""
        series = self.series
        self.control.begin("time series", sum(each.size_bytes for each in series))
        with mongo_store.connect(self.settings) as client:
            database = client[self.settings.database]
            buckets = sum(self._restore(database, each, each.name) for each in series)
            mongo_store.await_majority(database)
        return buckets

    def create_accounts(self) -> list[str]:
        """Create the users and roles that are missing, where the database has its own name.

        Raises:
            AccountsDeniedError: the account may not create them.
        """
        name = self.record.accounts_object
        # Users and roles belong to a database by its name.
        if name is None or self.record.database != self.settings.database:
            return []
        accounts = decode_accounts(self.reader.read(self.manifest.object(name)))
        with mongo_store.connect(self.settings) as client:
            return write_accounts(client, accounts)

    @property
    def _chosen(self) -> list[CollectionRecord]:
        return [
            each
            for each in self.record.collections
            if not self.collections or each.name in self.collections
        ]

    def _restore(
        self, database: "Database[mongo_store.Document]", each: CollectionRecord, name: str
    ) -> int:
        digest = mongo_store.DocumentDigest()
        mongo_store.create_collection(database, name, each.options)
        if each.object is not None:
            blocks = self.control.watch(self.reader.read(self.manifest.object(each.object)))
            stored = mongo_store.stored_name(name, timeseries=each.timeseries)
            mongo_store.restore_documents(database, stored, blocks, digest)
        if (digest.documents, digest.digest) != (each.documents, each.digest):
            message = f"{each.name} has other documents than the backup says"
            raise BackupCorruptError(message)
        mongo_store.create_indexes(database, name, each.indexes)
        return digest.documents
