"""Every error of the platform, in one tree.

    SampleMindError
    ├── SettingsError               a setting is wrong; the message has one line a fault
    ├── PermanentError              trying again cannot help
    │   ├── NotFoundError           the thing named does not exist
    │   ├── ConflictError           the thing exists already, or changed meanwhile
    │   │   └── NewerDatabaseError  a newer installation has migrated the database
    │   ├── InvalidInputError       the caller's value is refused; the message says what is allowed
    │   ├── SecretError             a secret is missing or does not fit what it should open
    │   ├── StorageError            an object store refuses: no such bucket, no space, no permission
    │   ├── BackupError             a backup, its verification or its restore failed
    │   │   ├── BackupCorruptError  stored bytes are not those that were written
    │   │   ├── BackupCancelledError    the operator or a time limit stopped it
    │   │   └── MissingToolError    a program of PostgreSQL's is missing, or too old
    │   ├── UnreadableValueError    a cached value is truncated, foreign or tampered with
    │   ├── JobFailedError          a job that was waited for ended otherwise than well
    │   ├── JobCancelledError       the running job was cancelled
    │   └── AudioRejectedError      a file is refused (in samplemind.audio.outcome)
    ├── TransientError              trying again may help: exactly what tasks retry
    │   ├── StoreUnavailableError   PostgreSQL, MongoDB, Redis or an object store did not answer
    │   │   └── CommitOutcomeUnknownError   the connection was lost while committing
    │   ├── PoolTimeoutError        no connection came free in time
    │   └── AudioReadError          the file system failed while a file was read
    │       ├── DecoderDiedError    the guarded decoder process ended before it answered
    │       └── DecoderTimeoutError the guarded decoder process did not answer in time
    └── EmbeddedError               the embedded stack cannot do what was asked
        ├── MissingLibraryError     a system library is missing; the message names the package
        ├── NoServerWheelError      this platform has no wheel with that server
        ├── ServerStartError        a server did not come up; the message has its last log lines
        └── StackNotRunningError    nothing is running and no URL is set

Invariant: a client library's error is translated where it arises (`raise … from`), so a caller
handles this tree and no other. Each message is one readable sentence for an operator; it never
holds a secret.
"""


class SampleMindError(Exception):
    """Base of every error the platform raises on purpose."""


class SettingsError(SampleMindError):
    """A setting is wrong; the message has one line for each fault."""


class PermanentError(SampleMindError):
    """Trying again with the same input cannot succeed."""


class NotFoundError(PermanentError):
    """The named user, file, batch or collection does not exist."""


class ConflictError(PermanentError):
    """The thing exists already, or was changed by somebody else meanwhile."""


class NewerDatabaseError(ConflictError):
    """The database is at a revision that this installation does not know."""


class InvalidInputError(PermanentError):
    """The caller's value is refused; the message says what is allowed."""


class SecretError(PermanentError):
    """A secret is missing, or does not fit what it should open."""


class StorageError(PermanentError):
    """An object store refuses: there is no such bucket, no space is left, or it is not allowed."""


class BackupError(PermanentError):
    """A backup, its verification or its restore failed; the message says at what."""


class BackupCorruptError(BackupError):
    """Stored bytes are not those that were written: truncated, changed, swapped or missing."""


class BackupCancelledError(BackupError):
    """A backup or restore was stopped before it was done."""


class MissingToolError(BackupError):
    """A program of PostgreSQL's is not installed, or is older than the server."""


class UnreadableValueError(PermanentError):
    """A cached value is truncated, foreign or tampered with; the cache takes it for a miss."""


class JobFailedError(PermanentError):
    """A job that was waited for ended otherwise than well; the message says how."""


class JobCancelledError(PermanentError):
    """The running job was cancelled; let it pass, so that the job ends."""


class TransientError(SampleMindError):
    """Trying again may succeed; tasks retry exactly this."""


class StoreUnavailableError(TransientError):
    """PostgreSQL, MongoDB, Redis or an object store did not answer."""


class CommitOutcomeUnknownError(StoreUnavailableError):
    """The connection was lost while committing: the transaction may have happened, or not."""


class PoolTimeoutError(TransientError):
    """No connection of the pool came free within its timeout."""


class AudioReadError(TransientError):
    """The file system failed while an audio file was read; the file itself may be fine."""


class DecoderDiedError(AudioReadError):
    """The guarded decoder process ended before it answered."""


class DecoderTimeoutError(AudioReadError):
    """The guarded decoder process did not answer in time; the machine may be overloaded."""


class EmbeddedError(SampleMindError):
    """The embedded stack cannot do what was asked."""


class MissingLibraryError(EmbeddedError):
    """A server needs a system library that is not installed; the message names the package."""


class NoServerWheelError(EmbeddedError):
    """This platform has no wheel with the server, so a URL must be set for the store."""


class ServerStartError(EmbeddedError):
    """A server did not become healthy in time; the message ends with its last log lines."""


class StackNotRunningError(EmbeddedError):
    """A store has no URL in the settings and no embedded stack is running."""
