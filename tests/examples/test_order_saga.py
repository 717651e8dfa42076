import asyncio
import inspect
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from durably import ActivityContext, Client
from durably.testing import DurableEnvironment
from examples.order_saga import app as saga
from examples.order_saga.inventory import Delivery, Inventory, inventory_of
from examples.order_saga.shop import Shop

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow_once
def test_the_demo_survives_a_kill_and_undoes_the_order_that_cannot_be_shipped(tmp_path: Path) -> None:
    demo = [sys.executable, "-m", "examples.order_saga", "--fast", "--json", "--folder", str(tmp_path)]
    done = subprocess.run(demo, cwd=ROOT, capture_output=True, text=True, timeout=45, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "make demo: ok"
    summary = json.loads(done.stdout)

    first, second, third = (summary["orders"][f"order-{number}"] for number in (1, 2, 3))
    assert [one["status"] for one in (first, second, third)] == ["Completed", "Completed", "Terminated"]
    assert first["result"] == {
        "order_id": "order-1",
        "state": "shipped",
        "tracking": "PARCEL-0001",
        "reason": None,
    }
    assert second["result"] == {
        "order_id": "order-2",
        "state": "rejected",
        "tracking": None,
        "reason": "address unknown: Atlantis",
    }
    assert (third["result"], third["outcome"]) == (None, "terminated, the card was stolen")

    # Runs minus one is at most the kills while it was open: one, in the shipping of order-1.
    counted = [
        (run["order_id"], run["step"], run["attempt"], run["runs"], run["killed"]) for run in summary["runs"]
    ]
    assert counted == [
        ("order-1", "accept_order", 1, 1, 0),
        ("order-1", "charge_payment", 1, 1, 0),
        ("order-1", "arrange_shipping", 1, 2, 1),
        ("order-2", "accept_order", 1, 1, 0),
        ("order-2", "charge_payment", 1, 1, 0),
        ("order-2", "charge_payment", 2, 1, 0),
        ("order-2", "arrange_shipping", 1, 1, 0),
        ("order-2", "refund_payment", 1, 1, 0),
        ("order-2", "reject_order", 1, 1, 0),
        ("order-3", "accept_order", 1, 1, 0),
        ("order-3", "charge_payment", 1, 1, 0),
        ("order-3", "refund_payment", 1, 1, 0),
        ("order-3", "reject_order", 1, 1, 0),
    ]
    assert [(step["name"], step["attempt"], step["state"]) for step in second["steps"]] == [
        ("accept_order", 1, "done"),
        ("reserve lamp", 1, "done"),
        ("reserve chair", 1, "done"),
        ("charge_payment", 1, "failed, tried again"),
        ("charge_payment", 2, "done"),
        ("arrange_shipping", 1, "failed"),
        ("refund_payment", 1, "done"),
        ("reject_order", 1, "done"),
    ]

    assert summary["parcels"] == {"order-1": 1}
    assert summary["payments"] == {"order-1": 86_50, "order-2": 0, "order-3": 0}
    assert summary["books"] == {"order-1": "shipped", "order-2": "rejected", "order-3": "rejected"}
    assert summary["stock"] == {
        "at_first": {"book": 10, "chair": 8, "lamp": 5},
        "before_order_2": {"book": 7, "chair": 8, "lamp": 4},
        "while_order_3_waited": {"book": 7, "chair": 0, "lamp": 4},
        "at_last": {"book": 7, "chair": 8, "lamp": 4},
    }
    assert all(summary["promises"].values())


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    shop = Shop(tmp_path / "shop.db")
    shop.create()
    monkeypatch.setenv("SHOP_HUB", f"sqlite:///{tmp_path / 'hub.db'}")
    monkeypatch.setattr(saga, "shop", shop)
    monkeypatch.setattr(saga, "CARRIER_ANSWER_S", 0)
    return shop


def order_of_lamps(quantity: int, order_id: str = "order-9", price: int = 49_00) -> saga.Order:
    return saga.Order(order_id, "Oslo", "test-card", [saga.OrderLine("lamp", quantity, price)])


async def lamps_come_in(client: Client, pieces: int) -> None:
    for _ in range(2):  # the same delivery, told twice
        await client.call_entity("@inventory@lamp", "receive", Delivery("d-1", pieces), timeout=10)


async def lamps(client: Client) -> Inventory:
    found = await client.read_entity("@inventory@lamp", Inventory)
    assert found is not None
    return found


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.005)


