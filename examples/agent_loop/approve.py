"""Approve or deny a call of a tool from another process, as the page of a supervisor would: a client raises the event."""

import argparse
import sys
from pathlib import Path
from typing import Any

from durably import Client, InstanceStatus
from examples.command import command, run


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Raise the event; without a number, list what waits."""
    async with Client(f"sqlite:///{folder / 'hub.db'}") as client:
        if arguments.number is None:
            for number, wish in waiting_in(await client.get_status("agent")).items():
                print(f"{number}  {wish}")
            return True
        if not arguments.yes and not arguments.no:
            parser.error("expected --yes or --no")
        decision = {"approved": arguments.yes, "by": arguments.by, "reason": arguments.reason}
        await client.raise_event("agent", f"Approval {arguments.number}", decision)
    print(f"{arguments.by} has {'approved' if arguments.yes else 'denied'} {arguments.number}")
    return True


def waiting_in(status: InstanceStatus | None) -> dict[str, str]:
    """The calls that wait for a human, by number, as the agent shows them in its custom status."""
    shown: Any = status.custom_status if status else None
    return shown["waits for approval"] if shown else {}


parser = command("agent_loop.approve", "List the calls that wait for a human, or decide on one.")
parser.add_argument("number", nargs="?", help="of the call, such as 3.1")
answer = parser.add_mutually_exclusive_group()
answer.add_argument("--yes", action="store_true", help="approve it")
answer.add_argument("--no", action="store_true", help="deny it")
parser.add_argument("--by", default="Bo", help="who decides (Bo)")
parser.add_argument("--reason", default="no reason given", help="why")

if __name__ == "__main__":
    sys.exit(run(parser, main))
