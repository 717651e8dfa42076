"""The story of three orders and one `kill -9`, told and checked. `make demo` runs it.

Everything happens in worker processes (`worker.py`); this program starts them, kills one, and looks at what is left.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.text import Text

from durably import Client, DurablyError
from examples.order_saga.report import (
    promises,
    read_hub,
    read_stock,
    runs_line,
    runs_of,
    stock_line,
    table_of,
)
from examples.order_saga.shop import Shop
from examples.order_saga.worker import STOCK

PATIENCE_S = 30.0


class StoryError(Exception):
    """The story did not go as told."""


@dataclass(frozen=True)
class Stage:
    """Where the story happens, and where it is told."""

    folder: Path
    step_s: float
    console: Console

    @property
    def shop_db(self) -> Path:
        """The shop's own database."""
        return self.folder / "shop.db"

    @property
    def hub_url(self) -> str:
        """The hub: one file with everything durably knows."""
        return f"sqlite:///{self.folder / 'hub.db'}"

    def headline(self, text: str) -> None:
        """Begin a chapter."""
        self.console.print(f"\n[bold cyan]{text}[/]")

    def say(self, text: str, speaker: str = "") -> None:
        """Tell one line, as it is: no markup, no wrapping."""
        self.console.print(Text.assemble("  ", (speaker, "dim"), text), soft_wrap=True)


