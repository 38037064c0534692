"""Encryption of tokens at rest, with keys from the settings.

Invariant: what is closed is closed with the newest key; what an older key closed still opens
until it is rotated. A key is named by an id, a hash of it, which may be stored and shown. Neither
keys nor plain texts appear in a representation or a message.
"""

import hashlib

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from samplemind.errors import SecretError
from samplemind.settings import PREFIX, SecuritySettings

_ID_CHARACTERS = 12


class TokenCipher:
    """Closes and opens short texts (Fernet: AES-128-CBC with an HMAC-SHA256 over all of it)."""

    def __init__(self, key: SecretStr, previous_keys: tuple[SecretStr, ...] = ()) -> None:
        """Take the key for everything new, and those that still open what they closed.

        Raises:
            SecretError: one is not a Fernet key.
        """
        keys = (key, *previous_keys)
        self._fernet = MultiFernet([_fernet(one) for one in keys])
        self.key_id = key_id(key)
        self.previous_key_ids = tuple(key_id(one) for one in previous_keys)

    @classmethod
    def from_settings(cls, settings: SecuritySettings) -> "TokenCipher":
        """Make the cipher of these settings.

        Raises:
            SecretError: no key is set, or one is not a Fernet key.
        """
        if settings.encryption_key is None:
            message = (
                f"no key for tokens at rest: set {PREFIX}SECURITY_ENCRYPTION_KEY to 32 random "
                "bytes in url-safe base64"
            )
            raise SecretError(message)
        return cls(settings.encryption_key, settings.previous_encryption_keys)

    def __repr__(self) -> str:
        return f"<TokenCipher key_id={self.key_id}>"

    def encrypt(self, plain: SecretStr) -> bytes:
        """Return the closed text, with the time and a signature inside."""
        return self._fernet.encrypt(plain.get_secret_value().encode())

    def decrypt(self, closed: bytes) -> SecretStr:
        """Return the plain text.

        Raises:
            SecretError: none of the keys closed it, or it was changed.
        """
        try:
            return SecretStr(self._fernet.decrypt(closed).decode())
        except InvalidToken:
            raise SecretError(_NO_KEY_FITS) from None

    def rotate(self, closed: bytes) -> bytes:
        """Return the same text closed with the newest key, keeping the time of its closing.

        Raises:
            SecretError: none of the keys closed it, or it was changed.
        """
        try:
            return self._fernet.rotate(closed)
        except InvalidToken:
            raise SecretError(_NO_KEY_FITS) from None


def key_id(key: SecretStr) -> str:
    """Return the name under which a key may be stored and shown."""
    material = b"samplemind key id:" + key.get_secret_value().encode()
    return hashlib.sha256(material).hexdigest()[:_ID_CHARACTERS]


_NO_KEY_FITS = "a token at rest opens with none of the configured keys: was one removed too early?"


def _fernet(key: SecretStr) -> Fernet:
    try:
        return Fernet(key.get_secret_value())
    except ValueError:
        message = "an encryption key is not 32 bytes in url-safe base64 (a Fernet key)"
        raise SecretError(message) from None
