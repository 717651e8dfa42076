"""Functions that run at certain times."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import msgspec

from durably.client import Client
from durably.client.scheduling import ScheduleRequest
from durably.codec.convert import Converter
from durably.errors import RegistrationError
from durably.program.registry import Registry, name_of
from durably.program.signatures import Signature
from durably.schedules.spec import Spec
from durably.triggers.functions import TriggerFunctions

TIMER: Final = "durably:timer"
"""The orchestrator that a schedule of a timer starts, and the activity that calls its function."""

_SETTING = re.compile(r"%(\w+)%")
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
        if not callable(fn) or inspect.isclass(fn):
            raise RegistrationError(f"Cannot run {fn!r} at times: expected a function")
        self.fn = fn
        self.name = name_of(fn) if name is None else name
        self.run_on_startup = run_on_startup
        self._written = schedule
        self._time_zone = time_zone
        self._use_monitor = use_monitor
        self._signature = Signature(fn, self.name)
        self._check_parameters()

    @property
    def schedule_id(self) -> str:
        """The id of its schedule."""
        return f"timer:{self.name}"

    @property
    def schedule(self) -> str:
        """As it was written, with settings filled in.

        Raises:
            RegistrationError: A setting is not there.
        """

        def setting(match: re.Match[str]) -> str:
            value = os.environ.get(match.group(1))
            if not value:
                raise RegistrationError(
                    f"Timer '{self.name}' takes its schedule from the setting {match.group(1)}, which is not set: expected an "
                    "environment variable of this name"
                )
            return value

        return _SETTING.sub(setting, self._written)

    def spec(self, registry: Registry, converter: Converter) -> Spec:
        """Its schedule as it is stored. Raises as `ScheduleRequest.spec`."""
        text = self.schedule
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

    @cached_property
    def _plan(self) -> list[tuple[str, str]]:
        plan: list[tuple[str, str]] = []
        for one in self._signature.parameters:
            if one.kind in {one.VAR_POSITIONAL, one.VAR_KEYWORD}:
                continue
            kind = self._signature.type_of(one.name)
            if inspect.isclass(kind) and issubclass(kind, Client):
                plan.append((one.name, "client"))
            elif kind is TimerRequest or (kind is Any and not plan):
                plan.append((one.name, "timer"))
            else:
                raise RegistrationError(
                    f"Timer '{self.name}' has the parameter '{one.name}', which nothing would fill: expected TimerRequest and "
                    "Client"
                )
        return plan

    def _check_parameters(self) -> None:
        if len(self._signature.parameters) > 2:
            raise RegistrationError(
                f"Timer '{self.name}' has {len(self._signature.parameters)} parameters: expected TimerRequest and Client"
            )

    def check(self) -> None:
        """Find out at the start of a host what would fail when it is due.

        Raises:
            RegistrationError: A parameter that nothing would fill.
        """
        _ = self._plan

    async def call(self, request: TimerRequest, client: Client) -> None:
        """Call the function; what it returns is dropped."""
        arguments = {name: client if source == "client" else request for name, source in self._plan}
        if inspect.iscoroutinefunction(self.fn):
            await self.fn(**arguments)
            return
        returned = await asyncio.to_thread(self.fn, **arguments)
        if inspect.isawaitable(returned):
            await returned


class TimerFunctions(TriggerFunctions[TimerFunction]):
    """Registered timer functions, by name."""

    def key_of(self, function: TimerFunction) -> str:
        return function.name

    def refuse(self, function: TimerFunction, taken: TimerFunction) -> RegistrationError:
        return RegistrationError(f"Timer '{function.name}' is registered already: give one of them name=…")
