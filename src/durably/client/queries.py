"""The verbs of a client that only look: status, result, lists, history, why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, Literal, Protocol, Unpack, overload

import msgspec

from durably.client.plain import plain_data
from durably.client.selection import Filters, Statuses, selection
from durably.clock import Clock
from durably.codec.convert import Converter
from durably.core.commit import InstanceRow
from durably.core.history import call_in, decode_failure, readable
from durably.core.parked import ParkedQuery
from durably.core.query import FIRST, PAGE_SIZE_MAX, place_of, token_of
from durably.core.shared_tasks import seq_of
from durably.core.status import TERMINAL, InstancePage, InstanceStatus, Outcome, RuntimeStatus
from durably.core.timeline import HistoryEntry, instant, timeline
from durably.core.why import doing, needs_history, open_calls, open_children, why
from durably.errors import FailureDetails, InstanceNotFoundError, OrchestrationFailedError, UsageError
from durably.management import Management
from durably.program.durations import microseconds

_CHILDREN_READ_MAX = 100
"""Open children that `why` looks at: one of them in trouble is worth finding, all of ten thousand are not."""

_decode_tags = msgspec.json.Decoder(dict[str, str]).decode


CountBy = Literal["name", "status", "name_and_status"]

_KEYS: dict[str, Callable[[tuple[str, RuntimeStatus]], Any]] = {
    "name": itemgetter(0),
    "status": itemgetter(1),
    "name_and_status": itemgetter(slice(2)),
}


class Looks(Protocol):
    """Status and history of instances, for who looks at the same ones again and again."""

    async def get_status(self, instance_id: str) -> InstanceStatus | None:
        """See `QueryVerbs.get_status`."""
        ...

    async def get_history(self, instance_id: str) -> list[HistoryEntry]:
        """See `QueryVerbs.get_history`."""
        ...


class QueryVerbs:
    """Part of `Client`."""

    _management: Management
    _converter: Converter
    _clock: Clock

    async def get_status(self, instance_id: str, *, fetch_payloads: bool = True) -> InstanceStatus | None:
        """The committed status of an instance, or None when there is none of this id.

        Args:
            instance_id: Its id.
            fetch_payloads: False: without `input` and `output`, so that large ones cost nothing.
        """
        row = await self._management.get(instance_id, payloads=fetch_payloads)
        return None if row is None else status_of_row(row)

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
        return status_of_row(await self._management.wait(instance_id, _seconds(timeout)))

    async def result_of(
        self, instance_id: str, returns: Any, timeout: timedelta | float | None = None
    ) -> Any:
        """What `Handle.result` returns, for an id and a type."""
        outcome = await self._management.outcome(instance_id, _seconds(timeout))
        if outcome.status == RuntimeStatus.Completed.value:
            output = readable(instance_id, "output", outcome.output)
            return None if output is None else self._converter.decode(output, returns)
        raise OrchestrationFailedError(instance_id, outcome.status, _failure(outcome))

    async def query_instances(
        self,
        *,
        name: str | None = None,
        runtime_status: Statuses | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        updated_from: datetime | None = None,
        updated_to: datetime | None = None,
        instance_id_prefix: str | None = None,
        tags: dict[str, str] | None = None,
        stuck: bool | None = None,
        page_size: int = 100,
        continuation_token: str | None = None,
        parent_instance_id: str | None = None,
        fetch_payloads: bool = True,
    ) -> InstancePage:
        """Instances that match all filters, in the order of their creation, page by page.

        Walking all pages visits every instance that existed throughout exactly once.

        Args:
            name: Of the orchestrator.
            runtime_status: One status, or several.
            created_from: Created at or after (naive means UTC).
            created_to: Created at or before.
            updated_from: Last updated at or after; of a finished instance: when it ended.
            updated_to: Last updated at or before.
            instance_id_prefix: The id begins with it.
            tags: All of these, with these values.
            stuck: True: only instances that are blocked or parked; False: only others.
            page_size: 1 to 1,000.
            continuation_token: Of the page before.
            parent_instance_id: Children that this instance called; not those that it started without waiting for them.
            fetch_payloads: False: without `input` and `output`, so that large ones cost nothing.

        Raises:
            UsageError: A filter is out of its range, or the token is not one of ours.
        """
        filters = Filters(
            name=name,
            runtime_status=runtime_status,
            created_from=created_from,
            created_to=created_to,
            updated_from=updated_from,
            updated_to=updated_to,
            instance_id_prefix=instance_id_prefix,
            tags=tags,
            parent_instance_id=parent_instance_id,
            stuck=stuck,
        )
        after = FIRST if continuation_token is None else place_of(continuation_token)
        query = selection(filters, page_size=page_size, after=after, payloads=fetch_payloads)
        found = await self._management.query(query)
        token = None if found.next_after is None else token_of(found.next_after)
        return InstancePage([status_of_row(row) for row in found.rows], token)

    @overload
    async def count_instances(self, *, by: None = None, **filters: Unpack[Filters]) -> int: ...

    @overload
    async def count_instances(self, *, by: Literal["name"], **filters: Unpack[Filters]) -> dict[str, int]: ...

    @overload
    async def count_instances(
        self, *, by: Literal["status"], **filters: Unpack[Filters]
    ) -> dict[RuntimeStatus, int]: ...

    @overload
    async def count_instances(
        self, *, by: Literal["name_and_status"], **filters: Unpack[Filters]
    ) -> dict[tuple[str, RuntimeStatus], int]: ...

    async def count_instances(self, *, by: CountBy | None = None, **filters: Unpack[Filters]) -> Any:
        """How many instances match all filters. Name, status, time of creation and parent are counted in indexes.

        Args:
            by: None: one number. ``"name"`` (of the orchestrator), ``"status"`` or ``"name_and_status"``: a number for each
                of them, without those of which there are none.
            filters: See `Filters`.

        Raises:
            UsageError: A filter is out of its range, or `by` is none of these.
        """
        if by is not None and by not in _KEYS:
            raise UsageError(f"by is {by!r}: expected None or one of {', '.join(_KEYS)}")
        counts = await self._management.count(selection(filters))
        if by is None:
            return sum(counts.values())
        key, summed = _KEYS[by], Counter[Any]()
        for (name, status), count in counts.items():
            summed[key((name, RuntimeStatus(status)))] += count
        return dict(summed)

    async def get_history(self, instance_id: str) -> list[HistoryEntry]:
        """The committed history of the current execution.

        Raises:
            InstanceNotFoundError: No such instance.
            HistoryCorruptError: Its rows do not match their checksums.
        """
        return timeline(await self._management.history(instance_id))

    def looking(self) -> AbstractAsyncContextManager[Looks]:
        """What to ask who looks at the same instances again and again: the hub, or streams of a host over HTTP."""
        return nullcontext(self)

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
        parked = await self._parked_calls(row, open_calls(row, events)[:_CHILDREN_READ_MAX])
        shared = await self._shared_calls(instance_id)
        now = self._clock.now()
        return why(row, events, now, children=children, parked_calls=parked, shared=shared, served=served)

    async def _shared_calls(self, instance_id: str) -> dict[int, str]:
        """What its activities do that are in the queue that all hosts share, by number."""
        found = await self._management.shared_tasks(instance_id)
        hosts = await self._management.hosts() if found else []
        return {seq_of(task.task_id): doing(task, hosts) for task in found}

    async def _parked_calls(self, row: InstanceRow, entities: Sequence[str]) -> set[int]:
        """The calls of entities that an instance waits for, and whose messages were set aside."""
        calls: set[int] = set()
        for entity in dict.fromkeys(entities):
            query = ParkedQuery(kind="message", instance_id_prefix=entity, page_size=PAGE_SIZE_MAX)
            for parked in (await self._management.query_parked(query)).rows:
                caller = call.caller if (call := call_in(parked.payload)) is not None else None
                if caller is not None and caller.execution_id == row.execution_id:
                    calls.add(caller.seq)
        return calls


def _seconds(timeout: timedelta | float | None) -> float | None:
    """A time-out in seconds. One that is over already is taken: what is left of a deadline may be less than nothing."""
    return None if timeout is None else microseconds(timeout, "timeout", least=-(10**15)) / 1_000_000


def _failure(outcome: Outcome) -> FailureDetails:
    return outcome.failure or FailureDetails(outcome.status, "no details were recorded")


def status_of_row(row: InstanceRow) -> InstanceStatus:
    """What callers see of an instance."""
    failed = row.status in (RuntimeStatus.Failed.value, RuntimeStatus.Canceled.value)
    compensating = row.failure is not None and row.status not in TERMINAL
    return InstanceStatus(
        instance_id=row.instance_id,
        name=row.name,
        version=row.version,
        runtime_status=RuntimeStatus(row.status),
        created_time=instant(row.created_at),
        last_updated_time=instant(row.updated_at),
        input=plain_data(row.input),
        output=plain_data(row.output),
        custom_status=plain_data(row.custom_status),
        failure=decode_failure(row.failure) if failed or compensating else None,
        compensating=compensating,
        blocked=row.parked or row.blocked,
        tags=_decode_tags(row.tags) if row.tags else {},
        parent_instance_id=row.parent_instance_id,
    )
