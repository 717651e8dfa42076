# ruff: noqa: S608 - statements are put together from constants of this file; values are bound
"""Which encryption keys a hub file was written with, and how much there is of each. Needs no key."""

from __future__ import annotations

import base64
from collections import Counter

from durably.codec.wrap import is_sealed, key_id_of
from durably.storage.checkup import Finding
from durably.storage.sqlite.calls import Execute
from durably.storage.wrapping import SEALED_TEXT

_BYTES = (
    ("history", "data"),
    ("inbox", "body"),
    ("parked_messages", "body"),
    ("tombstones", "verdict"),
    ("instances", "input"),
    ("instances", "output"),
    ("instances", "custom_status"),
    ("instances", "failure"),
    ("payloads", "data"),
    ("entities", "state"),
    ("entities", "rest"),
)
_TEXTS = (("instances", "blocked"), ("instances", "parked"), ("parked_messages", "cause"))

# The head of what is encrypted, see `durably.codec.wrap`: two bytes, the length of the key id, the key id.
_HEAD_BYTES = 3 + 64


def look_at_keys(execute: Execute, *, deep: bool) -> Finding:
    """Whether payloads are encrypted, and with what; `deep`: count what each key has encrypted."""
    known = [key_id for (key_id,) in execute("SELECT key_id FROM encryption_keys ORDER BY key_id").fetchall()]
    if not known:
        return Finding("OK", "keys", "payloads are not encrypted")
    named = ", ".join(f"'{key_id}'" for key_id in known)
    if not deep:
        return Finding("OK", "keys", f"payloads are encrypted: {named}")
    used, plain = _count(execute)
    counts = ", ".join(f"'{key_id}' {used[key_id]:,}" for key_id in known)
    if plain:
        text = f"values encrypted: {counts}; {plain:,} not encrypted"
        return Finding("WARN", "keys", text, "Values from before the hub had keys: purge their instances")
    return Finding("OK", "keys", f"values encrypted: {counts}")


def _count(execute: Execute) -> tuple[Counter[str], int]:
    used: Counter[str] = Counter()
    plain = 0
    for table, column in _BYTES:
        heads = f"SELECT substr({column}, 1, {_HEAD_BYTES}), count(*) FROM {table}"
        key = f"hex(substr({column}, 1, 3 + unicode(CAST(substr({column}, 3, 1) AS TEXT))))"
        for head, count in execute(
            f"{heads} WHERE typeof({column}) = 'blob' AND length({column}) GROUP BY CASE WHEN substr({column}, 1, 2) = x'C102' THEN {key} END"
        ):
            if is_sealed(head):
                used[key_id_of(head)] += count
            else:
                plain += count
    for table, column in _TEXTS:
        for (text,) in execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL"):
            head = _head_of(text)
            if is_sealed(head):
                used[key_id_of(head)] += 1
            else:
                plain += 1
    return used, plain


def _head_of(text: str) -> bytes:
    try:
        return base64.b64decode(text.removeprefix(SEALED_TEXT)) if text.startswith(SEALED_TEXT) else b""
    except ValueError:  # damaged
        return b""
