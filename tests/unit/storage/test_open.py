from __future__ import annotations

import sys
from pathlib import Path

import pytest

from durably.codec.keys import EncryptionKeys
from durably.errors import UsageError
from durably.storage.memory import MemoryStore
from durably.storage.open import open_store, sibling_hub, store_of
from durably.storage.postgres.store import PostgresStore
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
        ("mysql://ann:s3cret@host/db", "'mysql://***' has the unknown scheme 'mysql'"),
        ("ann:s3cret@host/db", "has no scheme; expected one of memory://"),
        ("postgresql://ann:s3cret@host", "names no database"),
        ("postgresql://ann:s3cret@host/", "names no database"),
        ("postgres://ann:s3cret@host/a/b", "names no database, or more than one"),
        ("postgresql://ann:s3cret@host:x1/db", "has the port 'x1', expected 1 to 65535"),
        ("postgresql://ann:s3cret@one,two:70000/db", "has the port '70000'"),
        ("postgresql://ann:s3cret@one,,two/db", "has the host ''"),
        ("postgresql://ann:s3cret@fe80::1/db", "has the host 'fe80::1', expected a name or an address"),
        ("postgresql://ann:s3cret@[fe80::1/db", "has a host in brackets that is no address"),
        ("postgresql://ann:s3cret/x@host/db", "has an '@' behind the host: in a password / is written %2F"),
        ("postgresql://ann:s3cret#x@host/db", "has an '@' behind the host"),
        ("postgresql://ann:s3cret?x@host/db", "has an '@' behind the host"),
        ("postgresql://ann:s3cret@host/db#part", "has a part behind '#'"),
        (
            "postgresql://ann:s3cret@host/db?name=orders",
            "unknown option 'name', expected one of hub, sslmode",
        ),
        ("postgresql://ann:s3cret@host/db?hub=a&hub=b", "has the option 'hub' twice"),
        ("postgresql://ann:s3cret@host/db?hub=Orders", "Hub name 'Orders' in a hub URL is not usable"),
        (
            "postgresql://ann:s3cret@host/db?sslmode=on",
            "has sslmode='on', expected one of disable, allow, prefer",
        ),
        ("postgresql://ann:s3cret@host/db?sslrootcert=/no/such.pem", "there is no such file"),
        ("postgresql://ann:s3cret@host/db?target_session_attrs=any", "expected one of primary, read-write"),
    ],
)
def test_a_url_that_names_no_store_says_what_to_write(url: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert hint in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "PostgreSQL"])
def test_a_schema_of_a_database_is_a_hub(scheme: str) -> None:
    store = open_store(f"{scheme}://ann:s3cret@one:5433,two/shop?hub=orders&target_session_attrs=primary")
    assert isinstance(store.inner, PostgresStore)
    assert store.url == "postgresql://ann@one:5433,two/shop?hub=orders&target_session_attrs=primary"


def test_without_its_driver_a_hub_on_postgresql_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("durably.storage.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(UsageError, match=r"pip install 'durably\[postgres\]'"):
        open_store("postgresql://host/shop")


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


@pytest.mark.parametrize(
    ("url", "sibling"),
    [
        ("sqlite:///hub.db", "sqlite:///orders-2.db"),
        ("sqlite:////var/lib/shop/hub", "sqlite:////var/lib/shop/orders-2"),
        ("memory://", "memory://"),
    ],
)
def test_another_hub_lies_beside_a_hub(url: str, sibling: str) -> None:
    assert sibling_hub(url, "orders-2") == sibling


def test_another_hub_of_a_database_is_a_schema() -> None:
    url = "postgresql://ann:s3%40cret@one,two:5433/shop?hub=mails&sslmode=require"
    assert (
        sibling_hub(url, "orders")
        == "postgresql://ann:s3%40cret@one,two:5433/shop?sslmode=require&hub=orders"
    )
    assert sibling_hub("postgresql://one/shop", "orders") == "postgresql://one/shop?hub=orders"
    with pytest.raises(UsageError, match="it becomes a schema"):
        sibling_hub(url, "orders-2")


@pytest.mark.parametrize("name", ["", "Orders", "../hub", "a/b", "a.b", "1st", "-a", "x" * 46, "hüb", "a\n"])
def test_a_name_of_a_hub_is_no_path(name: str) -> None:
    with pytest.raises(UsageError, match="is not usable"):
        sibling_hub("sqlite:///hub.db", name)
