"""The process that is killed: a host whose schedules come due each second, and a file of what they did."""

from __future__ import annotations

import asyncio
import os
import sys

from durably import App, OrchestrationContext

STARTING = ("beside", "behind")
"""Schedules that start instances, by their overlap policy."""


def build_app(effects: str) -> App:
    """The app.

    Args:
        effects: A file that gets a line for each run of an activity.
    """
    app = App()

    @app.activity
    async def note(line: str) -> None:
        await asyncio.sleep(0.05)
        file = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{line}\n".encode())
        os.close(file)

    @app.orchestrator
    async def run(ctx: OrchestrationContext) -> str:
        await ctx.call_activity(note, ctx.instance_id)
        return ctx.instance_id

    @app.entity
    class Heart:
        beats: int = 0

        def beat(self) -> None:
            self.beats += 1

    app.schedule("beside", run, cron="* * * * * *", overlap="allow", catch_up="all")
    app.schedule("behind", run, cron="* * * * * *", overlap="buffer_all", catch_up="all")
    app.schedule("heart", entity="@heart@", operation="beat", interval=1, catch_up="all")
    return app


async def main() -> None:
    async with build_app(sys.argv[2]).host(sys.argv[1]):
        print("serving", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
