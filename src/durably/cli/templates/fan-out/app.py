"""Fan-out/fan-in: many pieces of work at once, and one result of all of them."""

import asyncio

from durably import App, OrchestrationContext

app = App()


@app.activity
async def find_pages(site: str) -> list[str]:
    """Replace this by what finds your pieces of work."""
    return [f"{site}/{number}" for number in range(1, 11)]


@app.activity(max_concurrent=4)
def count_words(page: str) -> int:
    """A plain function runs in a thread; no more than four of these at once."""
    return len(page)


@app.orchestrator
async def count_site(ctx: OrchestrationContext, site: str) -> int:
    """The words of all pages."""
    pages = await ctx.call_activity(find_pages, site)
    counts = await asyncio.gather(*(ctx.call_activity(count_words, page) for page in pages))
    return sum(counts)
