"""Ask the agent about lost parcels, and play the human who approves refunds: up to 100 euros, and no more."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from durably import Handle, InstanceStateError
from examples.agent_loop.app import Answer, Conversation, Decision, Message, app, converse
from examples.agent_loop.approve import waiting_in
from examples.agent_loop.service import open_carrier
from examples.agent_loop.tools import SCHEMA
from examples.command import at_least, command, count, run
from examples.effects import create, query, transaction

ORDERS = [
    ("order-1", "Ann", 49_00, "P-1"),
    ("order-2", "Bob", 86_50, "P-2"),
    ("order-3", "Cy", 12_50, "P-3"),
    ("order-4", "Dee", 1_299_00, "P-4"),
]
ANSWERS = {
    "'order-2'": Decision(approved=True, by="Mia"),
    "'order-4'": Decision(approved=False, by="Mia", reason="so much is for the director to say"),
}


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """One conversation; the agent goes on with it when it is there."""
    os.environ["AGENT_DIR"] = str(folder)
    os.environ["AGENT_STEP_S"] = str(arguments.step)
    create(folder / "shop.db", SCHEMA)
    with transaction(folder / "shop.db") as db:
        db.executemany("INSERT INTO orders VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", ORDERS)
    with open_carrier() as carrier:
        os.environ["CARRIER_URL"] = carrier.url
        async with app.host(f"sqlite:///{folder / 'hub.db'}") as host:
            talk = Conversation(
                [Message("user", "Which parcels are lost? Pay back what they have cost.")],
                turns_max=arguments.turns,
                turns_per_execution=3,
                approval_s=arguments.deadline,
            )
            handle = await host.client.start(converse, talk, instance_id="agent", on_existing="attach")
            human = asyncio.create_task(approve(handle, ANSWERS if arguments.human else {}))
            answer = await handle.result()
            human.cancel()

    for message in answer.messages:
        print(f"{message.role:5} {message.answers:4} {message.text}")
        for call in message.calls:
            print(f"      {call.number:4} -> {call.name} {call.arguments}")
    print(f"\n{answer.state} after {answer.turns} turns")
    for note in sorted(folder.glob("notes/*")):
        print(f"{note}")
    for order_id, cents in query(folder / "shop.db", "SELECT order_id, cents FROM refunds"):
        print(f"refund of {order_id}: {cents / 100:.2f}")
    return answer.state == "answered"


async def approve(agent: Handle[Answer], answers: dict[str, Decision]) -> None:
    """Look at the status from time to time, say what waits, and decide on it."""
    seen: set[str] = set()
    while True:
        for number, wish in waiting_in(await agent.status()).items():
            if number in seen:
                continue
            seen.add(number)
            print(f"{number} waits for approval: {wish}")
            decision = next((answers[order] for order in answers if order in wish), None)
            if decision is not None:
                try:
                    await agent.raise_event(f"Approval {number}", decision)
                except InstanceStateError as error:
                    print(f"too late: {error}")  # the deadline was faster
        await asyncio.sleep(0.02)


parser = command("agent_loop", "A durable agent with tools, and a human who approves the dangerous ones.")
parser.add_argument("--no-human", dest="human", action="store_false", help="nobody is there to approve")
parser.add_argument("--deadline", type=at_least(0), default=2, help="seconds a human may think (2)")
parser.add_argument("--turns", type=count, default=20, help="turns that the model may take (20)")
parser.add_argument("--step", type=at_least(0), default=0, help="seconds that each refund lingers (0)")

if __name__ == "__main__":
    sys.exit(run(parser, main))
