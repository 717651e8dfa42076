"""Loans: three checks at once, then the rules decide, or an underwriter does, or nobody does in time.

What the rules know of an applicant comes from services that are busy at times, and one of them may not answer at all.
"""

import asyncio
import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Literal

from durably import ActivityContext, App, NonRetryableError, OrchestrationContext, RetryPolicy

app = App()

ANSWER_S = 10.0

Route = Literal["approve", "underwriter", "decline"]


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Application:
    """Who wants how much, and how long an underwriter may take, if one is needed."""

    applicant: str
    euros: int
    patience: timedelta = timedelta(days=3)


@dataclass(frozen=True)
class Checks:
    """What the checks have found: a score up to 850, a probability of fraud, euros a month. None: no answer."""

    credit: float | None
    fraud: float | None
    income: float | None


@dataclass(frozen=True)
class Opinion:
    """The payload of the event `Opinion`: what the underwriter has to say."""

    approves: bool
    by: str


@dataclass(frozen=True)
class Verdict:
    """How it ended. `payout` is the number of the transfer."""

    applicant: str
    approved: bool
    by: str
    payout: int | None = None


@dataclass(frozen=True)
class Transfer:
    """Money for somebody."""

    applicant: str
    euros: int


# --- activities -------------------------------------------------------------------------------------------------------


class ServiceBusyError(Exception):
    """The service did not do it now. Any ordinary exception may be tried again."""


class RefusedError(NonRetryableError):
    """The service will not do it tomorrow either."""


@app.activity
def check_credit(applicant: str) -> float:
    """The credit score."""
    return ask(f"credit/{applicant}")["value"]


@app.activity
def check_fraud(applicant: str) -> float:
    """The probability of fraud."""
    return ask(f"fraud/{applicant}")["value"]


@app.activity
def check_income(applicant: str) -> float:
    """Euros a month."""
    return ask(f"income/{applicant}")["value"]


@app.activity
def pay_out(transfer: Transfer, ctx: ActivityContext) -> int:
    """Have the bank pay. The key is the same whenever this runs again, and the bank pays once for each key."""
    body = {"applicant": transfer.applicant, "euros": transfer.euros}
    return ask("payouts", body, {"Idempotency-Key": ctx.idempotency_key})["number"]


def ask(path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
    """One request. Which failures deserve another try is decided here, where the status codes are known."""
    # Not part of the input: the services may have moved before the next attempt.
    url = f"{os.environ.get('LOANS_URL', 'http://127.0.0.1:8000')}/{path}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers or {})  # noqa: S310 - the operator chose it
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            said = f"{error.code} for /{path}"
        busy = error.code == HTTPStatus.TOO_MANY_REQUESTS or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR
        raise (ServiceBusyError if busy else RefusedError)(said) from None
    except OSError as error:  # nobody listens, the line is broken, the answer takes too long
        raise ServiceBusyError(f"no answer: {error}") from None


# --- the rules: a plain function, tested like any other ---------------------------------------------------------------


def route_of(application: Application, checks: Checks) -> Route:
    """Who decides: the rules, or a human where they do not know enough."""
    if checks.fraud is not None and checks.fraud > 0.5:
        return "decline"
    if checks.credit is None or checks.fraud is None or checks.income is None:
        return "underwriter"
    if checks.credit < 500:
        return "decline"
    is_safe = checks.credit >= 700 and checks.fraud < 0.1 and application.euros <= 6 * checks.income
    return "approve" if is_safe else "underwriter"


# --- the orchestrator -------------------------------------------------------------------------------------------------
#
# Its code runs again whenever the instance is read from its history: after a crash, and when it was put out of memory
# because it waits for long. `ctx.logger` is silent then, so each line is written once; `print` would repeat itself.
# It writes before the turn is durable, so that a process which dies in between has written a line that comes again.

BUSY = RetryPolicy(first_retry_interval=0.1, max_number_of_attempts=4, backoff_coefficient=2)
STUBBORN = RetryPolicy(
    first_retry_interval=1, max_number_of_attempts=1_000, backoff_coefficient=2, max_retry_interval=600
)


@app.orchestrator
async def process_loan(ctx: OrchestrationContext, application: Application) -> Verdict:
    """Check, decide, pay."""
    who = application.applicant
    ctx.logger.info("%s asks for %d euros", who, application.euros)
    checks = await run_checks(ctx, who)
    route = route_of(application, checks)
    ctx.logger.info("%s has credit %s, fraud %s, income %s", who, checks.credit, checks.fraud, checks.income)
    ctx.set_custom_status(route)

    if route == "underwriter":
        opinion = await ask_underwriter(ctx, application)
    else:
        opinion = Opinion(route == "approve", "the rules")
    payout = None
    if opinion.approves:
        payout = await ctx.call_activity(pay_out, Transfer(who, application.euros), retry=STUBBORN)
    verdict = Verdict(who, opinion.approves, opinion.by, payout)
    ctx.logger.info("%s %s by %s", who, "approved" if verdict.approved else "declined", verdict.by)
    return verdict


async def run_checks(ctx: OrchestrationContext, applicant: str) -> Checks:
    """All three at once, each with its own attempts; one that gives up leaves a gap and does not spoil the others."""
    found = await asyncio.gather(
        *(ctx.call_activity(fn, applicant, retry=BUSY) for fn in (check_credit, check_fraud, check_income)),
        return_exceptions=True,
    )
    for error in found:
        if isinstance(error, BaseException):
            ctx.logger.warning("%s: %s", applicant, error)
    return Checks(*(None if isinstance(value, BaseException) else value for value in found))


async def ask_underwriter(ctx: OrchestrationContext, application: Application) -> Opinion:
    """What the underwriter says; who does not answer in time declines."""
    ctx.logger.info("%s waits for an underwriter", application.applicant)
    nobody = Opinion(approves=False, by="nobody in time")
    return await ctx.wait_for_external_event("Opinion", Opinion, timeout=application.patience, default=nobody)