class Worker:
    """A worker process; a thread relays what it prints. Leaving the `with` block never leaves a process behind."""

    def __init__(self, stage: Stage, *order_ids: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - starts our own program
            [sys.executable, "-m", "examples.order_saga.worker", stage.hub_url, *order_ids],
            env={**os.environ, "SHOP_DB": str(stage.shop_db), "SHOP_STEP_S": str(stage.step_s)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.pid = self._process.pid
        self._stage = stage
        self._relay = threading.Thread(target=self._relay_lines)
        self._relay.start()

    def _relay_lines(self) -> None:
        for line in self._process.stdout or ():
            self._stage.say(line.rstrip(), speaker=f"worker {self.pid} │ ")

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """`kill -9`: no handler runs, nothing is flushed, nobody is told."""
        self._process.send_signal(signal.SIGKILL)
        if self._process.wait() != -signal.SIGKILL:
            raise StoryError(f"worker {self.pid} ended before it could be killed")

    def wait(self) -> None:
        """Return when it has seen its orders through."""
        try:
            code = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise StoryError(f"worker {self.pid} was not done after {PATIENCE_S:.0f} s") from None
        self._relay.join()
        if code != 0:
            raise StoryError(f"worker {self.pid} ended with exit code {code}, see what it printed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # harmless when it has ended
        self._process.wait()
        self._relay.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


def tell(stage: Stage) -> dict[str, Any]:
    """Tell the story, and return what there is to know of it."""
    shop = Shop(stage.shop_db)
    shop.create()

    stage.headline("1. A worker takes order-1: a lamp and three books, to Bergen")
    with Worker(stage, "order-1") as worker:
        wait_until_booked(shop, "order-1", worker)
        stage.headline("2. kill -9 at the worst moment: the parcel is booked, nobody knows yet")
        worker.kill()
    stage.say(f"runs so far: {runs_line(runs_of(shop), 'order-1')}")

    stage.headline("3. A new worker opens the hub and goes on in the middle")
    with Worker(stage, "order-1") as worker:
        worker.wait()
    stage.say(f"runs in all: {runs_line(runs_of(shop), 'order-1')}")

    stage.headline("4. order-2: the payment gateway is busy, and nobody can deliver to Atlantis")
    stock_before = asyncio.run(read_stock(stage.hub_url))
    stage.say(f"inventory before: {stock_line(stock_before)}")
    with Worker(stage, "order-2") as worker:
        worker.wait()
    stage.say(f"inventory after:  {stock_line(asyncio.run(read_stock(stage.hub_url)))}")

    stage.headline("5. order-3: a large one waits up to two days for its approval, and is terminated")
    with Worker(stage, "order-3") as worker:
        held = asyncio.run(terminate_when_it_waits(stage, "order-3", worker))
        worker.wait()
    stock_at_last = asyncio.run(read_stock(stage.hub_url))
    stage.say(f"inventory after:          {stock_line(stock_at_last)}")

    stage.headline("6. The timelines, as the hub recorded them (runs: as the shop counted them)")
    orders = asyncio.run(read_hub(stage.hub_url, ["order-1", "order-2", "order-3"]))
    runs = runs_of(shop)
    for record in orders.values():
        stage.say(f"{record.order_id}: {record.outcome}")
        stage.console.print(table_of(record, runs))

    return {
        "orders": {order_id: asdict(record) for order_id, record in orders.items()},
        "runs": [asdict(run) for run in runs],
        "stock": {
            "at_first": STOCK,
            "before_order_2": stock_before,
            "while_order_3_waited": held,
            "at_last": stock_at_last,
        },
        "parcels": dict(shop.query("SELECT order_id, count(*) FROM shipments GROUP BY 1")),
        "payments": dict(shop.query("SELECT order_id, sum(amount) FROM payments GROUP BY 1")),
        "books": dict(shop.query("SELECT order_id, state FROM orders")),
        "promises": promises(shop, orders, runs, stock_before, stock_at_last),
    }


def wait_until_booked(shop: Shop, order_id: str, worker: Worker) -> None:
    """Watch the carrier's table, because a sleep would only guess. The answer that follows takes seconds."""
    deadline = time.monotonic() + PATIENCE_S
    while not shop.query("SELECT 1 FROM shipments WHERE order_id = ?", order_id):
        if not worker.is_alive():
            raise StoryError(f"worker {worker.pid} ended before it booked the parcel")
        if time.monotonic() > deadline:
            raise StoryError(f"no parcel was booked in {PATIENCE_S:.0f} s")
        time.sleep(0.01)


async def terminate_when_it_waits(stage: Stage, order_id: str, worker: Worker) -> dict[str, int]:
    """End an order that waits for its approval, from this process, which hosts nothing; the inventory until then."""
    deadline = time.monotonic() + PATIENCE_S
    async with Client(stage.hub_url) as client:
        while not ((status := await client.get_status(order_id)) and status.custom_status):
            if not worker.is_alive() or time.monotonic() > deadline:
                raise StoryError(f"{order_id} did not come to its approval")
            await asyncio.sleep(0.01)
        held = await read_stock(stage.hub_url)
        stage.say(f"inventory while it waits: {stock_line(held)}")
        stage.say(await client.why(order_id))
        await client.terminate(order_id, reason="the card was stolen")
    return held


def main() -> int:
    """Run the story; the exit code is 0 if every promise was kept."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.order_saga", description="An order saga and a kill -9."
    )
    parser.add_argument("--fast", action="store_true", help="steps take no time to watch them")
    parser.add_argument(
        "--json", action="store_true", help="print a summary as JSON; the story goes to stderr"
    )
    parser.add_argument(
        "--folder", type=Path, help="an empty folder for the databases; else a fresh temporary one"
    )
    arguments = parser.parse_args()
    folder: Path = arguments.folder or Path(tempfile.mkdtemp(prefix="order-saga-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    stage = Stage(folder, 0.02 if arguments.fast else 0.4, Console(stderr=arguments.json, highlight=False))
    stage.console.print("[bold]Three orders, one kill -9[/]")
    stage.say(f"databases: {folder}/shop.db (the shop's own) and hub.db (all that durably keeps)")
    try:
        summary = tell(stage)
    except (StoryError, DurablyError) as error:
        print(f"make demo: failed: {error}", file=sys.stderr)
        return 1
    stage.headline("7. Checked")
    for promise, kept in summary["promises"].items():
        stage.console.print(f"  {'[green]✓[/]' if kept else '[bold red]✗ NOT TRUE:[/]'} {promise}")
    if arguments.json:
        print(json.dumps(summary, indent=2))
    if not all(summary["promises"].values()):
        print("make demo: failed: a promise was not kept, see above", file=sys.stderr)
        return 1
    stage.console.print("\n[bold green]make demo: ok[/]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
