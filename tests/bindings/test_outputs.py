"""Outputs into a real broker, from messages of a real broker."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from durably import App, BlobOutput, Out, QueueMessage, QueueOutput
from tests.support.servers import Server

PATIENCE_S = 30.0


@dataclass
class Order:
    number: int
    item: str


@pytest.mark.parametrize("broker", ["redis", "nats"])
def test_a_chain_through_a_broker_hands_each_message_on_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, broker: str
) -> None:
    server: Server = request.getfixturevalue(broker)
    monkeypatch.setenv("BROKER", server.url)
    monkeypatch.setenv("SHIPMENTS", f"shipments-{broker}")
    app, tries, seen, notes = App(), dict[int, int](), list[Order](), set[str]()
    ended = asyncio.Event()

    @app.queue(f"orders-{broker}", connection="BROKER")
    async def take(
        order: Order,
        shipments: Annotated[Out[Order], QueueOutput("%SHIPMENTS%", connection="BROKER")],
        note: Annotated[Out[str], QueueOutput(f"notes-{broker}", connection="BROKER")],
        slip: Annotated[Out[Order], BlobOutput("slips/{number}.json")],
    ) -> None:
        shipments.set(order)
        note.set(f"sent {order.item}")
        slip.set(order)
        tries[order.number] = tries.get(order.number, 0) + 1
        if tries[order.number] == 1:
            raise RuntimeError("at its first try")

    @app.queue("%SHIPMENTS%", connection="BROKER")
    async def ship(order: Order) -> None:
        seen.append(order)
        told()

    @app.queue(f"notes-{broker}", connection="BROKER")
    async def read(note: str, message: QueueMessage) -> None:
        notes.add(note)
        told()

    def told() -> None:
        if len(seen) >= 5 and len(notes) >= 5:
            ended.set()

    async def main() -> Any:
        async with app.host(f"sqlite:///{tmp_path / 'hub.db'}") as host:
            for number in range(5):
                body = f'{{"number": {number}, "item": "tea {number}"}}'.encode()
                sender = host.connections.broker("BROKER")
                await sender.send(f"orders-{broker}", body, message_id=f"m{number}")
            async with asyncio.timeout(PATIENCE_S):
                await ended.wait()
                # The slip of a message is set behind what the next function takes.
                while len(found := [one.name async for one in host.blobs("slips").list()]) < 5:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            return found

    slips = asyncio.run(main())
    assert sorted(one.number for one in seen) == list(range(5))
    assert notes == {f"sent tea {number}" for number in range(5)}  # text is sent as text, not as JSON
    assert slips == [f"{number}.json" for number in range(5)]
    assert tries == dict.fromkeys(range(5), 2)
