"""Fill the queue, run the batch, and poll its status as a client does; see `request.py` for clients elsewhere."""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

from durably import RuntimeStatus
from examples.batch_jobs.app import SCHEMA, Batch, app, run_batch
from examples.batch_jobs.request import BATCH_ID, line_of
from examples.command import at_least, command, count, run
from examples.effects import create, query, transaction


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Run a batch to its end, or to its cancellation."""
    os.environ["BATCH_JOB_S"] = str(arguments.job_time)
    fill(folder / "queue.db", arguments.jobs)
    async with app.host(f"sqlite:///{folder / 'hub.db'}") as host:
        batch = Batch(str(folder), arguments.max_in_flight)
        handle = await host.client.start(run_batch, batch, instance_id=BATCH_ID, on_existing="attach")
        shown = None
        while True:
            status = await handle.status()
            line = line_of(status)
            if line != shown:
                print(f"  {line}")
                shown = line
            if status is None or status.runtime_status.is_terminal:
                break
            await asyncio.sleep(0.02)

    result = folder / "result.json"
    if result.exists():
        report = json.loads(result.read_text())
        print(f"{result}: {report['done']} done, {report['failed']} failed, {report['cancelled']} cancelled")
        for job_id, reason in list(report["failures"].items())[:3]:
            print(f"  job {job_id}: {reason}")
    return status is not None and status.runtime_status is RuntimeStatus.COMPLETED


def fill(database: Path, jobs: int) -> None:
    """Put jobs into an empty queue; each fiftieth is a bad one."""
    create(database, SCHEMA)
    if query(database, "SELECT 1 FROM jobs LIMIT 1"):
        return
    with transaction(database) as db:
        for number in range(1, jobs + 1):
            lines = (
                "[]" if number % 50 == 0 else json.dumps([["lamp", number % 7 + 1, 4900], ["book", 1, 1250]])
            )
            db.execute("INSERT INTO jobs (customer, lines) VALUES (?, ?)", (f"customer {number}", lines))


parser = command("batch_jobs", "A batch of jobs: bounded concurrency, progress, partial failure, cancel.")
parser.add_argument("--jobs", type=count, default=200, help="jobs in a queue that is filled (200)")
parser.add_argument("--max-in-flight", type=count, default=10, help="jobs at the same time (10)")
parser.add_argument("--job-time", type=at_least(0), default=0.02, help="seconds for each job (0.02)")

if __name__ == "__main__":
    sys.exit(run(parser, main))
