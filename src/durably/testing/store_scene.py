"""What the tests of the store conformance suite have in common: an owned hub, rows to write, and how a test is run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from durably.core.commit import Batch, EntityRow, HistoryRow, InboxRow, InstanceChange, InstanceRow, TimerRow
from durably.storage.api import Lease, Snapshot, Store

FOREVER = 2**62
"""An instant behind all others, as a horizon for timers."""

WAIT_S = 20.0
"""A signal that has not come by then never will."""


class StoreHooks:
    """What a provider says about itself. Subclasses of the suite define these.

    Attributes:
        tells: Store objects hear of what others do; not so where a pooler is between: hosts ask again and again.
    """

    tells = True

    async def make(self) -> Store:
        """A store on a hub that does not exist yet; not opened."""
        raise NotImplementedError

    async def reopen(self, store: Store) -> Store:
        """Another store object on the hub of this one, which may be open, closed or crashed; not opened."""
        raise NotImplementedError

    async def crash(self, store: Store) -> None:
        """Let the process that holds the store die, as far as others can tell: nothing is closed or released.

        Where leases and claims end by a clock, they have run out.
        """
        raise NotImplementedError

    async def expire(self, store: Store) -> None:
        """Let the leases of an open store run out, as when its process was paused. Only where hubs are shared."""
        raise NotImplementedError

    async def make_of(self, partitions: int) -> Store:
        """The same as `make`, with so many partitions. Only where a hub may have several."""
        raise NotImplementedError


class Scene:
    """A hub with an owner, and other store objects around it. Everything is closed when the test ends."""

    def __init__(self, hooks: StoreHooks, store: Store) -> None:
        self.hooks = hooks
        self.store = store
        self.lease = Lease(0, "", 0)
        self.number = 0
        self._others: list[Store] = []

    async def own(self, owner: str = "first owner") -> Snapshot:
        """Acquire the partition and load it, as a host does."""
        self.lease = await self.store.acquire(0, owner)
        snapshot = await self.store.load(self.lease, FOREVER)
        self.number = snapshot.batch
        return snapshot

    def batch(self, **fields: Any) -> Batch:
        """The next batch."""
        return Batch(number=self.number + 1, **fields)

    async def commit(self, **fields: Any) -> None:
        """Commit the next batch."""
        await self.store.commit(self.lease, self.batch(**fields))
        self.number += 1

    async def load(self) -> Snapshot:
        """All that a new owner would see."""
        return await self.store.load(self.lease, FOREVER)

    async def another(self) -> Store:
        """One more open store object on the hub."""
        store = await self.hooks.reopen(self.store)
        self._others.append(store)
        await store.open()
        return store

    async def close_and_reopen(self) -> Snapshot:
        """End this owner in an orderly way, and be the next one."""
        await self.store.close()
        self.store = await self.another()
        return await self.own("next owner")

    async def crash_and_reopen(self) -> Snapshot:
        """End this owner the hard way, and be the next one."""
        await self.hooks.crash(self.store)
        self.store = await self.another()
        return await self.own("next owner")

    async def end(self) -> None:
        """Close what is open, and delete the hub."""
        for store in (self.store, *self._others):
            await store.close()
        with contextlib.suppress(NotImplementedError):
            await (await self.hooks.reopen(self.store)).delete()


Self = TypeVar("Self", bound=StoreHooks)


def scenario(test: Callable[[Self, Scene], Coroutine[Any, Any, None]]) -> Callable[[Self], None]:
    """Make a plain test of a coroutine: on a loop of its own, with a fresh hub that is owned."""

    def run(hooks: Self) -> None:
        asyncio.run(_play(hooks, lambda scene: test(hooks, scene)))

    run.__name__, run.__qualname__, run.__doc__ = test.__name__, test.__qualname__, test.__doc__
    run.__module__ = test.__module__
    return run


async def _play(hooks: StoreHooks, act: Callable[[Scene], Awaitable[None]]) -> None:
    store = await hooks.make()
    await store.open()
    scene = Scene(hooks, store)
    try:
        await scene.own()
        await act(scene)
    finally:
        await scene.end()


# --- rows ------------------------------------------------------------------------------------------------------------


def history_row(execution: int, seq: int, at: int = 0, data: bytes = b"events") -> HistoryRow:
    """A history row; what is in it tells where it belongs."""
    return HistoryRow(execution, seq, at, data, b"sum %d.%d" % (execution, seq))


def instance_row(instance_id: str, execution: int = 1, **fields: Any) -> InstanceRow:
    """An instance that runs, with nothing optional."""
    row = InstanceRow(
        instance_id=instance_id,
        execution=execution,
        ordinal=0,
        execution_id=f"execution {execution}",
        name="order",
        version=None,
        status="Running",
        created_at=0,
        updated_at=0,
        input=None,
        output=None,
        custom_status=None,
        failure=None,
        blocked=None,
        parked=None,
        in_flight=False,
        parent_instance_id=None,
        tags=None,
        start_at=None,
    )
    return row._replace(**fields)


def instance_change(instance_id: str, **fields: Any) -> InstanceChange:
    """A change to Completed, with nothing optional."""
    change = InstanceChange(
        instance_id=instance_id,
        status="Completed",
        updated_at=0,
        output=None,
        custom_status=None,
        failure=None,
        blocked=None,
        parked=None,
        in_flight=False,
        start_at=None,
    )
    return change._replace(**fields)


def entity_row(instance_id: str, execution: int = 1, **fields: Any) -> EntityRow:
    """An entity that exists, and is not locked."""
    row = EntityRow(
        instance_id=instance_id,
        name=instance_id.split("@")[1] if "@" in instance_id else instance_id,
        execution=execution,
        created_at=0,
        updated_at=0,
        state=b"state",
        version=0,
        locked_by=None,
        rest=b"rest",
        checksum=b"sum",
    )
    return row._replace(**fields)


def message(message_id: str, instance_id: str = "a", at: int = 0, body: bytes = b"body") -> InboxRow:
    """A message that is not stored yet."""
    return InboxRow(message_id, instance_id, at, body)


def timer_row(execution: int, seq: int, due_at: int, kind: int = 0, instance_id: str = "a") -> TimerRow:
    """A timer."""
    return TimerRow(execution, seq, kind, due_at, instance_id)
