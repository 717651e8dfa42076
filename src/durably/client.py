"""Client: the typed face of the management protocol for applications."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Concatenate, Generic, Literal, TypeVar, overload

import msgspec

from durably.clock import Clock, Random
from durably.codec.convert import Converter
from durably.core.commit import InstanceRow
from durably.core.history import decode_failure
from durably.core.ids import check_tags, check_text
from durably.core.messages import StartInstance
from durably.core.query import InstanceQuery, position_of, token_of
from durably.core.status import InstancePage, InstanceStatus, Outcome, RuntimeStatus
from durably.core.timeline import HistoryEntry, instant, timeline
from durably.errors import FailureDetails, OrchestrationFailedError, UsageError
from durably.management import Management
from durably.program.context import OrchestrationContext
from durably.program.registry import Registry

R = TypeVar("R")
OnExisting = Literal["replace_finished", "fail", "replace", "attach"]

_decode_plain = msgspec.json.Decoder().decode
_decode_tags = msgspec.json.Decoder(dict[str, str]).decode


class Handle(Generic[R]):
    """One instance, to follow and to control.

    Attributes:
        instance_id: Its id.
    """

    __slots__ = ("_client", "_result_type", "instance_id")

    def __init__(self, client: Client, instance_id: str, result_type: Any) -> None:
        self._client = client
        self._result_type = result_type
        self.instance_id = instance_id

    def __repr__(self) -> str:
        return f"Handle({self.instance_id!r})"

    async def result(self, timeout: timedelta | float | None = None) -> R:
        """The result of the instance, once it has ended.

        Args:
            timeout: How long to wait (timedelta or seconds); for ever by default. The instance goes on after it.

        Raises:
            OrchestrationFailedError: It failed, was cancelled or terminated; `details` says why.
            TimeoutError: It has not ended in time.
            InstanceNotFoundError: It was purged.
            PayloadError: Its result does not fit the declared type.
        """
        return await self._client.result_of(self.instance_id, self._result_type, timeout)

    async def status(self) -> InstanceStatus | None:
        """See `Client.get_status`."""
        return await self._client.get_status(self.instance_id)

    async def wait_for_completion(self, timeout: timedelta | float | None = None) -> InstanceStatus:
        """See `Client.wait_for_completion`."""
        return await self._client.wait_for_completion(self.instance_id, timeout)

    async def raise_event(self, name: str, data: Any = None) -> None:
        """See `Client.raise_event`."""
        await self._client.raise_event(self.instance_id, name, data)

    async def cancel(self, reason: str | None = None) -> None:
        """See `Client.cancel`."""
        await self._client.cancel(self.instance_id, reason)

    async def terminate(self, reason: str | None = None) -> None:
        """See `Client.terminate`."""
        await self._client.terminate(self.instance_id, reason)

    async def suspend(self, reason: str | None = None) -> None:
        """See `Client.suspend`."""
        await self._client.suspend(self.instance_id, reason)

    async def resume(self, reason: str | None = None) -> None:
        """See `Client.resume`."""
        await self._client.resume(self.instance_id, reason)

    async def purge(self) -> bool:
        """See `Client.purge`."""
        return await self._client.purge(self.instance_id)

    async def history(self) -> list[HistoryEntry]:
        """See `Client.get_history`."""
        return await self._client.get_history(self.instance_id)


class Client:
    """Starts, follows and controls instances. Every call that changes something returns once the change is durable.

    Comes from a host: ``host.client``. Safe to use from many tasks of the host's event loop at once.
    """

    def __init__(
        self, management: Management, registry: Registry, converter: Converter, clock: Clock, random: Random
    ) -> None:
        self._management = management
        self._registry = registry
        self._converter = converter
        self._clock = clock
        self._random = random

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
        runtime_status: RuntimeStatus | str | Iterable[RuntimeStatus | str] | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        instance_id_prefix: str | None = None,
        tags: dict[str, str] | None = None,
        page_size: int = 100,
        continuation_token: str | None = None,
    ) -> InstancePage:
        """Instances that match all filters, in the order of their creation, page by page.

        Walking all pages visits every instance that existed throughout exactly once.

        Args:
            name: Of the orchestrator.
            runtime_status: One status, or several.
            created_from: Created at or after (naive means UTC).
            created_to: Created at or before.
            instance_id_prefix: The id begins with it.
            tags: All of these, with these values.
            page_size: 1 to 1,000.
            continuation_token: Of the page before.

        Raises:
            UsageError: A filter is out of its range, or the token is not one of ours.
        """
        query = InstanceQuery(
            name=name,
            statuses=_statuses(runtime_status),
            created_from=None if created_from is None else _micros(created_from),
            created_to=None if created_to is None else _micros(created_to),
            instance_id_prefix=instance_id_prefix,
            tags=tags,
            page_size=page_size,
            after=0 if continuation_token is None else position_of(continuation_token),
        )
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

    # --- control -----------------------------------------------------------------------------------------------------

    async def raise_event(self, instance_id: str, name: str, data: Any = None) -> None:
        """Deliver an external event. It is applied exactly once, and kept until the instance waits for it.

        Args:
            instance_id: The instance.
            name: The event; compared without case.
            data: Its payload, any value that becomes JSON.

        Raises:
            InstanceNotFoundError: No such instance.
            InstanceStateError: It has ended.
            PayloadError: The data cannot become JSON.
        """
        check_text(name, "name of the event")
        if not name:
            raise UsageError(
                "The name of an external event is empty: expected the name that the instance waits for"
            )
        payload = None if data is None else self._converter.encode(data)
        await self._management.raise_event(instance_id, name, payload)

    async def cancel(self, instance_id: str, reason: str | None = None) -> None:
        """Ask an instance to cancel itself: its code sees `asyncio.CancelledError` and may clean up. Raises as above."""
        check_text(reason, "reason")
        await self._management.cancel(instance_id, reason)

    async def terminate(self, instance_id: str, reason: str | None = None) -> None:
        """Stop an instance at once; its code sees nothing, its activities are cancelled. Raises as `raise_event`."""
        check_text(reason, "reason")
        await self._management.terminate(instance_id, reason)

    async def suspend(self, instance_id: str, reason: str | None = None) -> None:
        """Let no turn run until `resume`; what arrives is kept. Idempotent. Raises as `raise_event`."""
        check_text(reason, "reason")
        await self._management.suspend(instance_id, reason)

    async def resume(self, instance_id: str, reason: str | None = None) -> None:
        """Go on after `suspend`. Idempotent. Raises as `raise_event`."""
        check_text(reason, "reason")
        await self._management.resume(instance_id, reason)

    async def purge(self, instance_id: str) -> bool:
        """Delete a finished instance with its history; False when there is none of this id. The id is free again.

        Raises:
            InstanceStateError: It has not ended.
        """
        return await self._management.purge(instance_id)

    def _instant(self, when: datetime | timedelta | float) -> int:
        if isinstance(when, datetime):
            return _micros(when)
        now = self._clock.now()
        try:
            delay = when if isinstance(when, timedelta) else timedelta(seconds=when)
            return _micros(instant(now) + delay)
        except (OverflowError, ValueError, TypeError):
            raise UsageError(
                f"start_at is {when!r}: expected an instant or a delay that ends before the year 10000"
            ) from None


def _seconds(timeout: timedelta | float | None) -> float | None:
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout


def _micros(moment: datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _statuses(given: RuntimeStatus | str | Iterable[RuntimeStatus | str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = [given] if isinstance(given, str) else list(given)
    try:
        return tuple(RuntimeStatus(name).value for name in names)
    except ValueError as error:
        known = ", ".join(status.value for status in RuntimeStatus)
        raise UsageError(
            f"runtime_status holds an unknown status ({error}): expected some of {known}"
        ) from None


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
