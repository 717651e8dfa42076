"""A store around another one, which compresses and encrypts what goes into it; neither provider nor engine knows."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import NoReturn

from durably.codec.keys import EncryptionKeys
from durably.codec.wrap import Box
from durably.core.commit import Batch, EntityRow, HistoryRow, InboxRow, InstanceRow, ParkedMessage, TimerRow
from durably.core.dump import DumpChunk
from durably.core.query import Counts, EntitiesFound, EntityQuery, Found, FoundWithWaiting, InstanceQuery
from durably.errors import EncryptionKeyError, StoreRefusedError
from durably.storage.api import (
    Capabilities,
    HostReport,
    HubIdentity,
    Lease,
    Snapshot,
    Store,
    StoredInstance,
    Survey,
    Workload,
    WorkLog,
)
from durably.storage.limits import history_max
from durably.storage.news import News
from durably.storage.shared_tasks import SharedTasks
from durably.storage.wrapped_tasks import WrappedTasks
from durably.storage.wrapping import Wrapping

COMPRESS_ABOVE = 4_096
"""A page of a SQLite file: below that, compressing seldom saves one."""


class WrappedStore:
    """A `Store` whose payloads are compressed, and encrypted when there are keys.

    Args:
        store: Where the rows go; not open.
        keys: Encrypt with the first of them. None: nothing is encrypted, and a hub that is cannot be opened.
        compress_above: Bytes of a history row or payload from which on compressing is tried; 0: never.
        entropy: Random bytes fit for keys; the machine's by default.
    """

    def __init__(
        self,
        store: Store,
        keys: EncryptionKeys | None = None,
        *,
        compress_above: int = COMPRESS_ABOVE,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.inner = store
        self._keys = keys
        self._above = compress_above
        self._entropy = entropy
        self._history_max = history_max()
        self._wrapping = Wrapping(compress_above, history_max=self._history_max)

    @property
    def encrypts(self) -> bool:
        """True when it was made with keys."""
        return self._keys is not None

    @property
    def url(self) -> str:
        """See `Store.url`."""
        return self.inner.url

    @property
    def capabilities(self) -> Capabilities:
        """See `Store.capabilities`."""
        return self.inner.capabilities

    @property
    def listening(self) -> bool:
        """See `Store.listening`."""
        return self.inner.listening

    @property
    def tasks(self) -> SharedTasks | None:
        """See `Store.tasks`."""
        inner = self.inner.tasks
        return None if inner is None else WrappedTasks(inner, self._wrapping)

    def partition_of(self, instance_id: str) -> int:
        """See `Store.partition_of`."""
        return self.inner.partition_of(instance_id)

    # --- hub ---------------------------------------------------------------------------------------------------------

    async def open(self, *, create: bool = True) -> None:
        """See `Store.open`.

        Raises:
            EncryptionKeyError: A key that the hub was encrypted with is missing or another one, or it was in use without.
        """
        await self.inner.open(create=create)
        try:
            await self._unlock(await self.inner.identity())
        except BaseException:
            await self.inner.close()
            raise

    async def _unlock(self, identity: HubIdentity) -> None:
        keys = self._keys
        if keys is None:
            if identity.keys:
                raise EncryptionKeyError(
                    f"Hub {self.url} is encrypted with {_named(identity.keys)}: expected its keys in DURABLY_ENCRYPTION_KEYS, "
                    "or as encryption_keys of EngineOptions or Client"
                )
            return
        box = Box(keys, identity.hub_id, self._entropy)  # also tells whether the library is there
        self._check(keys, identity)
        if keys.active not in identity.keys:
            if not (identity.keys or identity.is_new or keys.plain):
                raise EncryptionKeyError(
                    f"Hub {self.url} was used without encryption before, and what is in it is not encrypted: add the entry "
                    "'plain' to the encryption keys to go on with it, or begin a new hub"
                )
            await self.inner.add_key(keys.active, keys.proof(keys.active, identity.hub_id))
            self._check(keys, await self.inner.identity())  # somebody else may have been first
        self._wrapping = Wrapping(self._above, box, history_max=self._history_max)

    def _check(self, keys: EncryptionKeys, identity: HubIdentity) -> None:
        missing = [key_id for key_id in identity.keys if not keys.knows(key_id)]
        if missing:
            raise EncryptionKeyError(
                f"Hub {self.url} is also encrypted with {_named(missing)}, which was not given: add it behind the others; "
                "if it was destroyed on purpose, add ID=destroyed: what it encrypted is lost then"
            )
        for key_id, proof in identity.keys.items():
            if keys.key(key_id) is not None and keys.proof(key_id, identity.hub_id) != proof:
                raise EncryptionKeyError(
                    f"Encryption key '{key_id}' is not the one that hub {self.url} was encrypted with under this id: expected "
                    "that one. A new key needs a new id"
                )

    async def close(self) -> None:
        """See `Store.close`."""
        await self.inner.close()

    async def delete(self) -> None:
        """See `Store.delete`."""
        await self.inner.delete()

    async def identity(self) -> HubIdentity:
        """See `Store.identity`."""
        return await self.inner.identity()

    async def add_key(self, key_id: str, proof: bytes) -> None:
        """See `Store.add_key`."""
        await self.inner.add_key(key_id, proof)

    def dump(self) -> AsyncGenerator[DumpChunk]:
        """See `Store.dump`. Compressed and encrypted rows come as they are."""
        return self.inner.dump()

    async def restore(self, chunks: AsyncIterator[DumpChunk]) -> None:
        """See `Store.restore`."""
        await self.inner.restore(chunks)

    # --- leases ------------------------------------------------------------------------------------------------------

    async def acquire(self, partition: int, owner: str) -> Lease:
        """See `Store.acquire`."""
        return await self.inner.acquire(partition, owner)

    async def renew(self, lease: Lease) -> None:
        """See `Store.renew`."""
        await self.inner.renew(lease)

    async def release(self, lease: Lease) -> None:
        """See `Store.release`."""
        await self.inner.release(lease)

    def on_lease_lost(self, callback: Callable[[Lease], None]) -> None:
        """See `Store.on_lease_lost`."""
        self.inner.on_lease_lost(callback)

    async def work_log(self, lease: Lease) -> WorkLog:
        """See `Store.work_log`. Its entries are ids and numbers: they are not encrypted."""
        return await self.inner.work_log(lease)

    # --- hosts -------------------------------------------------------------------------------------------------------

    async def survey(self, report: HostReport | None = None) -> Survey:
        """See `Store.survey`. What a host says of itself is not encrypted."""
        return await self.inner.survey(report)

    async def withdraw(self) -> None:
        """See `Store.withdraw`."""
        await self.inner.withdraw()

    async def ask_to_drain(self, host_id: str) -> bool:
        """See `Store.ask_to_drain`."""
        return await self.inner.ask_to_drain(host_id)

    # --- partition ---------------------------------------------------------------------------------------------------

    async def load(self, lease: Lease, timers_until: int) -> Snapshot:
        """See `Store.load`."""
        return self._wrapping.snapshot(await self.inner.load(lease, timers_until))

    def commit(self, lease: Lease, batch: Batch) -> Awaitable[None]:
        """See `Store.commit`."""
        try:
            wrapped = self._wrapping.batch(batch)
        except UnicodeEncodeError as error:
            return _refused(error)
        return self.inner.commit(lease, wrapped)

    async def read_instances(self, lease: Lease, instance_ids: Sequence[str]) -> list[StoredInstance | None]:
        """See `Store.read_instances`."""
        found = await self.inner.read_instances(lease, instance_ids)
        return [None if stored is None else self._wrapping.stored_instance(stored) for stored in found]

    async def read_entities(self, lease: Lease, instance_ids: Sequence[str]) -> list[EntityRow | None]:
        """See `Store.read_entities`."""
        found = await self.inner.read_entities(lease, instance_ids)
        return [None if row is None else self._wrapping.entity(row) for row in found]

    def read_timers(self, lease: Lease, after: int, until: int) -> Awaitable[list[TimerRow]]:
        """See `Store.read_timers`."""
        return self.inner.read_timers(lease, after, until)

    async def read_inbox(self, lease: Lease, after: int = 0) -> list[InboxRow]:
        """See `Store.read_inbox`."""
        return [self._wrapping.message(row) for row in await self.inner.read_inbox(lease, after)]

    # --- anybody -----------------------------------------------------------------------------------------------------

    async def post(self, messages: Sequence[InboxRow]) -> bool:
        """See `Store.post`."""
        try:
            wrapped = self._wrapping.messages(list(messages))
        except UnicodeEncodeError as error:
            return await _refused(error)
        return await self.inner.post(wrapped)

    def on_arrival(self, callback: Callable[[], None]) -> None:
        """See `Store.on_arrival`."""
        self.inner.on_arrival(callback)

    def heed(self, callback: Callable[[News], None]) -> bool:
        """See `Store.heed`."""
        return self.inner.heed(callback)

    async def verdicts(self, message_ids: Sequence[str]) -> list[bytes | None]:
        """See `Store.verdicts`."""
        found = await self.inner.verdicts(message_ids)
        return [
            self._wrapping.verdict(message_id, verdict)
            for message_id, verdict in zip(message_ids, found, strict=True)
        ]

    async def read_messages(self, instance_id: str) -> list[InboxRow]:
        """See `Store.read_messages`."""
        return [self._wrapping.message(row) for row in await self.inner.read_messages(instance_id)]

    async def read_parked(
        self, after: int = 0, limit: int = 100, *, message_id: str | None = None
    ) -> list[ParkedMessage]:
        """See `Store.read_parked`."""
        found = await self.inner.read_parked(after, limit, message_id=message_id)
        return [self._wrapping.parked(row) for row in found]

    async def get_instance(self, instance_id: str, *, payloads: bool = True) -> InstanceRow | None:
        """See `Store.get_instance`."""
        return self._instance(await self.inner.get_instance(instance_id, payloads=payloads))

    async def get_instances(self, instance_ids: Sequence[str]) -> list[InstanceRow | None]:
        """See `Store.get_instances`."""
        return [self._instance(row) for row in await self.inner.get_instances(instance_ids)]

    def _instance(self, row: InstanceRow | None) -> InstanceRow | None:
        return None if row is None else self._wrapping.instance(row)

    async def read_history(self, instance_id: str) -> list[HistoryRow]:
        """See `Store.read_history`."""
        return [self._wrapping.history(row) for row in await self.inner.read_history(instance_id)]

    async def get_entity(self, instance_id: str) -> EntityRow | None:
        """See `Store.get_entity`."""
        row = await self.inner.get_entity(instance_id)
        return None if row is None else self._wrapping.entity(row)

    async def query_entities(self, query: EntityQuery) -> EntitiesFound:
        """See `Store.query_entities`."""
        found = await self.inner.query_entities(query)
        return found._replace(rows=[self._wrapping.entity(row) for row in found.rows])

    async def query(self, query: InstanceQuery) -> Found:
        """See `Store.query`."""
        return self._found(await self.inner.query(query))

    async def query_with_waiting(self, query: InstanceQuery) -> FoundWithWaiting:
        """See `Store.query_with_waiting`."""
        asked = await self.inner.query_with_waiting(query)
        waiting = [self._wrapping.message(row) for row in asked.waiting]
        return asked._replace(found=self._found(asked.found), waiting=waiting)

    async def workload(self, now: int | None = None) -> Workload:
        """See `Store.workload`. Nothing of it is encrypted."""
        return await self.inner.workload(now)

    async def count(self, query: InstanceQuery) -> Counts:
        """See `Store.count`."""
        return await self.inner.count(query)

    def _found(self, found: Found) -> Found:
        return found._replace(rows=[self._wrapping.instance(row) for row in found.rows])


async def _refused(error: UnicodeEncodeError) -> NoReturn:
    raise StoreRefusedError(f"An id has a lone surrogate, so it is not UTF-8: {error.reason}") from None


def _named(key_ids: Sequence[str] | dict[str, bytes]) -> str:
    names = ", ".join(f"'{key_id}'" for key_id in key_ids)
    return f"key {names}" if len(key_ids) == 1 else f"keys {names}"
