import hashlib

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from samplemind.errors import InvalidInputError, SecretError
from samplemind.security.cipher import TokenCipher, key_id
from samplemind.security.passwords import hash_password, needs_rehash, verify_password
from samplemind.security.tokens import API_KEY_START, issue_token, token_digest
from samplemind.settings import SecuritySettings

_PASSWORD = SecretStr("correct horse battery staple")


def _key() -> SecretStr:
    return SecretStr(Fernet.generate_key().decode())


def test_a_password_fits_its_own_hash_only() -> None:
    encoded = hash_password(_PASSWORD)
    assert encoded.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert _PASSWORD.get_secret_value() not in encoded
    assert verify_password(_PASSWORD, encoded)
    assert not verify_password(SecretStr("correct horse battery stapler"), encoded)
    assert not needs_rehash(encoded)


def test_equal_passwords_have_different_hashes() -> None:
    assert hash_password(_PASSWORD) != hash_password(_PASSWORD)


def test_no_password_fits_where_there_is_no_hash_or_a_broken_one() -> None:
    assert not verify_password(_PASSWORD, None)
    assert not verify_password(SecretStr("the password of nobody"), None)
    assert not verify_password(_PASSWORD, "$argon2id$broken")


@pytest.mark.parametrize("password", ["", "elevenchars", "x" * 1025, "é" * 513])
def test_passwords_too_short_or_too_long_are_refused(password: str) -> None:
    with pytest.raises(InvalidInputError, match="12 characters") as caught:
        hash_password(SecretStr(password))
    assert not password or password not in str(caught.value)


def test_a_token_is_random_and_known_by_its_digest() -> None:
    tokens = {issue_token().token.get_secret_value() for _ in range(100)}
    assert len(tokens) == 100
    issued = issue_token(API_KEY_START)
    text = issued.token.get_secret_value()
    assert text.startswith(issued.prefix)
    assert issued.prefix.startswith("smk_")
    # What is shown leaves more than 200 random bits unknown.
    assert len(text) - len(issued.prefix) >= 36
    assert issued.digest == token_digest(issued.token) == hashlib.sha256(text.encode()).digest()
    assert text not in repr(issued)


def test_what_a_cipher_closes_it_opens_and_nobody_else() -> None:
    cipher = TokenCipher(_key())
    closed = cipher.encrypt(SecretStr("ya29.token ♯"))
    assert b"ya29" not in closed
    assert closed != cipher.encrypt(SecretStr("ya29.token ♯"))
    assert cipher.decrypt(closed).get_secret_value() == "ya29.token ♯"
    with pytest.raises(SecretError, match="none of the configured keys"):
        TokenCipher(_key()).decrypt(closed)


def test_a_changed_text_does_not_open() -> None:
    cipher = TokenCipher(_key())
    closed = bytearray(cipher.encrypt(SecretStr("token")))
    closed[-10] = closed[-10] ^ 1 if closed[-10] ^ 1 != ord("=") else closed[-10] ^ 2
    for use in (cipher.decrypt, cipher.rotate):
        with pytest.raises(SecretError):
            use(bytes(closed))


def test_after_a_rotation_only_the_new_key_is_needed() -> None:
    old, new = _key(), _key()
    closed = TokenCipher(old).encrypt(SecretStr("token"))
    during = TokenCipher(new, (old,))
    assert during.decrypt(closed).get_secret_value() == "token"
    assert during.previous_key_ids == (TokenCipher(old).key_id,)
    assert TokenCipher(new).decrypt(during.rotate(closed)).get_secret_value() == "token"
    assert TokenCipher(new).decrypt(during.encrypt(SecretStr("more"))).get_secret_value() == "more"


def test_a_cipher_and_its_errors_show_no_key() -> None:
    key = _key()
    cipher = TokenCipher.from_settings(SecuritySettings(encryption_key=key))
    assert repr(cipher) == f"<TokenCipher key_id={key_id(key)}>"
    assert key.get_secret_value() not in repr(vars(cipher))
    assert key_id(key) not in key.get_secret_value()
    broken = SecretStr(key.get_secret_value()[:-4])
    with pytest.raises(SecretError, match="not 32 bytes") as caught:
        TokenCipher(broken)
    assert broken.get_secret_value() not in str(caught.value)


def test_a_missing_key_is_named_with_its_variable() -> None:
    with pytest.raises(SecretError, match="SAMPLEMIND_SECURITY_ENCRYPTION_KEY"):
        TokenCipher.from_settings(SecuritySettings())