def test_a_second_run_of_a_step_finds_what_the_first_one_did(shop: Shop) -> None:
    order = order_of_lamps(2)

    def run_of(step: str) -> ActivityContext:
        return ActivityContext(
            instance_id=order.order_id, task_id=0, attempt=1, delivery=1, idempotency_key=step
        )

    for _ in range(2):
        saga.accept_order(order, run_of("accept"))
    payments = [saga.charge_payment(order, run_of("charge")) for _ in range(2)]
    parcels = [saga.arrange_shipping(order, run_of("ship")) for _ in range(2)]
    for _ in range(2):
        saga.refund_payment(payments[0], run_of("refund"))

    assert payments[0] == payments[1]
    assert parcels[0] == parcels[1]
    assert shop.query("SELECT state FROM orders") == [("shipped",)]
    assert shop.query("SELECT amount FROM payments") == [(98_00,), (-98_00,)]


def test_fifty_orders_at_once_get_twenty_lamps_and_no_more(shop: Shop) -> None:
    async def scenario() -> tuple[list[saga.OrderResult], Inventory]:
        async with saga.app.host(os.environ["SHOP_HUB"]) as host:
            await lamps_come_in(host.client, 20)
            orders = [order_of_lamps(1, f"sale-{n:02}") for n in range(50)]
            handles = await asyncio.gather(
                *(host.client.start(saga.process_order, one, instance_id=one.order_id) for one in orders)
            )
            results = [await handle.result(timeout=60) for handle in handles]

            async def all_has_left() -> bool:  # the last order has ended, and its signal is on the way
                return (await lamps(host.client)).pieces == 0

            await until(all_has_left)
            return results, await lamps(host.client)

    results, inventory = asyncio.run(scenario())

    assert Counter(result.state for result in results) == {"shipped": 20, "rejected": 30}
    assert {result.reason for result in results} == {None, "0 left, 1 wanted"}
    assert (inventory.pieces, inventory.held) == (0, {})
    assert len({result.tracking for result in results if result.tracking}) == 20
    assert shop.query("SELECT count(*), count(DISTINCT order_id), sum(amount) FROM payments") == [
        (20, 20, 20 * 49_00)
    ]
    books = dict(shop.query("SELECT order_id, state FROM orders"))
    assert books == {result.order_id: result.state for result in results}


def test_an_order_that_cannot_be_reserved_gives_back_what_it_got_of_the_rest(shop: Shop) -> None:
    lines = [
        saga.OrderLine("lamp", 2, 49_00),
        saga.OrderLine("book", 1, 12_50),
        saga.OrderLine("lamp", 1, 49_00),
    ]

    async def scenario() -> tuple[saga.OrderResult, Inventory]:
        async with saga.app.host(os.environ["SHOP_HUB"]) as host:
            await lamps_come_in(host.client, 3)
            order = saga.Order("order-9", "Oslo", "test-card", lines)
            handle = await host.client.start(saga.process_order, order)
            return await handle.result(timeout=10), await lamps(host.client)

    result, inventory = asyncio.run(scenario())

    assert result == saga.OrderResult("order-9", "rejected", reason="0 left, 1 wanted")
    assert (inventory.free, inventory.held) == (3, {})
    assert [step for (step,) in shop.query("SELECT step FROM runs")] == ["accept_order", "reject_order"]


