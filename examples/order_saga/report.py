"""What the hub and the shop have recorded: as data, as tables, and as promises that were kept or not."""

from dataclasses import dataclass
from datetime import datetime

from rich.table import Table

from durably import Client, EntityId, HistoryEntry, OrchestrationFailedError, RuntimeStatus
from examples.order_saga.app import OrderResult, app
from examples.order_saga.inventory import Inventory, inventory_of
from examples.order_saga.shop import Shop
from examples.order_saga.worker import STOCK


@dataclass(frozen=True)
class Step:
    """One attempt of an activity, or an operation of an entity, as the hub saw it.

    Times are in seconds, `at` counts from the start of the order.
    """

    name: str
    attempt: int
    at: float
    took: float
    state: str


@dataclass(frozen=True)
class OrderRecord:
    """One order, as the hub keeps it."""

    order_id: str
    status: RuntimeStatus
    outcome: str
    result: OrderResult | None
    steps: list[Step]


async def read_hub(hub_url: str, order_ids: list[str]) -> dict[str, OrderRecord]:
    """All that is known of some orders: whoever opens the file finds it, long after the workers are gone."""
    records: dict[str, OrderRecord] = {}
    async with app.host(hub_url) as host:
        for order_id in order_ids:
            status = await host.client.wait_for_completion(order_id, timeout=5)
            history = await host.client.get_history(order_id)
            undoing = f"{order_id}:undo"  # the child of an order that was terminated
            if await host.client.get_status(undoing):
                history += await host.client.get_history(undoing)
            try:
                result = await host.client.handle(order_id, OrderResult).result()
                outcome = f"{result.state}, {result.tracking or result.reason}"
            except OrchestrationFailedError as error:
                result, outcome = None, f"{error.status.lower()}, {error.details.message}"
            records[order_id] = OrderRecord(
                order_id, status.runtime_status, outcome, result, steps_of(history)
            )
    return records


async def read_stock(hub_url: str) -> dict[str, int]:
    """What can be sold of each article: the last committed states of the entities."""
    stock: dict[str, int] = {}
    async with Client(hub_url) as client:
        for sku in STOCK:
            inventory = await client.read_entity(inventory_of(sku), Inventory)
            stock[sku] = inventory.free if inventory else 0
    return stock


def steps_of(history: list[HistoryEntry]) -> list[Step]:
    """The attempts in a history, in the order in which they ended."""
    outcomes = {
        "TaskCompleted": "done",
        "TaskFailed": "failed",
        "TaskAttemptFailed": "failed, tried again",
        "EntityOperationCompleted": "done",
        "EntityOperationFailed": "failed",
    }
    began: dict[int | None, tuple[str, int, datetime]] = {}  # by the number of the call: what, attempt, when
    steps: list[Step] = []
    for entry in history:
        if entry.event_type == "TaskScheduled":
            began[entry.task_id] = (entry.name or "", 1, entry.timestamp)
        elif entry.event_type == "EntityOperationCalled":
            sku = EntityId.parse(entry.details["entity"]).key
            began[entry.task_id] = (f"{entry.name} {sku}", 1, entry.timestamp)
        elif entry.event_type == "TaskAttemptStarted":
            began[entry.task_id] = (entry.name or "", entry.details["attempt"], entry.timestamp)
        elif entry.event_type in outcomes:
            name, attempt, start = began[entry.task_id]
            at = (start - history[0].timestamp).total_seconds()
            took = (entry.timestamp - start).total_seconds()
            steps.append(Step(name, attempt, at, took, outcomes[entry.event_type]))
    return steps


@dataclass(frozen=True)
class Runs:
    """How often an attempt of a step ran: `killed` of those runs never got to their end."""

    order_id: str
    step: str
    attempt: int
    runs: int
    killed: int


def runs_of(shop: Shop) -> list[Runs]:
    """The log of the shop, one line per attempt. The hub has no part in it: it is the witness."""
    rows = shop.query(
        "SELECT order_id, step, attempt, count(*), count(*) - count(ended) FROM runs GROUP BY 1, 2, 3 ORDER BY min(run_id)"
    )
    return [Runs(*row) for row in rows]


def runs_line(runs: list[Runs], order_id: str) -> str:
    """The runs of an order on one line."""
    mine = [run for run in runs if run.order_id == order_id]
    killed = [f" ({run.killed} killed)" if run.killed else "" for run in mine]
    return " · ".join(f"{run.step} {run.runs}{note}" for run, note in zip(mine, killed, strict=True))


def stock_line(stock: dict[str, int]) -> str:
    """The stock on one line."""
    return " · ".join(f"{sku} {pieces}" for sku, pieces in stock.items())


def table_of(record: OrderRecord, runs: list[Runs]) -> Table:
    """The timeline of an order. The column "runs" comes from the shop, all else from the hub.

    Entities have no runs: an operation is performed once.
    """
    log = {(run.step, run.attempt): run for run in runs if run.order_id == record.order_id}
    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim")
    for column, width in {"at": 6, "step": 17, "attempt": 7, "runs": 12, "state": 19, "took": 6}.items():
        is_number = column in ("at", "attempt", "took")
        table.add_column(column, min_width=width, justify="right" if is_number else "left")
    for step in record.steps:
        run = log.get((step.name, step.attempt))
        table.add_row(
            f"{step.at:.2f} s",
            step.name,
            str(step.attempt),
            shown(run),
            step.state if step.state == "done" else f"[yellow]{step.state}[/]",
            f"{step.took:.2f} s",
        )
    return table


def shown(run: Runs | None) -> str:
    """A cell of the column "runs"."""
    if run is None:
        return "-"
    return f"[red]{run.runs} ({run.killed} killed)[/]" if run.killed else str(run.runs)


def promises(
    shop: Shop,
    orders: dict[str, OrderRecord],
    runs: list[Runs],
    stock_before: dict[str, int],
    stock_at_last: dict[str, int],
) -> dict[str, bool]:
    """Every promise of the story, and whether it was kept. `stock_before` is that before order-2."""
    kept: dict[str, bool] = {}
    _, second, third = orders.values()

    ends = [record.outcome.partition(",")[0] for record in orders.values()]
    kept["order-1 was shipped, order-2 was rejected, order-3 was terminated"] = ends == [
        "shipped",
        "rejected",
        "terminated",
    ]

    ran_again = [(run.order_id, run.step, run.runs, run.killed) for run in runs if run.runs > 1]
    killed = [("order-1", "arrange_shipping", 2, 1)]
    kept["only the step that was killed ran again"] = ran_again == killed

    parcels = shop.query("SELECT order_id FROM shipments")
    kept["there is one parcel, although its booking ran twice"] = parcels == [("order-1",)]

    charges = [step.state for step in second.steps if step.name == "charge_payment"]
    kept["order-2: the payment was retried after the gateway was busy"] = charges == [
        "failed, tried again",
        "done",
    ]

    undone = [[step.name for step in record.steps[-2:]] for record in (second, third)]
    kept["order-2 and order-3: undone, the last step first"] = (
        undone == [["refund_payment", "reject_order"]] * 2
    )

    balances = shop.query(
        "SELECT count(*), sum(amount) FROM payments WHERE order_id > 'order-1' GROUP BY order_id"
    )
    kept["order-2 and order-3: the money is back"] = balances == [(2, 0), (2, 0)]
    kept["order-2 and order-3: the inventory is as before"] = stock_at_last == stock_before
    return kept
