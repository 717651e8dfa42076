"""Asynchronous request and reply: start a batch, ask how far it is, cancel it; each a command that returns at once.

The client hosts nothing. A batch that it starts while nobody serves the hub waits for the next host.
"""

import argparse
import sys
from pathlib import Path

from durably import Client, InstanceStatus
from examples.command import command, count, run

BATCH_ID = "batch"


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Send the request, and show the status."""
    async with Client(f"sqlite:///{folder / 'hub.db'}") as client:
        if arguments.verb == "start":
            batch = {"folder": str(folder), "max_in_flight": arguments.max_in_flight}
            await client.start("run_batch", batch, instance_id=BATCH_ID)  # one that has ended is replaced
        elif arguments.verb == "cancel":
            await client.cancel(BATCH_ID, "somebody has asked for it")
        print(line_of(await client.get_status(BATCH_ID)))
    return True


def line_of(status: InstanceStatus | None) -> str:
    """A status for people."""
    if status is None:
        return "there is no batch"
    progress = status.custom_status or {"jobs": 0, "done": 0, "failed": 0}
    return f"{status.runtime_status.value}: {progress['done']} of {progress['jobs']} done, {progress['failed']} failed"


parser = command("batch_jobs.request", "Start, watch or cancel a batch from another process.")
parser.add_argument("verb", choices=("start", "status", "cancel"))
parser.add_argument("--max-in-flight", type=count, default=10, help="jobs at the same time (10)")

if __name__ == "__main__":
    sys.exit(run(parser, main))
