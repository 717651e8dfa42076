"""An HTTP function that starts an orchestration and answers at once with links to follow it."""

from dataclasses import dataclass

from durably import App, DurableClient, OrchestrationContext

app = App()


@dataclass
class Job:
    """The body of a request."""

    text: str


@app.activity
async def convert(job: Job) -> str:
    """The work that takes long."""
    return job.text.upper()


@app.orchestrator
async def process(ctx: OrchestrationContext, job: Job) -> str:
    """What happens behind the request."""
    return await ctx.call_activity(convert, job)


@app.route("jobs/{number}", methods=["POST"])
async def submit(number: str, job: Job, client: DurableClient):
    """202 with links; asked for twice, it is one job."""
    return await client.start(process, job, instance_id=number, on_existing="attach")


@app.route("health", methods=["GET"], auth_level="anonymous")
async def health() -> str:
    """Needs no key."""
    return "well"
