"""Submit expenses and play the humans: they read their mails and answer with an external event, or do not."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from durably import Client, Handle, InstanceStateError
from examples.command import at_least, command, run
from examples.effects import create, query
from examples.expense_approval.app import SCHEMA, Decision, Expense, Outcome, app, approve_expense


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """One expense for each flag; without a flag, all three."""
    database = folder / "expenses.db"
    os.environ["EXPENSES_DB"] = str(database)
    create(database, SCHEMA)
    stories = [story for story in (approve, reject, ignore) if getattr(arguments, story.__name__)]
    stories = stories or [approve, reject, ignore]

    async with app.host(f"sqlite:///{folder / 'hub.db'}") as host:
        handles: list[Handle[Outcome]] = []
        for story in stories:
            expense_id = f"to-{story.__name__}"
            expense = Expense(expense_id, "Ada", 129_90, arguments.remind_after, arguments.deadline)
            handles.append(await submit(host.client, expense))
            print(f"{expense_id}: submitted")
        await asyncio.gather(
            *(story(handle, database) for story, handle in zip(stories, handles, strict=True))
        )
        outcomes = [await handle.result() for handle in handles]

    for outcome in outcomes:
        details = f" by {outcome.decided_by}" if outcome.decided_by else ""
        print(f"\n{outcome.expense_id}: {outcome.state}{details} ({outcome.comment or 'no comment'})")
        sql = "SELECT recipient, subject FROM mails WHERE expense_id = ? ORDER BY rowid"
        for recipient, subject in query(database, sql, outcome.expense_id):
            print(f"  mail to {recipient:8}  {subject}")
    print(f"\n{database}:")
    for expense_id, state in query(database, "SELECT expense_id, state FROM expenses ORDER BY rowid"):
        print(f"  {expense_id:10} {state}")
    return True


async def submit(client: Client, expense: Expense) -> Handle[Outcome]:
    """Start the approval, or follow the one that is there: the id of the expense is that of the instance."""
    return await client.start(approve_expense, expense, instance_id=expense.expense_id, on_existing="attach")


# --- the humans -------------------------------------------------------------------------------------------------------


async def approve(expense: Handle[Outcome], database: Path) -> None:
    """A manager who answers the first mail."""
    if await manager_has_mails(expense, database, 1):
        await answer(expense, Decision(approved=True, by="Mia"))


async def reject(expense: Handle[Outcome], database: Path) -> None:
    """A manager who has to be reminded."""
    if await manager_has_mails(expense, database, 2):
        await answer(expense, Decision(approved=False, by="Mia", comment="too much coffee"))


async def ignore(expense: Handle[Outcome], database: Path) -> None:
    """A manager on holiday."""


async def answer(expense: Handle[Outcome], decision: Decision) -> None:
    """Raise the event. In a service, this is what the button in the mail does."""
    try:
        await expense.raise_event("Decision", decision)
    except InstanceStateError as error:
        print(f"too late: {error}")  # the deadline was faster


async def manager_has_mails(expense: Handle[Outcome], database: Path, number: int) -> bool:
    """Look into the mails from time to time, as people do; False when all is over before there are enough of them."""
    sql = "SELECT count(*) FROM mails WHERE expense_id = ? AND recipient = 'manager'"
    while True:
        status = await expense.status()
        if status is None or status.runtime_status.is_terminal:
            return False
        if query(database, sql, expense.instance_id)[0][0] >= number:
            return True
        await asyncio.sleep(0.05)


parser = command(
    "expense_approval", "Human interaction: approval by external event, with reminder and deadline."
)
parser.add_argument("--approve", action="store_true", help="an expense that is approved at once")
parser.add_argument("--reject", action="store_true", help="an expense that is rejected after the reminder")
parser.add_argument("--ignore", action="store_true", help="an expense that nobody looks at: it is escalated")
parser.add_argument("--remind-after", type=at_least(0), default=0.5, help="seconds until the reminder (0.5)")
parser.add_argument("--deadline", type=at_least(0), default=2, help="seconds until the escalation (2)")

if __name__ == "__main__":
    sys.exit(run(parser, main))