@pytest.mark.parametrize("compensate", [True, False])
def test_an_order_that_is_terminated_while_it_waits_is_undone_unless_nobody_wants_that(
    shop: Shop, compensate: bool
) -> None:
    async def scenario() -> Inventory:
        async with saga.app.host(os.environ["SHOP_HUB"]) as host:
            await lamps_come_in(host.client, 3)
            order = order_of_lamps(3, price=saga.LARGE_ORDER)
            handle = await host.client.start(saga.process_order, order, instance_id="order-9")

            async def waits() -> bool:
                status = await handle.status()
                return status is not None and status.custom_status == "waits for approval"

            await until(waits)
            assert (await lamps(host.client)).held == {"order-9": 3}
            await handle.terminate(reason="the card was stolen", compensate=compensate)
            if compensate:
                await host.client.wait_for_completion("order-9:undo", timeout=10)
            return await lamps(host.client)

    inventory = asyncio.run(scenario())

    balance, state = (0, "rejected") if compensate else (3 * saga.LARGE_ORDER, "open")
    assert inventory.free == (3 if compensate else 0)
    assert shop.query("SELECT sum(amount) FROM payments") == [(balance,)]
    assert shop.query("SELECT state FROM orders") == [(state,)]


@pytest.mark.parametrize("step", ["charge_payment", "arrange_shipping"])
def test_an_order_that_is_terminated_in_the_middle_of_a_step_keeps_neither_money_nor_parcel(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The step is cut off when it has had its effect, or goes on behind the back of the undos: both are taken back."""
    reached, go_on = threading.Event(), threading.Event()

    @contextmanager
    def slow_transaction() -> Generator[sqlite3.Connection]:
        is_step = inspect.stack()[2].function == step
        if is_step and step == "charge_payment":  # the effect comes after the undos
            reached.set()
            go_on.wait(20)
        with fast_transaction() as db:
            yield db
        if is_step and step == "arrange_shipping":  # the effect is there, and nobody knows yet
            reached.set()
            go_on.wait(20)

    fast_transaction = shop.transaction
    monkeypatch.setattr(shop, "transaction", slow_transaction)

    async def scenario() -> Inventory:
        async with saga.app.host(os.environ["SHOP_HUB"]) as host:
            await lamps_come_in(host.client, 3)
            handle = await host.client.start(saga.process_order, order_of_lamps(3), instance_id="order-9")
            assert await asyncio.to_thread(reached.wait, 20)
            await handle.terminate(reason="the card was stolen")
            await host.client.wait_for_completion("order-9:undo", timeout=10)
            go_on.set()
            return await lamps(host.client)

    inventory = asyncio.run(scenario())

    while (ended := dict(shop.query("SELECT step, ended FROM runs")))[step] is None:
        time.sleep(0.005)  # its thread ends when it likes
    assert ended[step] == ("failed" if step == "charge_payment" else "done")
    assert (inventory.free, inventory.held) == (3, {})
    assert shop.query("SELECT coalesce(sum(amount), 0) FROM payments") == [(0,)]
    assert shop.query("SELECT count(*) FROM shipments") == [(0,)]
    assert shop.query("SELECT state FROM orders") == [("rejected",)]


@pytest.mark.parametrize("approved", [True, False])
def test_a_large_order_waits_two_days_for_its_approval(shop: Shop, approved: bool) -> None:
    async def scenario() -> tuple[saga.OrderResult, float, Inventory]:
        async with DurableEnvironment(saga.app) as env:

            async def reject(order: saga.Order) -> None:
                for sku in order.pieces:
                    await env.client.call_entity(inventory_of(sku), "release", order.order_id)

            env.mock_activity(saga.reject_order, runs=reject)
            await lamps_come_in(env.client, 3)
            began = env.now
            handle = await env.start(saga.process_order, order_of_lamps(3, price=saga.LARGE_ORDER))
            if approved:
                await handle.raise_event("Approved")
            result = await handle.result()
            await env.settle()
            return result, (env.now - began).total_seconds(), await lamps(env.client)

    result, took, inventory = asyncio.run(scenario())

    if approved:
        assert (result.state, took) == ("shipped", 0)
        assert (inventory.pieces, inventory.held) == (0, {})
    else:
        assert (result.state, result.reason) == ("rejected", "not approved within 2 days")
        assert took == timedelta(days=2).total_seconds()
        assert (inventory.pieces, inventory.held) == (3, {})
        assert shop.query("SELECT sum(amount) FROM payments") == [(0,)]
