"""A run of a timer: the orchestrator that its schedule starts, and the activity that calls its function."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from durably.bindings.outlets import Outlets
from durably.client import Client
from durably.errors import HubClosedError, OperationError, UsageError
from durably.executors.time_limit import in_time
from durably.program.activity_context import ActivityContext
from durably.program.context import OrchestrationContext
from durably.program.registry import ActivityFunction, OrchestratorFunction
from durably.triggers.forgetting import Forgetting
from durably.triggers.giving_back import leave_to_the_next_host
from durably.triggers.timer_function import TIMER, TimerFunctions, TimerRequest

_log = logging.getLogger("durably.timer")


async def ring(ctx: OrchestrationContext, what: dict[str, Any]) -> str:
    """Call the function of a timer once. That it runs once for each occurrence sees its schedule to."""
    due = {"due": ctx.tags["schedule.time"], "past_due": "schedule.past_due" in ctx.tags}
    return await ctx.call_activity(TIMER, {**what, **due})


RINGING = OrchestratorFunction(ring, TIMER, "coroutine", None)
"""What hosts register it as."""


class TimerActivity:
    """The built-in activity of timers.

    Args:
        functions: Of the app.
        time_limit_s: See `EngineOptions.function_timeout_s`.
    """

    _client: Client
    _outlets: Outlets
    _forgetting: Forgetting

    def __init__(self, functions: TimerFunctions, time_limit_s: float) -> None:
        self._functions = functions
        self._time_limit_s = time_limit_s

    def connect(self, client: Client, outlets: Outlets, forgetting: Forgetting) -> None:
        """Say who its functions talk to, and who deletes what was dealt with; before the first run."""
        self._client = client
        self._outlets = outlets
        self._forgetting = forgetting

    def registered(self) -> ActivityFunction:
        """The activity, as an executor takes it."""
        return ActivityFunction(self.perform, TIMER, "coroutine", None, None)

    async def perform(self, data: dict[str, Any], context: ActivityContext) -> str:
        """Call the function of a timer; what it raises fails the run, which is kept then."""
        function = self._functions.of(data["function"])
        if function is None:
            _log.warning(
                "timer '%s' is due, and no function of this name is registered: delete its schedule with 'durably schedules "
                "delete timer:%s', or register the function",
                data["function"],
                data["function"],
            )
            self._forgetting.note(context.instance_id)
            await self._forgetting.forget_due()
            return "no such function"
        request = TimerRequest(
            datetime.fromisoformat(data["due"]),
            data["past_due"],
            await self._next(function.schedule_id),
            data["schedule"],
        )
        try:
            call = function.call(request, context.instance_id, self._client, self._outlets)
            await in_time(call, self._time_limit_s, f"Timer '{function.name}'")
        except HubClosedError:
            await leave_to_the_next_host()
        self._forgetting.note(context.instance_id)
        await self._forgetting.forget_due()
        return "done"

    async def _next(self, schedule_id: str) -> datetime | None:
        try:
            return (await self._client.schedules.describe(schedule_id)).next_time
        except (UsageError, OperationError):  # it was deleted meanwhile, or the hub says nothing now
            return None
