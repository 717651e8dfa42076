"""Expense approval: ask the manager, remind once, and hand the expense to the director when nobody answers in time."""

import os
from dataclasses import dataclass
from pathlib import Path

from durably import ActivityContext, App, OrchestrationContext, RetryPolicy
from examples.effects import transaction

app = App()

SCHEMA = """
CREATE TABLE IF NOT EXISTS expenses (
    expense_id TEXT PRIMARY KEY, employee TEXT NOT NULL, cents INTEGER NOT NULL,
    state TEXT NOT NULL, decided_by TEXT, comment TEXT);
CREATE TABLE IF NOT EXISTS mails (
    idempotency_key TEXT PRIMARY KEY, expense_id TEXT NOT NULL, recipient TEXT NOT NULL, subject TEXT NOT NULL);
"""


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expense:
    """What an employee wants back. Times in seconds: two days and one week in real life."""

    expense_id: str
    employee: str
    cents: int
    remind_after_s: float
    deadline_s: float


@dataclass(frozen=True)
class Decision:
    """The payload of the event `Decision`: what a human has to say."""

    approved: bool
    by: str
    comment: str = ""


@dataclass(frozen=True)
class Outcome:
    """How it ended: `state` is "approved", "rejected" or "escalated"."""

    expense_id: str
    state: str
    decided_by: str | None = None
    comment: str | None = None


@dataclass(frozen=True)
class Mail:
    """A few words to somebody."""

    expense_id: str
    recipient: str
    subject: str


# --- activities -------------------------------------------------------------------------------------------------------


def database() -> Path:
    """Configuration comes from the environment, as in any service."""
    return Path(os.environ.get("EXPENSES_DB", "expenses.db"))


@app.activity
def record_expense(expense: Expense) -> None:
    """Enter the expense into the books. Its own id makes that harmless when it runs again."""
    with transaction(database()) as db:
        db.execute(
            "INSERT INTO expenses VALUES (?, ?, ?, 'submitted', NULL, NULL) ON CONFLICT DO NOTHING",
            (expense.expense_id, expense.employee, expense.cents),
        )


@app.activity
def send_mail(mail: Mail, ctx: ActivityContext) -> None:
    """Send a mail, once per call: the key is unique."""
    with transaction(database()) as db:
        db.execute(
            "INSERT INTO mails VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (ctx.idempotency_key, mail.expense_id, mail.recipient, mail.subject),
        )


@app.activity
def record_outcome(outcome: Outcome) -> None:
    """Enter the decision into the books. Setting a value twice is setting it once."""
    with transaction(database()) as db:
        db.execute(
            "UPDATE expenses SET state = ?, decided_by = ?, comment = ? WHERE expense_id = ?",
            (outcome.state, outcome.decided_by, outcome.comment, outcome.expense_id),
        )


# --- the orchestrator -------------------------------------------------------------------------------------------------

PATIENT = RetryPolicy(first_retry_interval=1, max_number_of_attempts=10, backoff_coefficient=2)


@app.orchestrator
async def approve_expense(ctx: OrchestrationContext, expense: Expense) -> Outcome:
    """Wait for a human: seconds or weeks, through restarts and deployments. Waiting costs no thread and no process."""
    await ctx.call_activity(record_expense, expense, retry=PATIENT)
    decision = await ask_manager(ctx, expense)
    if decision is None:
        outcome = Outcome(expense.expense_id, "escalated", comment="the manager did not answer")
        await tell(ctx, expense, "director", "nobody has decided on this expense, please do")
    else:
        state = "approved" if decision.approved else "rejected"
        outcome = Outcome(expense.expense_id, state, decision.by, decision.comment or None)
        await tell(ctx, expense, expense.employee, f"your expense was {state}")
    await ctx.call_activity(record_outcome, outcome, retry=PATIENT)
    ctx.set_custom_status(outcome.state)
    return outcome


async def ask_manager(ctx: OrchestrationContext, expense: Expense) -> Decision | None:
    """The decision of the manager, or None when there is none before the deadline."""
    # Both clocks and the wait begin here. An event that came already was kept: nobody can answer too early.
    answer = ctx.wait_for_external_event("Decision", Decision)
    deadline = ctx.create_timer(expense.deadline_s)
    reminder = ctx.create_timer(expense.remind_after_s)

    ctx.set_custom_status("waiting for the manager")
    await tell(ctx, expense, "manager", f"{expense.employee} wants {expense.cents / 100:.2f}, please decide")

    winner = await ctx.when_any([answer, reminder, deadline])
    if winner is reminder:
        ctx.set_custom_status("waiting for the manager, who was reminded")
        await tell(ctx, expense, "manager", f"reminder: {expense.employee} still waits for you")
        winner = await ctx.when_any([answer, deadline])

    # The timers that are still open end with the instance. One that runs for weeks may be cancelled: `deadline.cancel()`.
    return answer.result() if winner is answer else None


async def tell(ctx: OrchestrationContext, expense: Expense, recipient: str, subject: str) -> None:
    """Send a mail and wait until it is out: a plain function that an orchestrator calls, durable all the same."""
    await ctx.call_activity(send_mail, Mail(expense.expense_id, recipient, subject), retry=PATIENT)
