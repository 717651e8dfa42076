"""The part of a client that works with schedules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

import msgspec
from msgspec import UNSET, UnsetType

from durably.client.entities import page_start, page_token
from durably.client.scheduling import (
    Length,
    ScheduleRequest,
    action_of,
    length,
    moment,
    payload_text,
)
from durably.clock import Clock
from durably.codec.convert import Converter
from durably.core.commit import EntityRow
from durably.core.entities import EntityId
from durably.core.ids import check_text
from durably.core.messages import CallEntity
from durably.core.query import EntityQuery
from durably.errors import (
    EntityCorruptError,
    EntityOperationFailedError,
    HubNotFoundError,
    InvalidScheduleError,
    ScheduleAlreadyExistsError,
    ScheduleNotFoundError,
)
from durably.management import Management
from durably.program.durations import micros_of
from durably.program.registry import Registry
from durably.schedules import orders
from durably.schedules.description import (
    ScheduleDescription,
    SchedulePage,
    describe,
    describe_unreadable,
    state_of,
)
from durably.schedules.spec import SCHEDULE, CatchUp, Overlap, SpecChange, check_schedule_id, check_spec
from durably.schedules.state import ScheduleState

_PATIENCE_S = 60.0
"""So long a live host may take to answer."""


class Schedules:
    """The schedules of a hub: ``client.schedules``. Each is durable, and each occurrence runs exactly once.

    While a host serves the hub, calls return what it did. While none does, what is durable is accepted: the next host
    deals with it.
    """

    def __init__(
        self, management: Management, registry: Registry, converter: Converter, clock: Clock
    ) -> None:
        self._management = management
        self._registry = registry
        self._converter = converter
        self._clock = clock

    async def create(
        self,
        schedule_id: str,
        fn: Callable[..., Any] | str | None = None,
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
        paused: bool = False,
        note: str | None = None,
    ) -> None:
        """Create a schedule. It starts instances of an orchestrator, or signals an entity, from now on.

        The instance of an occurrence has the id ``{schedule_id}@{instant}``, such as ``nightly@2026-11-21T02:00:00Z``, and
        the tags ``schedule.id``, ``schedule.time``, ``schedule.kind``, and ``schedule.past_due`` when it comes late.

        Args:
            schedule_id: Its id; like those of instances, and at most 208 characters.
            fn: The orchestrator, or its name; or else give `entity` and `operation`.
            input: Of each instance, or of each operation.
            cron: When: ``{second} {minute} {hour} {day} {month} {day-of-week}`` (NCRONTAB). All fields must match.
            interval: Or every so often: a timedelta or seconds, 1 s at least, counted from `start_at`, else from now.
            time_zone: IANA name of the zone in which `cron` is meant. A time that is skipped when clocks are set forward
                comes due at the next valid instant; one that comes twice is due once when it is a fixed time, and each time
                when the expression means every so often (``*`` in the hours, or at the beginning of the minutes).
            start_at: No occurrence before (naive means UTC).
            end_at: No occurrence behind.
            jitter: Each occurrence comes later by up to so much; always the same for the same one.
            overlap: What to do while an instance that the schedule started still runs. ``"skip"`` leaves the occurrence
                out, ``"buffer_one"`` keeps one and ``"buffer_all"`` keeps all (1,000 at most) until it has ended,
                ``"cancel_other"`` and ``"terminate_other"`` end it first, ``"allow"`` starts beside it. Signals never
                overlap.
            catch_up: Of occurrences that are past due, which is later than 10 s, because no host served the hub:
                ``"latest"`` runs the newest one, ``"all"`` runs all in their order, ``"skip"`` none.
            catch_up_window: Those that are later than this are not made up for; without end by default.
            version: Of the instances; see `Client.start`.
            tags: Of the instances.
            entity: What to signal.
            operation: What to ask it for.
            paused: It waits for `resume`.
            note: For people.

        Raises:
            ScheduleAlreadyExistsError: There is one of this id.
            InvalidScheduleError: It can never work; the message says why.
            InvalidIdError: The id is not usable.
            PayloadError: The input cannot become JSON.
        """
        request = ScheduleRequest(
            schedule_id=schedule_id,
            fn=fn,
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
        check_text(note, "note")
        spec = request.spec(self._registry, self._converter)
        await self._order(schedule_id, orders.CREATE, orders.CreateOrder(spec, bool(paused), note))

    async def update(
        self,
        schedule_id: str,
        fn: Callable[..., Any] | str | None = None,
        input: Any = UNSET,
        *,
        cron: str | UnsetType = UNSET,
        interval: Length | UnsetType = UNSET,
        time_zone: str | UnsetType = UNSET,
        start_at: datetime | UnsetType | None = UNSET,
        end_at: datetime | UnsetType | None = UNSET,
        jitter: Length | UnsetType = UNSET,
        overlap: Overlap | UnsetType = UNSET,
        catch_up: CatchUp | UnsetType = UNSET,
        catch_up_window: Length | UnsetType | None = UNSET,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        entity: EntityId | str | None = None,
        operation: str | None = None,
    ) -> None:
        """Change what is given, and nothing else; see `create` for what it means.

        What was due before is dealt with as it was. A schedule that comes due at other times does so from now on. What it
        has counted, what runs and waits, and whether it is paused, stays. A schedule of code is as declared again when the
        next host starts.

        Args:
            schedule_id: The schedule.
            fn: It starts this from now on; with `version` and `tags`, and without an input unless `input` is given.
            input: Of what it starts or signals.
            cron: In the place of an interval, too.
            interval: In the place of a cron expression, too.
            time_zone: See `create`, as the others.
            start_at: None: at once.
            end_at: None: never.
            jitter: 0: none.
            overlap: See `create`.
            catch_up: See `create`.
            catch_up_window: None: without end.
            version: With `fn`.
            tags: With `fn`.
            entity: It signals this from now on; with `operation`.
            operation: With `entity`.

        Raises:
            ScheduleNotFoundError: There is none.
            InvalidScheduleError: It could never work; it stays as it is.
        """
        given: dict[str, Any] = {}
        if fn is not None or entity is not None or operation is not None:
            given["action"] = action_of(
                schedule_id,
                self._registry,
                self._converter,
                fn=fn,
                input=None if input is UNSET else input,
                entity=entity,
                operation=operation,
                version=version,
                tags=tags,
            )
        elif version is not None or tags is not None:
            raise InvalidScheduleError(
                f"Schedule '{schedule_id}' gets a version or tags without an orchestrator: expected fn, too"
            )
        elif input is not UNSET:
            given["input"] = payload_text(input, self._converter)
        if cron is not UNSET and interval is not UNSET:
            raise InvalidScheduleError(
                f"Schedule '{schedule_id}' has both cron and interval: expected one of the two"
            )
        if cron is not UNSET:
            given |= {"cron": cron, "interval": None}
        if interval is not UNSET:
            zone = "UTC" if time_zone is UNSET else time_zone
            given |= {"cron": None, "interval": length(interval, "interval"), "time_zone": zone}
        for key, instant in (("start_at", start_at), ("end_at", end_at)):
            if instant is not UNSET:
                given[key] = moment(instant, key)
        if jitter is not UNSET:
            given["jitter"] = length(jitter, "jitter") or 0
        if catch_up_window is not UNSET:
            given["catch_up_window"] = length(catch_up_window, "catch_up_window")
        plain = {"time_zone": time_zone, "overlap": overlap, "catch_up": catch_up}
        given |= {key: value for key, value in plain.items() if value is not UNSET}
        change = SpecChange(**given)
        state = await self._find(schedule_id)
        if state is not None:  # what nobody can accept is found here, before it is sent
            check_spec(change.applied(state.spec), schedule_id)
        await self._order(schedule_id, orders.UPDATE, orders.UpdateOrder(change))

    async def pause(self, schedule_id: str, note: str | None = None) -> None:
        """Let no occurrence run until `resume`; those that come due meanwhile are lost. What runs goes on. Idempotent.

        Args:
            schedule_id: The schedule.
            note: Why, for people.

        Raises:
            ScheduleNotFoundError: There is none.
        """
        check_text(note, "note")
        await self._order(schedule_id, orders.PAUSE, orders.NoteOrder(note))

    async def resume(self, schedule_id: str, note: str | None = None) -> None:
        """Let occurrences run again, from now on. Idempotent. Raises as `pause`."""
        check_text(note, "note")
        await self._order(schedule_id, orders.RESUME, orders.NoteOrder(note))

    async def trigger(self, schedule_id: str, *, overlap: Overlap | None = None) -> str | None:
        """Run it now, paused or not, once more than its occurrences.

        Args:
            schedule_id: The schedule.
            overlap: In the place of its own policy.

        Returns:
            The id of the instance, which may have to wait for the end of another one. None: the policy left it out, it
            signals an entity, or no host serves the hub yet.

        Raises:
            ScheduleNotFoundError: There is none.
        """
        result = await self._order(schedule_id, orders.TRIGGER, orders.TriggerOrder(overlap))
        return None if result is None else msgspec.json.decode(result, type=str | None)

    async def backfill(
        self, schedule_id: str, start: datetime, end: datetime, *, at_once: bool = False
    ) -> None:
        """Run the occurrences of a past range, each once, paused or not; also those before the schedule was created.

        One after the other, each when nothing of the schedule runs; its own occurrences meet them as its policy says. An
        occurrence is known by the id of its instance: one that is in the hub, running or ended, is not started again.
        Signals have no such id, and are sent for each occurrence of the range.

        Args:
            schedule_id: The schedule.
            start: Of the range, included (naive means UTC).
            end: Of the range, included; not in the future.
            at_once: Do not wait for the end of one before the next.

        Raises:
            ScheduleNotFoundError: There is none.
            InvalidScheduleError: The range ends before it starts, or in the future; or 100 backfills are under way.
        """
        first, last = micros_of(start), micros_of(end)
        if last < first:
            raise InvalidScheduleError(
                f"The backfill of schedule '{schedule_id}' ends before it starts: expected an end behind the start"
            )
        order = orders.BackfillOrder(first, last, bool(at_once))
        await self._order(schedule_id, orders.BACKFILL, order)

    async def delete(self, schedule_id: str) -> None:
        """Delete a schedule. What it has started goes on. One that code declares is made anew when the next host starts.

        Raises:
            ScheduleNotFoundError: There is none.
        """
        await self._order(schedule_id, orders.DELETE, orders.NoInput())

    async def describe(self, schedule_id: str) -> ScheduleDescription:
        """A schedule, as of its last committed change.

        Raises:
            ScheduleNotFoundError: There is none.
            EntityCorruptError: Its row cannot be read.
        """
        state = await self._find(schedule_id)
        if state is None:
            raise ScheduleNotFoundError(schedule_id)
        return describe(schedule_id, state)

    async def list(
        self, *, prefix: str = "", page_size: int = 100, continuation_token: str | None = None
    ) -> SchedulePage:
        """All schedules, page by page, in the order of their ids.

        Args:
            prefix: Their ids begin with it.
            page_size: 1 to 1,000.
            continuation_token: From the page before.

        Raises:
            UsageError: A value is out of its range.
        """
        query = EntityQuery(
            name=SCHEDULE,
            prefix=f"@{SCHEDULE}@{prefix}",
            page_size=page_size,
            after=page_start(continuation_token),
        )
        found = await self._management.query_entities(query)
        schedules = [shown for row in found.rows if (shown := _shown(row)) is not None]
        token = None if found.next_after is None else page_token(found.next_after)
        return SchedulePage(schedules, token)

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _find(self, schedule_id: str) -> ScheduleState | None:
        return state_of(await self._management.get_entity(_entity(schedule_id)))

    async def _order(self, schedule_id: str, operation: str, order: Any) -> bytes | None:
        entity, payload = _entity(schedule_id), msgspec.json.encode(order)
        creates = operation == orders.CREATE
        if await self._is_served(creates=creates):
            call = CallEntity(operation, payload, wanted=True)
            try:
                return await self._management.call_entity(entity, call, _PATIENCE_S)
            except EntityOperationFailedError as error:
                _raise(schedule_id, error)
        await self._refuse_at_once(schedule_id, creates=creates)
        await self._management.signal_entity(entity, CallEntity(operation, payload))
        return None

    async def _refuse_at_once(self, schedule_id: str, *, creates: bool) -> None:
        """What the next host would certainly refuse: nobody could be told then."""
        try:
            exists = await self._find(schedule_id) is not None
        except HubNotFoundError:
            exists = False
        if creates and exists:
            raise ScheduleAlreadyExistsError(schedule_id)
        if not creates and not exists:
            raise ScheduleNotFoundError(schedule_id)

    async def _is_served(self, *, creates: bool) -> bool:
        try:
            return await self._management.is_served()
        except HubNotFoundError:
            if creates:  # the message will create it
                return False
            raise


def _entity(schedule_id: str) -> str:
    return str(EntityId(SCHEDULE, check_schedule_id(schedule_id)))


def _shown(row: EntityRow) -> ScheduleDescription | None:
    schedule_id = EntityId.parse(row.instance_id).key
    try:
        state = state_of(row)
    except EntityCorruptError as error:
        return describe_unreadable(schedule_id, row, str(error))
    return None if state is None else describe(schedule_id, state)


def _raise(schedule_id: str, error: EntityOperationFailedError) -> NoReturn:
    match error.details.type:
        case ScheduleNotFoundError.__name__:
            raise ScheduleNotFoundError(schedule_id) from None
        case ScheduleAlreadyExistsError.__name__:
            raise ScheduleAlreadyExistsError(schedule_id) from None
        case InvalidScheduleError.__name__:
            raise InvalidScheduleError(error.details.message) from None
        case _:
            raise error
