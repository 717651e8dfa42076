"""Decide on an expense from another process, as the button in the mail would: a client of the hub raises the event.

It hosts nothing and knows nothing of the orchestrator but the name of its event.
"""

import argparse
import sys
from pathlib import Path

from durably import Client
from examples.command import command, run


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Raise the event. When nobody serves the hub now, the decision waits there for the next host."""
    decision = {"approved": arguments.approve, "by": arguments.by, "comment": arguments.comment}
    async with Client(f"sqlite:///{folder / 'hub.db'}") as client:
        await client.raise_event(arguments.expense, "Decision", decision)
    print(f"{arguments.by} has {'approved' if arguments.approve else 'rejected'} {arguments.expense}")
    return True


parser = command("expense_approval.decide", "Approve or reject an expense that waits.")
parser.add_argument("expense", help="the id, such as to-ignore")
answer = parser.add_mutually_exclusive_group(required=True)
answer.add_argument("--approve", action="store_true", help="say yes")
answer.add_argument("--reject", action="store_true", help="say no")
parser.add_argument("--by", default="Bo", help="who decides (Bo)")
parser.add_argument("--comment", default="", help="why")

if __name__ == "__main__":
    sys.exit(run(parser, main))
