"""Client: starts, follows and controls instances."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Concatenate, Literal, Protocol, Self, TypeVar, Unpack, overload

import msgspec

from durably.client.bulk import APPLIES_TO, BulkResult, Operation, Progress, bulk
from durably.client.connection import Connection
from durably.client.control import ControlVerbs
from durably.client.handle import Handle
from durably.client.outside import OutsideOperations
from durably.client.parked import ParkedVerbs
from durably.client.selection import Filters, Statuses, selection
from durably.clock import Clock, Random, SystemClock, SystemRandom
from durably.codec.convert import Converter, JsonConverter
from durably.core.commit import InstanceRow
from durably.core.history import decode_failure
from durably.core.ids import check_tags, check_text
from durably.core.messages import Restart, StartInstance
from durably.core.query import FIRST, place_of, token_of
from durably.core.status import InstancePage, InstanceStatus, Outcome, RuntimeStatus
from durably.core.timeline import HistoryEntry, instant, timeline
from durably.core.why import needs_history, open_children, why
from durably.errors import FailureDetails, InstanceNotFoundError, OrchestrationFailedError, UsageError
from durably.management import Management
from durably.program.context import OrchestrationContext
from durably.program.durations import micros_of, microseconds
from durably.program.registry import Registry
from durably.storage.api import Store

R = TypeVar("R")
OnExisting = Literal["replace_finished", "fail", "replace", "attach"]

_CHILDREN_READ_MAX = 100
"""Open children that `why` looks at: one of them in trouble is worth finding, all of ten thousand are not."""

_decode_plain = msgspec.json.Decoder().decode
_decode_tags = msgspec.json.Decoder(dict[str, str]).decode


class Functions(Protocol):
    """What a client takes of an `App`: names and types of functions, and how payloads become JSON."""

    @property
    def registry(self) -> Registry:
        """What has been registered, by name."""
        ...

    @property
    def converter(self) -> Converter:
        """What turns values into payloads and back."""
        ...


class Client(ControlVerbs, ParkedVerbs):
    """Starts, follows and controls instances. Every call that changes something returns once the change is durable.

    ``host.client`` is that of a host in this process. In a process without one, a client talks to the hub alone::

        async with Client("sqlite:///hub.db") as client:
            handle = await client.start("process_order", {"id": 7}, instance_id="order-7")

    While a host serves the hub, calls do and raise what they do in its process. While none does, what is durable is
    accepted: the next host deals with it. A hub that does not exist is created by the first start; any other call raises
    `HubNotFoundError`. Safe to use from many tasks of one event loop at once.

    Args:
        hub: ``"sqlite:///hub.db"`` (a relative path), ``"sqlite:////data/hub.db"`` (an absolute one), or a store that is
            not open.
        app: Whose functions are started: gives names and result types. Without it functions are known by their names, and
            results are plain JSON data.
        converter: Turns values into payloads and back; that of the app, or JSON, by default.
    """

    def __init__(
        self, hub: str | Store, *, app: Functions | None = None, converter: Converter | None = None
    ) -> None:
        connection = Connection(hub)
        clock, random = SystemClock(), SystemRandom()
        if converter is None:
            converter = JsonConverter() if app is None else app.converter
        self._attach(
            OutsideOperations(connection, clock, random),
            Registry() if app is None else app.registry,
            converter,
            clock,
            random,
            connection=connection,
        )

    @classmethod
    def of(
        cls, management: Management, registry: Registry, converter: Converter, clock: Clock, random: Random
    ) -> Client:
        """The client of something that is connected already: a host makes its own so."""
        client = cls.__new__(cls)
        client._attach(management, registry, converter, clock, random)
        return client

    def _attach(
        self,
        management: Management,
        registry: Registry,
        converter: Converter,
        clock: Clock,
        random: Random,
        *,
        connection: Connection | None = None,
    ) -> None:
        self._management = management
        self._registry = registry
        self._converter = converter
        self._clock = clock
        self._random = random
        self._connection = connection

    async def __aenter__(self) -> Self:
        if self._connection is not None:
            await self._connection.try_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the hub; whoever still waits gets `HubClosedError`. Idempotent. The client of a host: does nothing."""
        if self._connection is not None:
            await self._connection.close()

    # --- start -------------------------------------------------------------------------------------------------------

    @overload
    async def start(
        self,
        fn: Callable[Concatenate[OrchestrationContext, ...], Awaitable[R]],
        input: Any = None,
        *,
        instance_id: str | None = None,
        start_at: datetime | timedelta | float | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        on_existing: OnExisting = "replace_finished",
    ) -> Handle[R]: ...

    @overload
    async def start(
        self,
        fn: Callable[Concatenate[OrchestrationContext, ...], Generator[Any, Any, R]],
        input: Any = None,
        *,
        instance_id: str | None = None,
        start_at: datetime | timedelta | float | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        on_existing: OnExisting = "replace_finished",
    ) -> Handle[R]: ...

    @overload
    async def start(
        self,
        fn: Callable[..., Any] | str,
        input: Any = None,
        *,
        instance_id: str | None = None,
        start_at: datetime | timedelta | float | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        on_existing: OnExisting = "replace_finished",
    ) -> Handle[Any]: ...

    async def start(
        self,
        fn: Callable[..., Any] | str,
        input: Any = None,
        *,
        instance_id: str | None = None,
        start_at: datetime | timedelta | float | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        on_existing: OnExisting = "replace_finished",
    ) -> Handle[Any]:
        """Start an orchestration.

        Args:
            fn: The orchestrator, or its name.
            input: Its input, any value that becomes JSON.
            instance_id: Its id, at most 256 characters; 32 random hex digits by default.
            start_at: Not before this instant (naive means UTC), or this long from now; it is Pending until then.
            version: The version it keeps for its whole life.
            tags: Text by text, to find it by.
            on_existing: What to do when the id is taken. ``"replace_finished"`` replaces an instance that has ended and
                refuses otherwise; ``"fail"`` refuses; ``"replace"`` terminates and replaces; ``"attach"`` returns a
                handle of the one that is there. Of two starts at the same time with one new id, one wins.

        Returns:
            A handle, once the start is durable.

        Raises:
            InstanceAlreadyExistsError: The id is taken and the policy refuses.
            UnknownFunctionError: The host serves no such orchestrator.
            PayloadError: The input cannot become JSON.
            InvalidIdError: The id is not usable.
        """
        function = self._registry.orchestrator(fn, version) or self._registry.orchestrator(fn)
        name = function.name if function is not None else self._registry.orchestrator_name(fn)
        check_text(version, "version")
        fresh = instance_id is None
        target = self._random.token() if instance_id is None else instance_id
        start = StartInstance(
            name,
            None if input is None else self._converter.encode(input),
            self._random.token(),
            version,
            None,
            check_tags(tags),
            None if start_at is None else self._instant(start_at),
            on_existing,
            fresh,
        )
        await self._management.start(target, start)
        return Handle(self, target, Any if function is None else function.result_type)

    def handle(self, instance_id: str, returns: Any = Any) -> Handle[Any]:
        """A handle of an instance, without looking whether it exists.

        Args:
            instance_id: Its id.
            returns: The type of its result; plain JSON data by default.
        """
        return Handle(self, instance_id, returns)

    # --- follow ------------------------------------------------------------------------------------------------------

    async def get_status(self, instance_id: str) -> InstanceStatus | None:
        """The committed status of an instance, or None when there is none of this id."""
        row = await self._management.get(instance_id)
        return None if row is None else _status(row)

    async def wait_for_completion(
        self,
        instance_id: str,
        timeout: timedelta | float | None = None,
    ) -> InstanceStatus:
        """The status of an instance, once it has ended, however that was.

        Args:
            instance_id: Its id.
            timeout: How long to wait (timedelta or seconds); for ever by default. The instance goes on after it.

        Raises:
            InstanceNotFoundError: No such instance.
            TimeoutError: It has not ended in time.
        """
        return _status(await self._management.wait(instance_id, _seconds(timeout)))

    async def result_of(
        self, instance_id: str, returns: Any, timeout: timedelta | float | None = None
    ) -> Any:
        """What `Handle.result` returns, for an id and a type."""
        outcome = await self._management.outcome(instance_id, _seconds(timeout))
        if outcome.status == RuntimeStatus.Completed.value:
            return None if outcome.output is None else self._converter.decode(outcome.output, returns)
        raise OrchestrationFailedError(instance_id, outcome.status, _failure(outcome))

    async def query_instances(
        self,
        *,
        name: str | None = None,
        runtime_status: Statuses | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        updated_to: datetime | None = None,
        instance_id_prefix: str | None = None,
        tags: dict[str, str] | None = None,
        stuck: bool | None = None,
        page_size: int = 100,
        continuation_token: str | None = None,
        parent_instance_id: str | None = None,
    ) -> InstancePage:
        """Instances that match all filters, in the order of their creation, page by page.

        Walking all pages visits every instance that existed throughout exactly once.

        Args:
            name: Of the orchestrator.
            runtime_status: One status, or several.
            created_from: Created at or after (naive means UTC).
            created_to: Created at or before.
            updated_to: Last updated at or before; of a finished instance: when it ended.
            instance_id_prefix: The id begins with it.
            tags: All of these, with these values.
            stuck: True: only instances that are blocked or parked; False: only others.
            page_size: 1 to 1,000.
            continuation_token: Of the page before.
            parent_instance_id: Children that this instance called; not those that it started without waiting for them.

        Raises:
            UsageError: A filter is out of its range, or the token is not one of ours.
        """
        filters = Filters(
            name=name,
            runtime_status=runtime_status,
            created_from=created_from,
            created_to=created_to,
            updated_to=updated_to,
            instance_id_prefix=instance_id_prefix,
            tags=tags,
            parent_instance_id=parent_instance_id,
            stuck=stuck,
        )
        after = FIRST if continuation_token is None else place_of(continuation_token)
        query = selection(filters, page_size=page_size, after=after)
        found = await self._management.query(query)
        token = None if found.next_after is None else token_of(found.next_after)
        return InstancePage([_status(row) for row in found.rows], token)

    async def get_history(self, instance_id: str) -> list[HistoryEntry]:
        """The committed history of the current execution.

        Raises:
            InstanceNotFoundError: No such instance.
            HistoryCorruptError: Its rows do not match their checksums.
        """
        return timeline(await self._management.history(instance_id))

    async def is_served(self) -> bool:
        """True when a live host serves the hub. While none does, what is asked for is kept for the next one.

        Raises:
            HubNotFoundError: There is no hub.
        """
        return await self._management.is_served()

    async def why(self, instance_id: str) -> str:
        """What an instance waits for, or how it ended, in one sentence for people.

        Raises:
            InstanceNotFoundError: No such instance.
            HistoryCorruptError: Its rows do not match their checksums.
        """
        row = await self._management.get(instance_id)
        if row is None:
            raise InstanceNotFoundError(instance_id)
        served = await self._management.is_served()
        if not needs_history(row):
            return why(row, [], self._clock.now(), served=served)
        events = await self._management.history(instance_id)
        children: dict[str, InstanceRow] = {}
        for child_id in open_children(row, events)[:_CHILDREN_READ_MAX]:
            child = await self._management.get(child_id)
            if child is not None:
                children[child_id] = child
        return why(row, events, self._clock.now(), children=children, served=served)

    # --- once more ---------------------------------------------------------------------------------------------------

    async def restart(
        self, instance_id: str, *, new_instance_id: bool = False, reason: str | None = None
    ) -> Handle[Any]:
        """Start an instance once more, from the beginning: with the same name, version, input and tags.

        Args:
            instance_id: The instance. One that continued as new starts with the input of its current execution.
            new_instance_id: False: the new instance takes the place of the old one, which must have ended. True: it gets
                a random id of its own, and the old one stays, running or not.
            reason: For people; in the history of the new instance.

        Returns:
            A handle of the new instance, once its start is durable.

        Raises:
            InstanceNotFoundError: No such instance.
            InstanceStateError: It has not ended, and its id is wanted.
            UnknownFunctionError: The host serves no such orchestrator.
        """
        check_text(reason, "reason")
        row = await self._management.get(instance_id)
        if row is None:
            raise InstanceNotFoundError(instance_id)
        function = self._registry.orchestrator(row.name, row.version) or self._registry.orchestrator(row.name)
        returns = Any if function is None else function.result_type
        if not new_instance_id:
            await self._management.restart(instance_id, Restart(self._random.token(), reason))
            return Handle(self, instance_id, returns)
        target = self._random.token()
        start = StartInstance(
            row.name,
            row.input,
            self._random.token(),
            row.version,
            tags=_decode_tags(row.tags) if row.tags else None,
            fresh=True,
            reason=reason,
        )
        await self._management.start(target, start)
        return Handle(self, target, returns)

    # --- many at once ------------------------------------------------------------------------------------------------

    async def bulk(
        self,
        operation: Operation,
        *,
        reason: str | None = None,
        dry_run: bool = False,
        max_in_flight: int = 100,
        share: float = 0.2,
        progress: Progress | None = None,
        **filters: Unpack[Filters],
    ) -> BulkResult:
        """Carry out an operation on all instances that match; it goes on after failures.

        Each instance is dealt with durably and for itself: an operation that is interrupted can be repeated. Without a
        status among the filters, the instances that the operation is for are meant: ``"purge"`` finished ones,
        ``"terminate"`` and ``"cancel"`` those that have not ended, ``"resume"`` suspended ones, and so on.

        Args:
            operation: ``"purge"``, ``"terminate"``, ``"cancel"``, ``"suspend"``, ``"resume"``, ``"rewind"``, ``"restart"``.
            reason: Recorded with each, where the operation has one.
            dry_run: Only count.
            max_in_flight: How many at once: they become durable together, which is what makes many of them cheap.
            share: Of the time, so much at most: the rest is left to the other work of the hub. 1 for as fast as it can.
            progress: Called with the result so far after each page of 500.
            filters: See `Filters`.

        Raises:
            UsageError: A filter is out of its range, or there is no such operation.
        """
        applies_to = APPLIES_TO.get(operation)
        if applies_to is None:
            raise UsageError(f"Bulk operation is {operation!r}: expected one of {', '.join(APPLIES_TO)}")
        if filters.get("runtime_status") is None:
            filters["runtime_status"] = applies_to
        check_text(reason, "reason")
        verb = getattr(self, operation)
        with_reason = operation != "purge"

        async def operate(instance_id: str) -> object:
            return await (verb(instance_id, reason=reason) if with_reason else verb(instance_id))

        return await bulk(
            self._management.query,
            operate,
            selection(filters),
            dry_run=dry_run,
            max_in_flight=max_in_flight,
            share=share,
            progress=progress,
        )

    async def purge_instances(
        self, *, dry_run: bool = False, progress: Progress | None = None, **filters: Unpack[Filters]
    ) -> BulkResult:
        """Delete all finished instances that match, with their histories; `done` is their number. See `bulk`."""
        return await self.bulk("purge", dry_run=dry_run, progress=progress, **filters)

    def _instant(self, when: datetime | timedelta | float) -> int:
        if isinstance(when, datetime):
            return micros_of(when)
        now = self._clock.now()
        try:
            delay = when if isinstance(when, timedelta) else timedelta(seconds=when)
            return micros_of(instant(now) + delay)
        except (OverflowError, ValueError, TypeError):
            raise UsageError(
                f"start_at is {when!r}: expected an instant or a delay that ends before the year 10000"
            ) from None


def _seconds(timeout: timedelta | float | None) -> float | None:
    """A time-out in seconds. One that is over already is taken: what is left of a deadline may be less than nothing."""
    return None if timeout is None else microseconds(timeout, "timeout", least=-(10**15)) / 1_000_000


def _failure(outcome: Outcome) -> FailureDetails:
    return outcome.failure or FailureDetails(outcome.status, "no details were recorded")


def _status(row: InstanceRow) -> InstanceStatus:
    failed = row.status in (RuntimeStatus.Failed.value, RuntimeStatus.Canceled.value)
    return InstanceStatus(
        instance_id=row.instance_id,
        name=row.name,
        version=row.version,
        runtime_status=RuntimeStatus(row.status),
        created_time=instant(row.created_at),
        last_updated_time=instant(row.updated_at),
        input=None if row.input is None else _decode_plain(row.input),
        output=None if row.output is None else _decode_plain(row.output),
        custom_status=None if row.custom_status is None else _decode_plain(row.custom_status),
        failure=decode_failure(row.failure) if failed else None,
        blocked=row.parked or row.blocked,
        tags=_decode_tags(row.tags) if row.tags else {},
        parent_instance_id=row.parent_instance_id,
    )
