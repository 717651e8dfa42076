from __future__ import annotations

from pathlib import Path

import pytest

from durably.codec.keys import EncryptionKeys
from durably.errors import UsageError
from durably.storage.memory import MemoryStore
from durably.storage.open import open_store, store_of
from durably.storage.sqlite.store import SqliteStore
from durably.storage.wrapped import WrappedStore


@pytest.mark.parametrize("url", ["memory://", "MEMORY://"])
def test_a_hub_in_memory_has_no_name(url: str) -> None:
    assert isinstance(open_store(url).inner, MemoryStore)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///hub.db", "{here}/hub.db"),
        ("sqlite:///some folder/hub.db", "{here}/some folder/hub.db"),
        ("sqlite:////var/lib/app/hub.db", "/var/lib/app/hub.db"),
        ("SQLite:///100%.db", "{here}/100%.db"),
    ],
)
def test_three_slashes_are_relative_and_four_are_absolute(
    url: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store(url)
    assert isinstance(store.inner, SqliteStore)
    assert str(store.inner._path) == path.format(here=tmp_path)
    assert store.url.lower() == url.lower()


def test_a_relative_path_is_that_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///hub.db")
    monkeypatch.chdir("/")
    assert isinstance(store.inner, SqliteStore)
    assert store.inner._path == tmp_path / "hub.db"


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("hub.db", "has no scheme"),
        ("", "has no scheme"),
        ("mysql://host/db", "'mysql'; expected one of memory://, sqlite:///"),
        ("memory://name", "memory://"),
        ("sqlite://", "sqlite:///hub.db"),
        ("sqlite:///", "sqlite:///hub.db"),
        ("sqlite://hub.db", "three slashes"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///hub.db?mode=ro", "takes none"),
        ("postgresql://host/db", "not available yet"),
        ("postgres://host/db", "not available yet"),
    ],
)
def test_a_url_that_names_no_store_says_what_to_write(url: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert hint in str(caught.value)


def test_keys_are_never_ignored() -> None:
    keys, others = (EncryptionKeys({"k1": bytes([number]) * 32}) for number in (1, 2))
    given = MemoryStore()
    assert store_of(given, None) is given
    wrapped = store_of(given, keys)
    assert isinstance(wrapped, WrappedStore)
    assert wrapped.encrypts
    assert store_of(wrapped, others) is wrapped, "it has keys of its own"
    with pytest.raises(UsageError, match="expected them where the store was made"):
        store_of(WrappedStore(given), keys)
