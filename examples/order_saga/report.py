"""What the hub and the shop have recorded: as data, as tables, and as promises that were kept or not."""

from dataclasses import dataclass
from datetime import datetime

from rich.table import Table

from durably import HistoryEntry, RuntimeStatus
from examples.order_saga.app import OrderResult, app
from examples.order_saga.shop import Shop


@dataclass(frozen=True)
class Step:
    """One attempt of an activity, as the hub saw it. Times are in seconds, `at` counts from the start of the order."""

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
    result: OrderResult
    steps: list[Step]


async def read_hub(hub_url: str, order_ids: list[str]) -> dict[str, OrderRecord]:
    """All that is known of some orders: whoever opens the file finds it, long after the workers are gone."""
    records: dict[str, OrderRecord] = {}
    async with app.host(hub_url) as host:
        for order_id in order_ids:
            status = await host.client.wait_for_completion(order_id, timeout=5)
            result = await host.client.handle(order_id, OrderResult).result()
            history = await host.client.get_history(order_id)
            records[order_id] = OrderRecord(order_id, status.runtime_status, result, steps_of(history))
    return records


def steps_of(history: list[HistoryEntry]) -> list[Step]:
    """The attempts in a history, in the order in which they ended."""
    outcomes = {"TaskCompleted": "done", "TaskFailed": "failed", "TaskAttemptFailed": "failed, tried again"}
    began: dict[int | None, tuple[int, datetime]] = {}  # by the number of the call: which attempt, and when
    steps: list[Step] = []
    for entry in history:
        if entry.event_type == "TaskScheduled":
            began[entry.task_id] = (1, entry.timestamp)
        elif entry.event_type == "TaskAttemptStarted":
            began[entry.task_id] = (entry.details["attempt"], entry.timestamp)
        elif entry.event_type in outcomes:
            attempt, start = began[entry.task_id]
            at = (start - history[0].timestamp).total_seconds()
            took = (entry.timestamp - start).total_seconds()
            steps.append(Step(entry.name or "", attempt, at, took, outcomes[entry.event_type]))
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
    """The timeline of an order. The column "runs" comes from the shop, all else from the history in the hub."""
    log = {(run.step, run.attempt): run for run in runs if run.order_id == record.order_id}
    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim")
    for column, width in {"at": 6, "step": 17, "attempt": 7, "runs": 12, "state": 19, "took": 6}.items():
        is_number = column in ("at", "attempt", "took")
        table.add_column(column, min_width=width, justify="right" if is_number else "left")
    for step in record.steps:
        run = log[step.name, step.attempt]
        table.add_row(
            f"{step.at:.2f} s",
            step.name,
            str(step.attempt),
            f"[red]{run.runs} ({run.killed} killed)[/]" if run.killed else str(run.runs),
            step.state if step.state == "done" else f"[yellow]{step.state}[/]",
            f"{step.took:.2f} s",
        )
    return table


def promises(
    shop: Shop, orders: dict[str, OrderRecord], runs: list[Runs], stock_before: dict[str, int]
) -> dict[str, bool]:
    """Every promise of the story, and whether it was kept. `stock_before` is that before order-2."""
    kept: dict[str, bool] = {}
    first, second = orders["order-1"], orders["order-2"]

    states = (first.result.state, second.result.state)
    kept["order-1 was shipped, order-2 was rejected"] = states == ("shipped", "rejected")

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

    undone = [step.name for step in second.steps[-2:]]
    kept["order-2: its steps were undone, the last one first"] = undone == ["refund_payment", "restock"]

    amounts = [amount for (amount,) in shop.query("SELECT amount FROM payments WHERE order_id = 'order-2'")]
    kept["order-2: the money is back"] = len(amounts) == 2 and sum(amounts) == 0
    kept["order-2: the stock is as before"] = shop.stock() == stock_before
    return kept
