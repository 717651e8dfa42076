"""A monitor: looks at something again and again, for as long as it takes, without growing."""

from dataclasses import dataclass
from datetime import timedelta

from durably import App, OrchestrationContext

app = App()


@dataclass
class Watch:
    """What to look at, and how often it was."""

    city: str
    every_s: float = 60.0
    looks: int = 0


@app.activity
async def is_clear(city: str) -> bool:
    """Replace this by a look at the world."""
    return len(city) % 2 == 0


@app.orchestrator
async def monitor(ctx: OrchestrationContext, watch: Watch) -> str:
    """Each look is an execution of its own: the history of the ten thousandth is as short as that of the first."""
    if await ctx.call_activity(is_clear, watch.city):
        return f"clear after {watch.looks + 1} looks"
    ctx.set_custom_status({"looks": watch.looks + 1})
    await ctx.create_timer(timedelta(seconds=watch.every_s))
    ctx.continue_as_new(Watch(watch.city, watch.every_s, watch.looks + 1))
    return ""
