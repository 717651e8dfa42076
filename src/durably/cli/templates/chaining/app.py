"""Function chaining: each step gets what the one before returned, and none is done again after a crash."""

from dataclasses import dataclass
from datetime import timedelta

from durably import App, OrchestrationContext, RetryPolicy

app = App()

RETRY = RetryPolicy(timedelta(seconds=1), max_number_of_attempts=5, backoff_coefficient=2)


@dataclass
class Order:
    """What somebody wants."""

    item: str
    count: int = 1


@app.activity
async def price(order: Order) -> float:
    """Activities do the work; they may use the network, and run at least once."""
    return 4.5 * order.count


@app.activity
async def charge(amount: float) -> str:
    """Replace this by a call of your bank."""
    return f"receipt over {amount:.2f}"


@app.orchestrator
async def buy(ctx: OrchestrationContext, order: Order) -> str:
    """Orchestrators decide what comes next; they are deterministic, and each await is a checkpoint."""
    amount = await ctx.call_activity(price, order, retry=RETRY)
    return await ctx.call_activity(charge, amount, retry=RETRY)
