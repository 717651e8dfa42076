"""Carts and stocks: a crowd that is killed in a checkout, reminders after a virtual day, states that migrate and expire."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from durably import (
    App,
    Client,
    EntityId,
    EntityOperationFailedError,
    OrchestrationContext,
    OrchestrationFailedError,
)
from durably.testing.pytest_plugin import DurableEnv
from examples.effects import create, query
from examples.shopping_cart import app as shop
from examples.shopping_cart import last_year
from examples.shopping_cart.__main__ import DELIVERIES
from tests.examples.commands import Example

ANN = EntityId("cart", "ann")
LAMPS = EntityId("stock", "lamp")
DAY = timedelta(days=1)


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    create(tmp_path / "shop.db", shop.SCHEMA)
    monkeypatch.setenv("CART_DB", str(tmp_path / "shop.db"))
    monkeypatch.setenv("CART_REMIND_S", str(DAY.total_seconds()))
    return tmp_path / "shop.db"


# --- as a command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow_once
def test_a_crowd_that_is_killed_in_the_middle_of_checkouts_buys_no_piece_twice(tmp_path: Path) -> None:
    example = Example("shopping_cart", tmp_path)
    customers = ("--customers", "40")

    def some_are_sold() -> bool:
        return len(example.query("shop.db", "SELECT DISTINCT customer FROM orders")) >= 5

    example.kill_when(some_are_sold, *customers, "--step", "0.1")
    out = example.run(*customers)  # the exit code says that the books agree

    assert "zoe: {'lamp': 2, 'book': 1} (left behind last year)" in out
    orders = example.query(
        "shop.db", "SELECT customer, count(DISTINCT idempotency_key) FROM orders GROUP BY 1"
    )
    assert {number for _, number in orders} == {1}
    left, carts = asyncio.run(stocks_and_carts(tmp_path))
    sold = dict(example.query("shop.db", "SELECT article, sum(pieces) FROM orders GROUP BY 1"))
    assert {article: left[article] + sold.get(article, 0) for article in DELIVERIES} == DELIVERIES
    assert min(left.values()) >= 0
    # Who has bought has an empty cart; who has not, has not, and was reminded.
    buyers = {customer for customer, _ in orders}
    full = {customer for customer, pieces in carts.items() if pieces and customer != "zoe"}
    assert full | buyers == {f"customer-{number:03}" for number in range(1, 41)}
    assert not full & buyers
    assert full <= {name for (name,) in example.query("shop.db", "SELECT customer FROM reminders")}


async def stocks_and_carts(folder: Path) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    async with Client(f"sqlite:///{folder / 'hub.db'}") as client:
        stocks = (await client.query_entities(name="stock")).entities
        carts = (await client.query_entities(name="cart")).entities
        assert [one.locked_by for one in (*stocks, *carts) if one.locked_by] == []
        return (
            {one.entity_id.key: one.state["pieces"] for one in stocks},
            {one.entity_id.key: one.state.get("pieces", True) for one in carts},
        )


# --- on virtual time --------------------------------------------------------------------------------------------------


async def test_who_leaves_a_cart_is_reminded_a_day_after_the_last_change_and_once(
    durable_env: DurableEnv, books: Path
) -> None:
    async with durable_env(shop.app, auto_skip=False) as env:
        await env.client.call_entity(ANN, "add", shop.Item("lamp"))
        await env.advance(DAY / 2)
        assert await env.client.call_entity(ANN, "add", shop.Item("lamp", 2)) == 3
        await (
            env.kill()
        )  # the reminder of the first change, which is stale, and that of the second outlive the host
        await env.advance(DAY - timedelta(seconds=1))
        assert query(books, "SELECT * FROM reminders") == []
        env.duplicate(shop.write_reminder)
        await env.advance(1)
        await env.advance(10 * DAY)
        assert query(books, "SELECT customer, text FROM reminders") == [
            ("ann", "Still in your cart: 3 x lamp")
        ]


async def test_a_cart_that_nobody_touches_for_30_days_is_gone(durable_env: DurableEnv, books: Path) -> None:
    async with durable_env(shop.app, auto_skip=False) as env:
        await env.client.call_entity(ANN, "add", shop.Item("lamp"))
        await env.advance(30 * DAY)  # the reminder on the first day was the last operation
        assert await env.client.read_entity(ANN, shop.Cart) == shop.Cart({"lamp": 1}, 1)
        await env.advance(DAY)
        assert await env.client.read_entity(ANN) is None


async def test_a_cart_of_last_year_is_read_and_sold_as_one_of_today(
    durable_env: DurableEnv, books: Path
) -> None:
    async with durable_env(last_year.app) as env:
        for article in ("lamp", "book", "lamp"):
            await env.client.call_entity(ANN, "add", article)
        await env.restart(shop.app)
        assert await env.client.read_entity(ANN) == {"articles": ["lamp", "book", "lamp"]}
        assert await env.client.read_entity(ANN, shop.Cart) == shop.Cart({"lamp": 2, "book": 1})
        for article in ("lamp", "book"):
            await env.client.call_entity(EntityId("stock", article), "deliver", 5)
        receipt = await env.run(shop.check_out, "ann")
        assert receipt == shop.Receipt("sold", shop.Basket("ann", {"lamp": 2, "book": 1}))
        assert await env.client.read_entity(ANN) == {"pieces": {}, "changes": 1}
    assert query(books, "SELECT article, pieces FROM orders ORDER BY 1") == [("book", 1), ("lamp", 2)]


async def test_a_quantity_out_of_range_changes_nothing(durable_env: DurableEnv, books: Path) -> None:
    async with durable_env(shop.app, auto_skip=False) as env:
        await env.client.call_entity(ANN, "add", shop.Item("lamp", 60))
        with pytest.raises(EntityOperationFailedError, match="120 x lamp: expected 1 to 100"):
            await env.client.call_entity(ANN, "add", shop.Item("lamp", 60))
        assert await env.client.read_entity(ANN, shop.Cart) == shop.Cart({"lamp": 60}, 1)


@pytest.mark.parametrize("commit", range(1, 10))
async def test_a_death_after_any_commit_of_a_checkout_sells_once(
    durable_env: DurableEnv, books: Path, commit: int
) -> None:
    async with durable_env(shop.app, auto_skip=False) as env:
        await env.client.call_entity(LAMPS, "deliver", 10)
        await env.client.call_entity(ANN, "add", shop.Item("lamp", 4))
        env.kill_after(commit)
        env.kill_after(shop.record_order)
        assert (await env.run(shop.check_out, "ann")).state == "sold"
        assert env.deaths == 2
        assert await env.client.read_entity(LAMPS, shop.Stock) == shop.Stock(6)
    assert query(books, "SELECT customer, pieces FROM orders") == [("ann", 4)]


async def test_a_checkout_whose_order_cannot_be_written_takes_nothing_and_lets_go_of_all(
    durable_env: DurableEnv, books: Path
) -> None:
    async with durable_env(shop.app, auto_skip=True) as env:
        env.mock_activity(shop.record_order, raises=OSError("the disk is full"))
        await env.client.call_entity(LAMPS, "deliver", 10)
        await env.client.call_entity(ANN, "add", shop.Item("lamp", 4))
        with pytest.raises(OrchestrationFailedError, match="the disk is full"):
            await env.run(shop.check_out, "ann")
        assert await env.client.call_entity(LAMPS, "take", 1, timeout=1) is None
        assert await env.client.read_entity(LAMPS, shop.Stock) == shop.Stock(9)
        assert await env.client.call_entity(ANN, "content", timeout=1) == {"lamp": 4}


async def test_a_cart_that_changes_before_it_is_locked_is_looked_at_again(
    durable_env: DurableEnv, books: Path
) -> None:
    app = App()
    app.include(shop.app)

    @app.orchestrator
    async def partner(ctx: OrchestrationContext) -> None:
        async with ctx.lock_entities(ANN):
            await ctx.wait_for_external_event("go")
            await ctx.call_entity(ANN, "add", shop.Item("book"))

    async with durable_env(app, auto_skip=False) as env:
        for article in ("lamp", "book"):
            await env.client.call_entity(EntityId("stock", article), "deliver", 5)
        await env.client.call_entity(ANN, "add", shop.Item("lamp"))
        other = await env.start(partner)
        await env.settle()
        checkout = await env.start(shop.check_out, "ann")  # has seen one lamp, and waits for the locks
        await env.settle()
        await other.raise_event("go")
        receipt = await checkout.result()
        assert receipt.basket.pieces == {"lamp": 1, "book": 1}
    assert len(query(books, "SELECT DISTINCT idempotency_key FROM orders")) == 1
