"""A monitor that never grows: each round is an execution of its own, begun by `continue_as_new`."""

import http.client
import json
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

from durably import App, OrchestrationContext, RetryPolicy
from examples.effects import write_file

app = App()

ANSWER_S = 5.0
READ_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Watch:
    """What to watch, and what has been seen: all that one round hands to the next.

    Attributes:
        target: The path of a file, or a URL that begins with http.
        text: The condition holds while the target contains this.
        every_s: Pause between two looks, in seconds.
        alerts: The folder for the alerts.
        looks: Looks so far.
        holds: What the last look found; None before the first.
        changes: How often the answer has changed.
    """

    target: str
    text: str
    every_s: float
    alerts: str
    looks: int = 0
    holds: bool | None = None
    changes: int = 0


@dataclass(frozen=True)
class Alert:
    """The answer has changed."""

    path: str
    target: str
    text: str
    holds: bool
    look: int


# --- activities -------------------------------------------------------------------------------------------------------


@app.activity
def look(watch: Watch) -> bool:
    """Whether the target contains the text now. One that cannot be read does not: to a monitor that is an answer."""
    try:
        if watch.target.startswith(("http://", "https://")):
            with urllib.request.urlopen(watch.target, timeout=ANSWER_S) as answer:  # noqa: S310 - looked at above
                content = answer.read(READ_MAX_BYTES)
        else:
            with Path(watch.target).open("rb") as file:
                content = file.read(READ_MAX_BYTES)
    except (OSError, http.client.HTTPException):  # also what urllib raises, and time-outs
        return False
    return watch.text.encode() in content


@app.activity
def raise_alert(alert: Alert) -> None:
    """Write the alert. Its name says which change it is, so a second run writes the same file again."""
    content = {"target": alert.target, "text": alert.text, "holds": alert.holds, "look": alert.look}
    write_file(Path(alert.path), json.dumps(content, indent=2).encode())


# --- the orchestrator -------------------------------------------------------------------------------------------------

PATIENT = RetryPolicy(
    first_retry_interval=1, max_number_of_attempts=10, backoff_coefficient=2, max_retry_interval=60
)


@app.orchestrator
async def monitor(ctx: OrchestrationContext, watch: Watch) -> Watch:
    """One round: look, tell, pause. The history of a round is a dozen events long, in the first year and in the tenth."""
    holds = await ctx.call_activity(look, watch, retry=PATIENT)
    seen = replace(watch, looks=watch.looks + 1, holds=holds)
    if holds != watch.holds:
        seen = replace(seen, changes=seen.changes + 1)
        name = f"{seen.changes:04}-{'holds' if holds else 'does-not-hold'}.json"
        alert = Alert(f"{watch.alerts}/{name}", watch.target, watch.text, holds, seen.looks)
        await ctx.call_activity(raise_alert, alert, retry=PATIENT)
    ctx.set_custom_status({"looks": seen.looks, "holds": holds, "changes": seen.changes})

    # The pause is a wait for the event that ends it all. Raised at any other moment, it is kept for the next pause, also
    # over `continue_as_new`.
    stopped = await ctx.wait_for_external_event("Stop", bool, timeout=watch.every_s, default=False)
    if not stopped:
        ctx.continue_as_new(
            seen
        )  # takes effect at the return; what is returned counts only in the last round
    return seen
