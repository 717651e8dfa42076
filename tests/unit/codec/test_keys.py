"""Encryption keys: what they are read from, and what is refused without repeating it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from durably import EncryptionKeys, EngineOptions, UsageError
from durably.security.keys import keys_from_environment, resolve_keys

ONE, TWO = bytes(range(32)), bytes(range(1, 33))


def text_of(key: bytes) -> str:
    return base64.b64encode(key).decode()


def test_the_first_key_encrypts_and_the_others_are_known() -> None:
    keys = EncryptionKeys.parse(
        f"# newest first\n2026-11={text_of(TWO)}\n2025-01 = {text_of(ONE)},old=destroyed, plain"
    )
    assert keys.active == "2026-11"
    assert [keys.key(key_id) for key_id in ("2026-11", "2025-01", "old", "none")] == [TWO, ONE, None, None]
    assert [keys.knows(key_id) for key_id in ("old", "none")] == [True, False]
    assert keys.plain


def test_keys_in_url_safe_base64_are_read_too() -> None:
    key = b"\xfb\xff" * 16
    assert EncryptionKeys.parse(f"k={base64.urlsafe_b64encode(key).decode()}").key("k") == key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "there is none"),
        ("plain", "there is none"),
        ("k=destroyed", "there is none"),
        ("secret-without-an-id", "no '='"),
        ("k=secret!", "'k' is not Base64"),
        (f"k={text_of(b'secret')}", "'k' has 6 bytes"),
        (f"k={text_of(ONE)},k={text_of(TWO)}", "'k' is there twice"),
        (f"k/1={text_of(ONE)}", "key id 'k/1'"),
    ],
)
def test_text_that_holds_no_keys_is_refused_and_not_repeated(text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        EncryptionKeys.parse(text)
    assert "secret" not in str(caught.value)


def test_a_key_does_not_show() -> None:
    keys = EncryptionKeys({"k1": ONE})
    shown = f"{keys!r} {EngineOptions(encryption_keys=keys)!r}"
    assert "EncryptionKeys(k1)" in shown
    assert text_of(ONE) not in shown
    assert repr(ONE) not in shown


def test_a_proof_tells_keys_and_hubs_apart() -> None:
    keys = EncryptionKeys({"k1": ONE, "k2": TWO})
    proofs = {keys.proof(key_id, hub) for key_id in ("k1", "k2") for hub in (b"a" * 16, b"b" * 16)}
    assert len(proofs) == 4


def test_the_environment_names_keys_or_a_file_of_them(tmp_path: Path) -> None:
    line = f"k1={text_of(ONE)}\n"
    (tmp_path / "keys").write_text(line)
    for text in (line, f"file:{tmp_path / 'keys'}"):
        keys = keys_from_environment({"DURABLY_ENCRYPTION_KEYS": text})
        assert keys is not None
        assert keys.key("k1") == ONE
        options = EngineOptions.from_environment({"DURABLY_ENCRYPTION_KEYS": text})
        assert isinstance(options.encryption_keys, EncryptionKeys)
    assert keys_from_environment({}) is None
    assert EngineOptions.from_environment({}).encryption_keys is None
    with pytest.raises(UsageError, match="which cannot be read"):
        keys_from_environment({"DURABLY_ENCRYPTION_KEYS": f"file:{tmp_path / 'none'}"})


def test_a_function_gives_keys() -> None:
    keys = EncryptionKeys({"k1": ONE})
    assert resolve_keys(lambda: keys) is keys
    wrong: Any = {"k1": ONE}
    with pytest.raises(UsageError, match="expected EncryptionKeys"):
        resolve_keys(wrong)
