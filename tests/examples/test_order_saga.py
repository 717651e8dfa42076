import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from durably import ActivityContext
from examples.order_saga import app as saga
from examples.order_saga.shop import Shop

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow_once
def test_the_demo_survives_a_kill_and_undoes_the_order_that_cannot_be_shipped(tmp_path: Path) -> None:
    demo = [sys.executable, "-m", "examples.order_saga", "--fast", "--json", "--folder", str(tmp_path)]
    done = subprocess.run(demo, cwd=ROOT, capture_output=True, text=True, timeout=45, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "make demo: ok"
    summary = json.loads(done.stdout)

    first, second = summary["orders"]["order-1"], summary["orders"]["order-2"]
    assert (first["status"], second["status"]) == ("Completed", "Completed")
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

    # Runs minus one is at most the kills while it was open: one, in the shipping of order-1.
    counted = [
        (run["order_id"], run["step"], run["attempt"], run["runs"], run["killed"]) for run in summary["runs"]
    ]
    assert counted == [
        ("order-1", "reserve_inventory", 1, 1, 0),
        ("order-1", "charge_payment", 1, 1, 0),
        ("order-1", "arrange_shipping", 1, 2, 1),
        ("order-2", "reserve_inventory", 1, 1, 0),
        ("order-2", "charge_payment", 1, 1, 0),
        ("order-2", "charge_payment", 2, 1, 0),
        ("order-2", "arrange_shipping", 1, 1, 0),
        ("order-2", "refund_payment", 1, 1, 0),
        ("order-2", "restock", 1, 1, 0),
    ]
    assert [(step["name"], step["attempt"], step["state"]) for step in second["steps"]] == [
        ("reserve_inventory", 1, "done"),
        ("charge_payment", 1, "failed, tried again"),
        ("charge_payment", 2, "done"),
        ("arrange_shipping", 1, "failed"),
        ("refund_payment", 1, "done"),
        ("restock", 1, "done"),
    ]

    assert summary["parcels"] == {"order-1": 1}
    assert summary["payments"] == {"order-1": 86_50, "order-2": 0}
    assert summary["stock"] == {
        "at_first": {"book": 10, "chair": 8, "lamp": 5},
        "before_order_2": {"book": 7, "chair": 8, "lamp": 4},
        "at_last": {"book": 7, "chair": 8, "lamp": 4},
    }
    assert all(summary["promises"].values())


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    shop = Shop(tmp_path / "shop.db")
    shop.create({"lamp": 3})
    monkeypatch.setattr(saga, "shop", shop)
    monkeypatch.setattr(saga, "CARRIER_ANSWER_S", 0)
    return shop


def order_of_lamps(quantity: int) -> saga.Order:
    return saga.Order("order-9", "Oslo", "test-card", [saga.OrderLine("lamp", quantity, 49_00)])


def test_a_second_run_of_a_step_finds_what_the_first_one_did(shop: Shop) -> None:
    order = order_of_lamps(2)

    def run_of(step: str) -> ActivityContext:
        return ActivityContext(
            instance_id=order.order_id, task_id=0, attempt=1, delivery=1, idempotency_key=step
        )

    payments = [saga.charge_payment(order, run_of("charge")) for _ in range(2)]
    parcels = [saga.arrange_shipping(order, run_of("ship")) for _ in range(2)]
    for _ in range(2):
        saga.reserve_inventory(order, run_of("reserve"))
        saga.refund_payment(payments[0], run_of("refund"))

    assert payments[0] == payments[1]
    assert parcels[0] == parcels[1]
    assert shop.stock() == {"lamp": 1}
    assert shop.query("SELECT amount FROM payments") == [(98_00,), (-98_00,)]
    saga.restock(order, run_of("restock"))
    saga.restock(order, run_of("restock"))
    assert shop.stock() == {"lamp": 3}


def test_an_order_that_fails_at_its_first_step_has_nothing_to_undo(shop: Shop) -> None:
    async def scenario() -> saga.OrderResult:
        async with saga.app.host("memory://") as host:
            handle = await host.client.start(saga.process_order, order_of_lamps(4))
            return await handle.result(timeout=10)

    result = asyncio.run(scenario())

    assert result == saga.OrderResult("order-9", "rejected", reason="not enough of lamp")
    assert [step for (step,) in shop.query("SELECT step FROM runs")] == ["reserve_inventory"]
    assert shop.stock() == {"lamp": 3}
