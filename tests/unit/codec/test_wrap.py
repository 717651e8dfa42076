"""Compressed and encrypted bytes: there and back, and nothing else."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.codec import wrap
from durably.codec.keys import EncryptionKeys
from durably.codec.wrap import Box, WrapError, deflate, inflate, is_wrapped, key_id_of

HUB = b"h" * 16
KEYS = EncryptionKeys({"k1": bytes(range(32))})

plains = st.binary() | st.binary(min_size=1, max_size=20).map(lambda part: b"\xc1" + part * 50)


def box(keys: EncryptionKeys = KEYS, hub: bytes = HUB) -> Box:
    return Box(keys, hub, os.urandom)


@given(plain=plains, above=st.integers(0, 64))
def test_what_is_compressed_comes_back(plain: bytes, above: int) -> None:
    assert inflate(deflate(plain, above)) == plain


@given(plain=plains, about=st.binary())
def test_what_is_encrypted_comes_back(plain: bytes, about: bytes) -> None:
    sealed = box().seal(plain, about)
    assert box().open(sealed, about) == plain
    assert key_id_of(sealed) == "k1"


def test_what_is_small_or_does_not_shrink_stays_as_it_is() -> None:
    small, noise = b'{"a":1}', bytes(range(193)) * 1
    assert deflate(small, 100) is small
    assert deflate(noise, 10) is noise
    assert deflate(b"a" * 1_000, 0) == b"a" * 1_000
    assert len(deflate(b"a" * 10_000, 4_096)) < 100


@given(data=st.data())
def test_bytes_that_were_changed_never_open(data: st.DataObject) -> None:
    sealed = box().seal(b"plain text", b"about")
    place = data.draw(st.integers(0, len(sealed) * 8 - 1))
    changed = bytearray(sealed)
    changed[place // 8] ^= 1 << (place % 8)
    with pytest.raises(WrapError):
        box().open(bytes(changed), b"about")
    with pytest.raises(WrapError):
        box().open(sealed[: data.draw(st.integers(0, len(sealed) - 1))], b"about")


def test_what_belongs_elsewhere_does_not_open() -> None:
    sealed = box().seal(b"plain", b"row 1")
    with pytest.raises(WrapError, match="does not decrypt with key 'k1'"):
        box().open(sealed, b"row 2")
    with pytest.raises(WrapError, match="does not decrypt with key 'k1'"):
        box(hub=b"i" * 16).open(sealed, b"row 1")


def test_a_key_that_is_not_here_is_named() -> None:
    sealed = box().seal(b"plain", b"")
    with pytest.raises(WrapError, match="key 'k1', which is not here"):
        box(EncryptionKeys({"k2": bytes(32)})).open(sealed, b"")
    with pytest.raises(WrapError, match="key 'k1', which was destroyed"):
        box(EncryptionKeys({"k2": bytes(32), "k1": None})).open(sealed, b"")
    with pytest.raises(WrapError, match="encrypted with key 'k1'"):
        inflate(sealed)


def test_keys_are_rotated() -> None:
    old = box().seal(b"old", b"")
    both = box(EncryptionKeys({"k2": bytes(32), "k1": bytes(range(32))}))
    assert both.open(old, b"") == b"old"
    assert key_id_of(both.seal(b"new", b"")) == "k2"


def test_a_box_takes_another_derived_key_before_nonces_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrap, "_USES_MAX", 3)
    monkeypatch.setattr(wrap, "_CIPHERS_MAX", 2)
    sealer = box()
    sealed = [sealer.seal(b"plain", b"") for _ in range(12)]
    assert len({one[5:13] for one in sealed}) > 3, "salts"
    assert len({one[13:25] for one in sealed}) == 12, "nonces"
    assert {box().open(one, b"") for one in sealed} == {b"plain"}


@given(st.binary())
def test_nothing_that_is_written_in_the_place_of_compressed_bytes_does_harm(noise: bytes) -> None:
    for form in (b"\xc1\x00", b"\xc1\x01", b"\xc1\x02", b"\xc1"):
        try:
            inflate(form + noise)
        except WrapError:
            continue


def test_a_bomb_does_not_grow_beyond_what_it_claims() -> None:
    bomb = bytearray(deflate(bytes(50_000_000), 1))
    bomb[2:6] = (10).to_bytes(4, "big")
    with pytest.raises(WrapError, match="damaged"):
        inflate(bytes(bomb))
    assert is_wrapped(bytes(bomb))
