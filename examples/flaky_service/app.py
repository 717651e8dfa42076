"""Exchange rates from a service that is often busy: retry what may pass, give up on what will not, have a plan B."""

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus

from durably import App, NonRetryableError, OrchestrationContext, RetryPolicy, TaskFailedError

app = App()

ANSWER_S = 5.0


@dataclass(frozen=True)
class Quote:
    """A rate, and where it comes from: "live", "yesterday", or "nowhere" for a currency that does not exist."""

    currency: str
    source: str
    rate: float | None = None
    note: str = ""


# --- activities -------------------------------------------------------------------------------------------------------


class ServiceBusyError(Exception):
    """The service did not do it now. Any ordinary exception may be tried again."""


class UnknownCurrencyError(NonRetryableError):
    """There is no such currency, and there will not be one in ten seconds: no policy tries again."""


@app.activity
def live_rate(currency: str) -> float:
    """What the rate is now."""
    return ask(f"live/{currency}")


@app.activity
def rate_of_yesterday(currency: str) -> float:
    """What the rate was."""
    return ask(f"yesterday/{currency}")


def ask(path: str) -> float:
    """One request. Which failures deserve another try is decided here, where the status codes are known."""
    # Not part of the input: the service may have moved before the next attempt, or the next restart.
    url = os.environ.get("RATES_URL", "http://127.0.0.1:8000")
    try:
        # With a limit of its own: a thread that waits for a dead server is a thread lost.
        target = f"{url}/{urllib.parse.quote(path)}"
        with urllib.request.urlopen(target, timeout=ANSWER_S) as answer:  # noqa: S310 - the operator chose it
            return json.load(answer)["rate"]
    except urllib.error.HTTPError as error:
        with error:
            reason = json.load(error)["error"]
        if error.code == HTTPStatus.NOT_FOUND:
            raise UnknownCurrencyError(reason) from None
        raise ServiceBusyError(f"{error.code}: {reason}") from None
    except OSError as error:  # nobody listens, the line is broken, the answer takes too long
        raise ServiceBusyError(f"no answer: {error}") from None


# --- the orchestrator -------------------------------------------------------------------------------------------------

# 0.1, 0.2, 0.4 s between four attempts: minutes in real life. `jitter` keeps a thousand callers from coming back all at
# once, `max_retry_interval` keeps the last delays bearable, `retry_timeout` bounds the whole.
BUSY = RetryPolicy(
    first_retry_interval=0.1,
    max_number_of_attempts=4,
    backoff_coefficient=2,
    max_retry_interval=60,
    jitter=0.1,
)


@app.orchestrator
async def quote(ctx: OrchestrationContext, currency: str) -> Quote:
    """The delays between attempts are durable timers: a restart in the middle neither shortens nor repeats them."""
    try:
        rate = await ctx.call_activity(live_rate, currency, retry=BUSY)
        return Quote(currency, "live", rate)
    except TaskFailedError as error:
        failure = error.details
        if failure.is_caused_by(UnknownCurrencyError):
            return Quote(currency, "nowhere", note=failure.message)

    # Plan B, after the last attempt. If that fails, too, so does the instance: its status says why.
    rate = await ctx.call_activity(rate_of_yesterday, currency, retry=BUSY)
    return Quote(currency, "yesterday", rate, note=failure.message)
