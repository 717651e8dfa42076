"""Work off a queue: so many jobs at a time, bad ones reported and not in the way, progress to look at, cancel at will."""

import asyncio
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from durably import App, NonRetryableError, OrchestrationContext, RetryPolicy, TaskFailedError
from examples.effects import query, transaction, write_file

app = App()

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job_id INTEGER PRIMARY KEY, customer TEXT NOT NULL, lines TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued', note TEXT NOT NULL DEFAULT '');
"""
"""The queue: a job is an invoice to write. Its state is "queued", "done", "failed" or "cancelled"."""


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """What to work off, and how many jobs at the same time."""

    folder: str
    max_in_flight: int


@dataclass(frozen=True)
class Job:
    """One row of the queue of a folder; `problem` says why it could not be done, if so."""

    folder: str
    job_id: int
    problem: str = ""


@dataclass(frozen=True)
class Report:
    """What came of the jobs; `failures` has the reason of each that failed, by its id."""

    done: int
    failed: int
    cancelled: int
    failures: dict[str, str]


# --- activities -------------------------------------------------------------------------------------------------------


class BadJobError(NonRetryableError):
    """The job itself is wrong: no attempt can do it."""


@app.activity
def open_queue(batch: Batch) -> list[int]:
    """What there is to do: new jobs, and those that a batch before left behind when it was cancelled."""
    with transaction(database(batch.folder)) as db:
        db.execute("UPDATE jobs SET state = 'queued' WHERE state = 'cancelled'")
        return [
            job for (job,) in db.execute("SELECT job_id FROM jobs WHERE state = 'queued' ORDER BY job_id")
        ]


@app.activity
def run_job(job: Job) -> None:
    """Write an invoice. The state in the queue decides: a job that is done, or was taken away, is left alone."""
    ((customer, lines),) = query(
        database(job.folder), "SELECT customer, lines FROM jobs WHERE job_id = ?", job.job_id
    )
    invoice = invoice_of(job.job_id, customer, lines)
    time.sleep(float(os.environ.get("BATCH_JOB_S", "0")))  # a printer, a converter, a slow service
    with transaction(database(job.folder)) as db:
        taken = db.execute(
            "UPDATE jobs SET state = 'done' WHERE job_id = ? AND state = 'queued'", (job.job_id,)
        )
        if taken.rowcount == 1:  # in the transaction: the state is durable after the file, never before
            write_file(Path(job.folder) / "invoices" / f"{job.job_id:05}.txt", invoice.encode())


def invoice_of(job_id: int, customer: str, lines: str) -> str:
    """The text of an invoice; its lines are JSON: article, pieces, cents."""
    try:
        items = [(str(article), int(pieces), int(cents)) for article, pieces, cents in json.loads(lines)]
    except (ValueError, TypeError) as error:
        raise BadJobError(f"its lines cannot be read: {error}") from None
    if not items or any(pieces < 1 for _, pieces, _ in items):
        raise BadJobError("it has nothing to pay for")
    rows = [f"{pieces:4} x {article:12} {pieces * cents / 100:10.2f}" for article, pieces, cents in items]
    total = sum(pieces * cents for _, pieces, cents in items)
    return "\n".join([f"Invoice {job_id} for {customer}", *rows, f"{'total':19} {total / 100:10.2f}", ""])


@app.activity
def note_failure(job: Job) -> None:
    """Enter why a job could not be done."""
    with transaction(database(job.folder)) as db:
        db.execute("UPDATE jobs SET state = 'failed', note = ? WHERE job_id = ?", (job.problem, job.job_id))


@app.activity
def close_queue(batch: Batch) -> None:
    """Take all jobs away that nobody has done yet, also from activities that are still running."""
    with transaction(database(batch.folder)) as db:
        db.execute("UPDATE jobs SET state = 'cancelled' WHERE state = 'queued'")


@app.activity
def write_report(batch: Batch) -> Report:
    """Write the result file, from what the queue says now."""
    rows = query(database(batch.folder), "SELECT job_id, state, note FROM jobs ORDER BY job_id")
    states = [state for _, state, _ in rows]
    failures = {str(job_id): note for job_id, state, note in rows if state == "failed"}
    report = Report(states.count("done"), states.count("failed"), states.count("cancelled"), failures)
    write_file(Path(batch.folder) / "result.json", json.dumps(asdict(report), indent=2).encode())
    return report


def database(folder: str) -> Path:
    """Where the queue is."""
    return Path(folder) / "queue.db"


# --- the orchestrator -------------------------------------------------------------------------------------------------

PATIENT = RetryPolicy(
    first_retry_interval=1, max_number_of_attempts=6, backoff_coefficient=3, max_retry_interval=600
)


@app.orchestrator
async def run_batch(ctx: OrchestrationContext, batch: Batch) -> Report:
    """All jobs of the queue. Plain asyncio: the semaphore bounds, the task group waits, and both survive a crash."""
    job_ids = await ctx.call_activity(open_queue, batch, retry=PATIENT)
    progress = {"jobs": len(job_ids), "done": 0, "failed": 0}
    ctx.set_custom_status(progress)
    room = asyncio.Semaphore(batch.max_in_flight)
    try:
        async with asyncio.TaskGroup() as group:
            for job_id in job_ids:
                group.create_task(one_job(ctx, Job(batch.folder, job_id), room, progress))
    except asyncio.CancelledError:
        # `client.cancel`: there is time to tidy up. Closing the queue first makes the report final, also for jobs whose
        # activities are still running: they find that nobody wants them any more.
        await ctx.call_activity(close_queue, batch, retry=PATIENT)
        await ctx.call_activity(write_report, batch, retry=PATIENT)
        raise
    return await ctx.call_activity(write_report, batch, retry=PATIENT)


async def one_job(
    ctx: OrchestrationContext, job: Job, room: asyncio.Semaphore, progress: dict[str, Any]
) -> None:
    """One job, when there is room for it. Its failure is an entry in the report, not the end of the batch."""
    async with room:
        try:
            await ctx.call_activity(run_job, job, retry=PATIENT)
            progress["done"] += 1
        except TaskFailedError as error:
            problem = Job(job.folder, job.job_id, error.details.message)
            await ctx.call_activity(note_failure, problem, retry=PATIENT)
            progress["failed"] += 1
    ctx.set_custom_status(progress)
