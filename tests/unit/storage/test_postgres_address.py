"""URLs of hubs on PostgreSQL."""

import pytest

from durably.errors import UsageError
from durably.storage.postgres.address import Address
from durably.storage.slots import SLOTS, partition_of


def test_the_hub_is_a_schema_and_secrets_are_not_shown() -> None:
    found = Address.of(
        "postgresql://ann:s3cret@a.test:5433,b.test/shop?hub=orders&sslmode=require&sslpassword=x"
    )
    assert found.schema == "orders"
    assert found.dsn == "postgresql://ann:s3cret@a.test:5433,b.test/shop?sslmode=require&sslpassword=x"
    assert found.url == "postgresql://ann@a.test:5433,b.test/shop?hub=orders&sslmode=require"


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("//a/db", ["//a/db"]),
        ("//u:p@a:1,b/db?sslmode=require", ["//u:p@a:1/db?sslmode=require", "//u:p@b/db?sslmode=require"]),
        ("//u@[::1]:5,[::2]/db", ["//u@[::1]:5/db", "//u@[::2]/db"]),
        ("///db", ["/db"]),
    ],
)
def test_several_servers_are_known_one_by_one(url: str, servers: list[str]) -> None:
    found = Address.of(f"postgresql:{url}").servers
    assert [one.removeprefix("postgresql:").replace("///", "/") for one in found] == servers


def test_a_hub_without_a_name_has_one() -> None:
    assert Address.of("postgres://localhost/shop").schema == "durably"


@pytest.mark.parametrize("name", ["", "Orders", "1st", 'a"b', "pg_catalog", "a-b", "x" * 49, "a;drop"])
def test_what_is_no_name_of_a_schema_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not usable"):
        Address.of(f"postgresql://localhost/shop?hub={name}")


def test_ids_are_spread_evenly_and_for_good() -> None:
    counts = [0] * 32
    for number in range(32_000):
        counts[partition_of(f"order-{number}", 32)] += 1
    assert min(counts) > 850
    assert max(counts) < 1_150
    assert [partition_of(one, 32) for one in ("a", "order-7", "é", "\ud800")] == [27, 13, 0, 14]
    assert SLOTS % 32 == 0
