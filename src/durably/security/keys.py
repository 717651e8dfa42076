"""Encryption keys as they are given: as they are, by a function, or by the environment. Never from the hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from durably.codec.keys import EncryptionKeys
from durably.errors import UsageError

KeySource: TypeAlias = EncryptionKeys | Callable[[], EncryptionKeys] | None

VARIABLE = "DURABLY_ENCRYPTION_KEYS"

_FILE = "file:"


def resolve_keys(source: KeySource) -> EncryptionKeys | None:
    """The keys of a source; a function is called, once for each host or client.

    Raises:
        UsageError: It is, or gives, something else.
    """
    keys = source() if callable(source) else source
    if keys is not None and not isinstance(keys, EncryptionKeys):  # pyright: ignore[reportUnnecessaryIsInstance] - of users
        raise UsageError(
            f"encryption_keys is a {type(keys).__name__}: expected EncryptionKeys, a function that returns them, or None"
        )
    return keys


def keys_from_environment(environment: Mapping[str, str] | None = None) -> EncryptionKeys | None:
    """The keys in ``DURABLY_ENCRYPTION_KEYS``, or in the file that it names as ``file:/path``; None when it is not set.

    Raises:
        UsageError: They cannot be read; the message does not repeat them.
    """
    text = (os.environ if environment is None else environment).get(VARIABLE)
    if not text:
        return None
    if not text.startswith(_FILE):
        return EncryptionKeys.parse(text)
    path = text.removeprefix(_FILE)
    try:
        return EncryptionKeys.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{VARIABLE} names the file '{path}', which cannot be read: {error}") from None
