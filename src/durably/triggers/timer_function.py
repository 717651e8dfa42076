"""Functions that run at certain times."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from durably.bindings.function import Source, UserFunction, is_client
from durably.bindings.outlets import Outlets
from durably.bindings.placeholders import Occasion
from durably.client import Client
from durably.client.scheduling import ScheduleRequest
from durably.codec.convert import Converter
from durably.config.names import filled
from durably.errors import RegistrationError
from durably.program.durations import micros_of
from durably.program.registry import Registry
from durably.schedules.spec import Spec
from durably.triggers.functions import TriggerFunctions

TIMER: Final = "durably:timer"
"""The orchestrator that a schedule of a timer starts, and the activity that calls its function."""

_SPAN = re.compile(r"(?:(\d{1,6})\.)?(\d{1,2}):(\d{2}):(\d{2})")


class TimerRequest(msgspec.Struct, frozen=True):
    """Why a timer function is called.

    Attributes:
        due: When it was due (aware, UTC); when it was asked for, of one that somebody triggered.
        past_due: It is late: no host ran when it was due.
        next: When it is due next (aware, UTC), or None.
        schedule: The schedule as it was written, settings filled in.
    """

    due: datetime
    past_due: bool
    next: datetime | None
    schedule: str


class Ringing(NamedTuple):
    """A call of a timer function."""

    request: TimerRequest
    client: Client


_SOURCES: Final = (
    Source[Ringing](is_client, lambda ringing, _: ringing.client),
    Source[Ringing](
        lambda one: one.kind is TimerRequest or (one.kind is Any and not one.place),
        lambda ringing, _: ringing.request,
    ),
)


class TimerFunction:
    """A function that runs at certain times.

    Attributes:
        name: Its name.
        run_on_startup: Also whenever a host starts.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        schedule: str,
        *,
        name: str | None,
        time_zone: str,
        run_on_startup: bool,
        use_monitor: bool,
    ) -> None:
        self._function = UserFunction(
            fn,
            name,
            what="Timer",
            act="run {} at times",
            sources=_SOURCES,
            expected="TimerRequest and Client",
        )
        self.name = self._function.name
        if self._function.bare > 2:
            raise RegistrationError(
                f"Timer '{self.name}' has {self._function.bare} parameters: expected TimerRequest and Client"
            )
        self.run_on_startup = run_on_startup
        self._written = schedule
        self._time_zone = time_zone
        self._use_monitor = use_monitor

    @property
    def schedule_id(self) -> str:
        """The id of its schedule."""
        return f"timer:{self.name}"

    def spec(
        self, registry: Registry, converter: Converter, settings: Mapping[str, str] | None = None
    ) -> Spec:
        """Its schedule as it is stored.

        Args:
            registry: Of the app.
            converter: Of the app.
            settings: For ``%NAME%``; the environment by default.

        Raises:
            RegistrationError: A setting is not there.
            UsageError: See `ScheduleRequest.spec`.
        """
        text = filled(self._written, f"Timer '{self.name}'", settings)
        span = _SPAN.fullmatch(text.strip())
        days, hours, minutes, seconds = (int(part or 0) for part in span.groups()) if span else (0, 0, 0, 0)
        interval = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        return ScheduleRequest(
            schedule_id=self.schedule_id,
            fn=TIMER,
            input={"function": self.name, "schedule": text},
            entity=None,
            operation=None,
            cron=None if span else text,
            interval=interval if span else None,
            time_zone="UTC" if span else self._time_zone,
            start_at=None,
            end_at=None,
            jitter=0,
            overlap="skip",
            catch_up="latest" if self._use_monitor else "skip",
            catch_up_window=None,
            version="",
            tags=None,
        ).spec(registry, converter)

    def check(self, outlets: Outlets) -> None:
        """See `UserFunction.check`."""
        self._function.check(outlets, ())

    async def call(self, request: TimerRequest, run: str, client: Client, outlets: Outlets) -> None:
        """Call the function; what it returns is dropped.

        Args:
            request: Why it is called.
            run: The instance that calls it: for each time that it is due, there is one.
            client: What it gets.
            outlets: Where its outputs go.
        """
        occasion = Occasion(f"timer:{run}:{request.due.isoformat()}", micros_of(request.due), dict[str, Any])
        await self._function.call(Ringing(request, client), outlets, occasion)


class TimerFunctions(TriggerFunctions[TimerFunction]):
    """Registered timer functions, by name."""

    def key_of(self, function: TimerFunction) -> str:
        return function.name

    def refuse(self, function: TimerFunction, taken: TimerFunction) -> RegistrationError:
        return RegistrationError(f"Timer '{function.name}' is registered already: give one of them name=…")
