"""Runs one backup job in a process that a test kills: killed_job.py create KIND|restore ID INTO.

Its settings come from the environment, as an operator's would.
"""

import sys

from samplemind.backup.database_backup import BackupConfig, DatabaseBackup
from samplemind.backup.manifest import BackupKind
from samplemind.backup.restore import Choice
from samplemind.settings import load_settings

settings = load_settings()
backup = DatabaseBackup(BackupConfig(), settings=settings)
print("ready", flush=True)  # noqa: T201 - the test waits for it
if sys.argv[1] == "create":
    backup.create_backup(BackupKind(sys.argv[2]), control=backup.control())
else:
    backup.restore_backup(
        sys.argv[2], into=sys.argv[3], choice=Choice(drop=True), safety_backup=False
    )
print("done", flush=True)  # noqa: T201
