"""Human interaction: wait for somebody's decision, remind, and give up after three days."""

from datetime import timedelta

from durably import App, OrchestrationContext

app = App()


@app.activity
async def notify(text: str) -> None:
    """Replace this by an e-mail or a message."""
    print(text)


@app.orchestrator
async def approval(ctx: OrchestrationContext, request: str) -> str:
    """Waiting costs nothing: a row on the disk, for as long as it takes."""
    for day in (1, 2, 3):
        await ctx.call_activity(notify, f"Day {day}: please decide about {request}")
        approved = await ctx.wait_for_external_event(
            "Decision", bool, timeout=timedelta(days=1), default=None
        )
        if approved is not None:
            return "approved" if approved else "rejected"
    return "nobody decided"
