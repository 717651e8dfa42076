"""Schedules in code: the part of an `App` that declares them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar, overload

from durably.client.scheduling import Length, ScheduleRequest
from durably.codec.convert import Converter
from durably.core.entities import EntityId
from durably.errors import RegistrationError
from durably.program.registry import Registry
from durably.schedules.spec import CatchUp, Overlap, Spec

F = TypeVar("F", bound=Callable[..., Any])


class Schedulable:
    """Takes declarations of schedules."""

    _registry: Registry
    _converter: Converter

    def __init__(self) -> None:
        super().__init__()
        self._schedules: dict[str, ScheduleRequest] = {}

    @overload
    def schedule(
        self,
        schedule_id: str,
        /,
        *,
        input: Any = None,
        cron: str | None = None,
        interval: Length | None = None,
        time_zone: str = "UTC",
        start_at: datetime | None = None,
        end_at: datetime | None = None,
        jitter: Length = 0,
        overlap: Overlap = "skip",
        catch_up: CatchUp = "latest",
        catch_up_window: Length | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> Callable[[F], F]: ...

    @overload
    def schedule(
        self,
        schedule_id: str,
        fn: Callable[..., Any] | str | None = None,
        /,
        input: Any = None,
        *,
        cron: str | None = None,
        interval: Length | None = None,
        time_zone: str = "UTC",
        start_at: datetime | None = None,
        end_at: datetime | None = None,
        jitter: Length = 0,
        overlap: Overlap = "skip",
        catch_up: CatchUp = "latest",
        catch_up_window: Length | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        entity: EntityId | str | None = None,
        operation: str | None = None,
    ) -> Any: ...

    def schedule(
        self,
        schedule_id: str,
        fn: Callable[..., Any] | str | None = None,
        /,
        input: Any = None,
        *,
        cron: str | None = None,
        interval: Length | None = None,
        time_zone: str = "UTC",
        start_at: datetime | None = None,
        end_at: datetime | None = None,
        jitter: Length = 0,
        overlap: Overlap = "skip",
        catch_up: CatchUp = "latest",
        catch_up_window: Length | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        entity: EntityId | str | None = None,
        operation: str | None = None,
    ) -> Any:
        """Declare a schedule: each host of the app sees to it, when it starts, that the hub has it like this.

        Over an orchestrator, or with one, or with an entity and an operation::

            @app.schedule("nightly", cron="0 0 2 * * *", time_zone="Europe/Berlin")
            @app.orchestrator
            async def report(ctx): ...

            app.schedule("heartbeat", entity="@monitor@main", operation="beat", interval=30)

        One that is as declared is left alone, whatever number of hosts start; one that differs becomes as declared and keeps
        what it counted, what runs, and whether it is paused. One that is not declared any more goes on and says so
        (`ScheduleDescription.declared`), until a client deletes it.

        Args:
            schedule_id: Its id.
            fn: The orchestrator, or its name.
            input: See `Schedules.create`, as all others.
            cron: NCRONTAB, of six fields; or
            interval: every so often.
            time_zone: Of `cron`.
            start_at: No occurrence before.
            end_at: No occurrence behind.
            jitter: Each comes later by up to so much.
            overlap: What to do while an instance still runs.
            catch_up: Which past due occurrences run.
            catch_up_window: Those that are later than this do not.
            version: Of the instances.
            tags: Of the instances.
            entity: What to signal, in the place of a start.
            operation: What to ask it for.

        Returns:
            A decorator, when there is neither an orchestrator nor an entity; else None.

        Raises:
            RegistrationError: The id is taken in this app.
            InvalidScheduleError: It can never work; the message says why.
        """

        def register(function: Callable[..., Any] | str | None) -> Any:
            request = ScheduleRequest(
                schedule_id=schedule_id,
                fn=function,
                input=input,
                entity=entity,
                operation=operation,
                cron=cron,
                interval=interval,
                time_zone=time_zone,
                start_at=start_at,
                end_at=end_at,
                jitter=jitter,
                overlap=overlap,
                catch_up=catch_up,
                catch_up_window=catch_up_window,
                version=version,
                tags=tags,
            )
            request.spec(self._registry, self._converter)
            if schedule_id in self._schedules:
                raise RegistrationError(
                    f"Schedule '{schedule_id}' is declared twice: expected one for an id; pass another one"
                )
            self._schedules[schedule_id] = request
            return function

        if fn is None and entity is None and operation is None:
            return register
        register(fn)
        return None

    @property
    def schedules(self) -> dict[str, Spec]:
        """What has been declared, by id, as it is stored."""
        return {
            schedule_id: request.spec(self._registry, self._converter)
            for schedule_id, request in self._schedules.items()
        }

    def _check_schedules(self, other: Schedulable) -> None:
        for schedule_id, request in other._schedules.items():
            if self._schedules.get(schedule_id, request) is not request:
                raise RegistrationError(
                    f"Schedule '{schedule_id}' is declared in both apps: expected one for an id; rename one of them"
                )

    def _merge_schedules(self, other: Schedulable) -> None:
        self._schedules |= other._schedules
