"""The operator's backup keys, from the settings or from a file.

Invariant: a key is never part of a message. A key file that others may read is refused, as
everything it protects would be theirs.
"""

import re
import stat

from samplemind.backup.encryption import Keyring
from samplemind.errors import SecretError
from samplemind.setting_types import read_backup_key
from samplemind.settings import PREFIX, BackupSettings

_LINE = re.compile(r"(?P<id>[0-9A-Za-z][0-9A-Za-z_.-]{0,63})\s+(?P<key>\S+)")
_OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def load_keyring(settings: BackupSettings) -> Keyring:
    """Return the keys that are set, those of the variable before those of the file.

    Raises:
        SecretError: the file cannot be read, others may read it, or a line of it is no key.
    """
    keys = {
        key_id: read_backup_key(key.get_secret_value()) for key_id, key in settings.keys.items()
    }
    for key_id, key in _read_file(settings):
        if keys.setdefault(key_id, key) != key:
            message = f"the backup key {key_id!r} is given twice, with different contents"
            raise SecretError(message)
    return Keyring(keys)


def _read_file(settings: BackupSettings) -> list[tuple[str, bytes]]:
    path = settings.key_file
    if path is None:
        return []
    try:
        if path.stat().st_mode & _OF_OTHERS:
            message = f"others may read the key file {path}: chmod 600 {path}"
            raise SecretError(message)
        lines = path.read_text().splitlines()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        message = f"{PREFIX}BACKUP_KEY_FILE {path} cannot be read: {reason}"
        raise SecretError(message) from None  # a decoding error would hold the content
    keys = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        try:
            if match is None:
                raise ValueError("a line is an id and a key in base64")
            keys.append((match["id"], read_backup_key(match["key"])))
        except ValueError as error:
            message = f"line {number} of {path}: {error}"
            raise SecretError(message) from None
    return keys
