"""The management protocol for a process that hosts nothing: messages into the inbox, reads of committed rows.

A message waits in the inbox for the owner of the instance. What the owner makes of it is a row in the owner's commit (its
tombstone), which the sender looks for. Nobody is asked to be alive: without an owner, what is durable is accepted, and the
next owner deals with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Self

from durably.client.connection import Connection
from durably.client.endings import PollingWatch
from durably.client.heard import SELDOM_S, Heard
from durably.clock import Clock, Random
from durably.core.commit import EntityRow, InboxRow, InstanceRow
from durably.core.events import HistoryEvent, Payload
from durably.core.history import decode_failure, encode_body
from durably.core.hosts import HostStatus
from durably.core.load import HubLoad
from durably.core.messages import (
    CallEntity,
    Cancel,
    Discard,
    MessageBody,
    Purge,
    RaiseEvent,
    Redrive,
    ReleaseEntity,
    Restart,
    Resume,
    Rewind,
    StartInstance,
    Suspend,
    Terminate,
)
from durably.core.parked import ParkedFound, ParkedQuery
from durably.core.query import Counts, EntitiesFound, EntityQuery, Found, InstanceQuery
from durably.core.shared_tasks import TaskInfo
from durably.core.status import TERMINAL, Outcome, RuntimeStatus
from durably.core.verdicts import ACCEPTED, decode_verdict, result_of
from durably.engine.committed import find_newest, no_answer, orphaned_section, read_events
from durably.engine.families import order_family
from durably.engine.listing import count_instances, query_instances
from durably.engine.load import hub_load
from durably.engine.parked import addressee, query_parked
from durably.engine.presence import drain_host, live_hosts, shared_tasks
from durably.errors import (
    HubSilentError,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceStateError,
)
from durably.management import check_start
from durably.storage.api import Store

FIRST_LOOK_S = 0.000_5
"""The owner answers within a batch or two: 1 ms. Each later look comes twice as late, up to `LOOK_MAX_S`."""

LOOK_MAX_S = 0.05

LISTEN_S = 0.004
"""Who has to wait for so long asks hosts to tell: a single command that is answered at once does not."""

PATIENCE_S = 60.0
"""So long a live owner may take to answer; one that takes longer hangs, or has more to do than it can."""

_ALIVE_CHECK_S = 1.0

_SERVED_S = 1.0
"""Who was told of a message lives so long, as far as the next one is concerned."""

_LIVE = frozenset(status.value for status in RuntimeStatus) - TERMINAL


def _refuse_taken(instance_id: str, start: StartInstance, row: InstanceRow | None) -> None:
    """What the next owner would certainly refuse."""
    if row is None:
        return
    policy = start.on_existing
    if policy == "attach" and row.name != start.name:
        raise InstanceAlreadyExistsError(instance_id, row.status, row.name)
    if policy == "fail" or (policy == "replace_finished" and row.status not in TERMINAL):
        raise InstanceAlreadyExistsError(instance_id, row.status)


class OutsideOperations:
    """Implements `durably.management.Management` on a store, for a process without a host of it.

    Args:
        connection: To the hub.
        clock: Time of what is posted.
        random: Ids of messages.
        patience_s: How long a live owner may take to answer.
    """

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        random: Random,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._random = random
        self._prefix = random.token()
        self._posted = 0
        self._patience_s = patience_s
        self._served_until = 0.0

    # --- control -----------------------------------------------------------------------------------------------------

    def new_instance_id(self) -> str:
        """See `Management.new_instance_id`."""
        return self._random.token()

    async def start(self, instance_id: str, start: StartInstance) -> None:
        """See `Management.start`. Without a live owner it returns once durable, and the next owner starts it."""
        check_start(instance_id, start)
        store = await self._connection.store(create=True)
        if not start.fresh and not await self._is_answered(store):
            _refuse_taken(instance_id, start, await find_newest(store, instance_id))
        await self._send(store, instance_id, start)

    async def raise_event(self, instance_id: str, name: str, data: Payload) -> None:
        """See `Management.raise_event`."""
        await self._control(instance_id, RaiseEvent(name, data), "raise an event to")

    async def cancel(self, instance_id: str, reason: str | None) -> None:
        """See `Management.cancel`."""
        await self._control(instance_id, Cancel(reason), "cancel")

    async def terminate(
        self,
        instance_id: str,
        reason: str | None,
        *,
        recursive: bool = False,
        compensate: bool = True,
        output: Payload = None,
    ) -> None:
        """See `Management.terminate`."""
        order = Terminate(reason, recursive, compensate=compensate, output=output)
        obey = partial(self._control, instance_id, order, "terminate")
        if not recursive:
            await obey()
            return
        store = await self._connection.store()
        await order_family(store, partial(self._send, store), instance_id, order, obey)

    async def suspend(self, instance_id: str, reason: str | None) -> None:
        """See `Management.suspend`."""
        await self._control(instance_id, Suspend(reason), "suspend")

    async def resume(self, instance_id: str, reason: str | None) -> None:
        """See `Management.resume`."""
        await self._control(instance_id, Resume(reason), "resume")

    async def rewind(self, instance_id: str, rewind: Rewind) -> None:
        """See `Management.rewind`. Without a live owner, the next one does it."""
        failed = RuntimeStatus.Failed.value
        await self._order(instance_id, rewind, "rewind", (failed,), failed)

    async def restart(self, instance_id: str, restart: Restart) -> None:
        """See `Management.restart`. Without a live owner, the next one does it."""
        expected = "a finished instance; terminate it first, or restart it under a new id"
        await self._order(instance_id, restart, "restart", TERMINAL, expected)

    async def purge(self, instance_id: str, *, recursive: bool = False) -> bool:
        """See `Management.purge`. Without a live owner: True, and the next owner deletes it."""
        store = await self._connection.store()
        order = Purge(recursive)
        expected = "a finished instance; terminate it first"
        obey = partial(self._order, instance_id, order, "purge", TERMINAL, expected)
        try:
            if recursive:
                await order_family(store, partial(self._send, store), instance_id, order, obey)
            else:
                await obey()
        except InstanceNotFoundError:
            return False
        return True

    async def query_parked(self, query: ParkedQuery) -> ParkedFound:
        """See `Management.query_parked`."""
        return await query_parked(await self._connection.store(), query)

    async def redrive(self, item_id: str) -> None:
        """See `Management.redrive`. Without a live owner the next one does it."""
        store = await self._connection.store()
        target, message_id = await addressee(store, item_id, "redrive")
        await self._send(store, target, Redrive(message_id))

    async def discard(self, item_id: str) -> None:
        """See `Management.discard`. Without a live owner the next one does it."""
        store = await self._connection.store()
        target, message_id = await addressee(store, item_id, "discard")
        await self._send(store, target, Discard(message_id))

    async def _control(self, instance_id: str, body: MessageBody, operation: str) -> None:
        await self._order(instance_id, body, operation, _LIVE, "an instance that has not ended")

    async def _order(
        self, instance_id: str, body: MessageBody, operation: str, statuses: Collection[str], expected: str
    ) -> None:
        """Send what is for instances in some statuses; where nobody will answer, say what the rows say already."""
        store = await self._connection.store()
        if not await self._is_answered(store):
            row = await find_newest(store, instance_id)
            if row is None:
                raise InstanceNotFoundError(instance_id)
            if row.status not in statuses:
                raise InstanceStateError(instance_id, row.status, operation, expected)
        await self._send(store, instance_id, body)

    # --- entities ----------------------------------------------------------------------------------------------------

    async def signal_entity(self, entity: str, call: CallEntity) -> None:
        """See `Management.signal_entity`. Without a live owner, the next one does it."""
        await self._send(await self._connection.store(create=True), entity, call)

    async def call_entity(self, entity: str, call: CallEntity, timeout_s: float | None) -> Payload:
        """See `Management.call_entity`. Without a live owner it waits for the next one."""
        store = await self._connection.store(create=True)
        with _Looks(store, self._connection.heard, self._next_id()) as looks:
            await self._post(store, looks.message_id, entity, call)
            while True:
                verdict = await looks.next()
                if verdict is not None:
                    return _obeyed(verdict)
                if timeout_s is not None and looks.waited_s >= timeout_s:
                    raise TimeoutError(no_answer(entity, call.operation, timeout_s))

    async def get_entity(self, entity: str) -> EntityRow | None:
        """See `Management.get_entity`."""
        return await (await self._connection.store()).get_entity(entity)

    async def query_entities(self, query: EntityQuery) -> EntitiesFound:
        """See `Management.query_entities`."""
        return await (await self._connection.store()).query_entities(query)

    async def messages_to(self, target: str) -> list[InboxRow]:
        """See `Management.messages_to`."""
        return await (await self._connection.store()).read_messages(target)

    async def release_orphaned(self, row: EntityRow) -> bool:
        """See `Management.release_orphaned`. Without a live owner, the next one does it."""
        store = await self._connection.store()
        section = await orphaned_section(store, row)
        if section is not None:
            await self._send(store, row.instance_id, ReleaseEntity(section))
        return section is not None

    # --- messages ----------------------------------------------------------------------------------------------------

    async def _send(self, store: Store, target: str, body: MessageBody) -> None:
        """Post, and return when the owner has accepted it, or when it is durable and there is none."""
        await self._answer(store, target, body)

    async def ask(self, target: str, body: MessageBody) -> Payload:
        """Send a message to an instance or entity; return what the owner answers once what it did is durable.

        Without a live owner None, and the next one deals with it; but a call of an entity waits for that one.
        """
        store = await self._connection.store()
        if isinstance(body, CallEntity) and body.wanted:
            return await self.call_entity(target, body, None)
        return await self._answer(store, target, body)

    async def _answer(self, store: Store, target: str, body: MessageBody) -> Payload:
        with _Looks(store, self._connection.heard, self._next_id()) as looks:
            if not await self._post(store, looks.message_id, target, body):
                return None
            checked_s = 0.0
            while True:
                verdict = await looks.next()
                if verdict is not None:
                    return _obeyed(verdict)
                if looks.waited_s > self._patience_s:
                    raise HubSilentError(
                        f"The host of {store.url} has not answered for {self._patience_s:g} s. The message to instance "
                        f"'{target}' is durable and will be dealt with: look at the instance, or at the host, before you "
                        "repeat it"
                    )
                if looks.waited_s - checked_s > _ALIVE_CHECK_S:
                    checked_s = looks.waited_s
                    if not await store.post([]):
                        return None

    def _next_id(self) -> str:
        self._posted += 1
        return f"{self._prefix}.{self._posted:x}"

    async def _post(self, store: Store, message_id: str, target: str, body: MessageBody) -> bool:
        """Post a message; True when a live owner has been told."""
        served = await store.post([InboxRow(message_id, target, self._clock.now(), encode_body(body))])
        if served:
            self._served_until = time.monotonic() + _SERVED_S
        return served

    async def _is_answered(self, store: Store) -> bool:
        """True when some owner answers, or did a moment ago: one that dies between two messages is found out by the next."""
        return time.monotonic() < self._served_until or await store.post([])

    # --- reads -------------------------------------------------------------------------------------------------------

    async def is_served(self) -> bool:
        """See `Management.is_served`."""
        return await (await self._connection.store()).post([])

    async def shared_tasks(self, instance_id: str) -> list[TaskInfo]:
        """See `Management.shared_tasks`."""
        return await shared_tasks(await self._connection.store(), instance_id)

    async def hosts(self) -> list[HostStatus]:
        """See `Management.hosts`."""
        return await live_hosts(await self._connection.store())

    async def load(self) -> HubLoad:
        """See `Management.load`."""
        return await hub_load(await self._connection.store(), self._clock.now())

    async def now(self) -> int:
        """See `Management.now`. The hosts of a hub on a server go by its clock, whatever the one of this machine says."""
        store = await self._connection.store(create=True)
        return (await store.workload()).at if store.capabilities.shared else self._clock.now()

    async def drain_host(self, host_id: str) -> None:
        """See `Management.drain_host`."""
        await drain_host(await self._connection.store(), host_id)

    async def get(self, instance_id: str, *, payloads: bool = True) -> InstanceRow | None:
        """See `Management.get`. Also finds an instance whose start, or restart, waits for an owner."""
        return await find_newest(await self._connection.store(), instance_id, payloads=payloads)

    async def wait(self, instance_id: str, timeout_s: float | None) -> InstanceRow:
        """See `Management.wait`."""
        await self._connection.store()
        return await self._connection.endings.wait(instance_id, timeout_s)

    async def outcome(self, instance_id: str, timeout_s: float | None) -> Outcome:
        """See `Management.outcome`."""
        row = await self.wait(instance_id, timeout_s)
        return Outcome(row.status, row.output, decode_failure(row.failure))

    def watch(self, instance_id: str) -> AbstractContextManager[PollingWatch]:
        """See `Management.watch`."""
        return nullcontext(PollingWatch())

    async def query(self, query: InstanceQuery) -> Found:
        """See `Management.query`."""
        return await query_instances(await self._connection.store(), query)

    async def count(self, query: InstanceQuery) -> Counts:
        """See `Management.count`."""
        return await count_instances(await self._connection.store(), query)

    async def history(self, instance_id: str) -> list[HistoryEvent]:
        """See `Management.history`."""
        return await read_events(await self._connection.store(), instance_id)


def _obeyed(verdict: bytes) -> Payload:
    """What the owner answered.

    Raises:
        DurablyError: It refused.
    """
    error = decode_verdict(verdict)
    if error is not None:
        raise error
    return result_of(verdict)


class _Looks:
    """Looks for the verdict on a message: when a host tells of it, and until one does each twice as late as the one before.

    Attributes:
        message_id: Of the message; posted behind the beginning of the block, so that no word about it is missed.
        waited_s: How long it has been looked for.
    """

    def __init__(self, store: Store, heard: Heard, message_id: str) -> None:
        self.message_id = message_id
        self.waited_s = 0.0
        self._store = store
        self._heard = heard
        self._delay_s = FIRST_LOOK_S

    def __enter__(self) -> Self:
        self._told = self._heard.expect(self.message_id)
        return self

    def __exit__(self, *_: object) -> None:
        self._heard.forget(self.message_id)

    async def next(self) -> bytes | None:
        """Wait, and look; None: there is none yet."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        hears = self._delay_s >= LISTEN_S and self._heard.listen()
        with suppress(TimeoutError):
            async with asyncio.timeout(SELDOM_S if hears else self._delay_s):
                await self._told.soon.wait()
        self.waited_s += loop.time() - began
        if self._told.accepted:
            return ACCEPTED
        self._told.soon.clear()
        self._delay_s = min(2 * self._delay_s, LOOK_MAX_S)
        (verdict,) = await self._store.verdicts([self.message_id])
        return verdict
