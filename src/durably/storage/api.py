"""The provider contract: what a store promises, in one place. Proven by `durably.testing.store_conformance`.

All methods that return an awaitable are called on the host loop and complete there; how a provider waits for its disk
(a thread, a socket) is its own affair. Row types are in `durably.core.commit`. A provider never decodes `data` of a
history row, `body` of an inbox row, nor a payload.

Errors, the same for all methods: `StoreUnavailableError` (nothing was changed, may be tried again: busy, disk full,
connection lost before anything was sent), `StoreRefusedError` (this data will never be taken; nothing was changed),
`StoreFailedError` (an I/O error: state in memory must not be trusted, every later call fails the same way until the
hub is opened anew). A store object is opened once: before `open`, every call raises `UsageError`; after `close`, every
call raises `HubClosedError`, and the hub is opened anew with another object.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

from durably.core.commit import Batch, EntityRow, HistoryRow, InboxRow, InstanceRow, ParkedMessage, TimerRow
from durably.core.dump import DumpChunk
from durably.core.load import COUNT_MAX
from durably.core.query import (
    Counts,
    EntitiesFound,
    EntityQuery,
    Found,
    FoundWithWaiting,
    InstanceQuery,
)
from durably.storage.news import News
from durably.storage.shared_tasks import SharedTasks

FUNCTIONS_MAX: Final = 1_000
"""Of a `HostReport`: more are not told."""

WORKLOAD_MAX: Final = COUNT_MAX
"""Of a `Workload`: more of a kind is not counted."""


class Capabilities(NamedTuple):
    """Asked, never guessed.

    Attributes:
        partitions: Number of partitions of the hub.
        durable: False when the hub ends with its process.
        shared: True when hosts in several processes may serve the hub at once.
        wakeups: True when `on_arrival` calls back by itself; otherwise the host polls `read_inbox`.
        inbox_in_order: True when messages commit in the order of their positions, so that nothing appears behind a reader.
    """

    partitions: int
    durable: bool
    shared: bool
    wakeups: bool
    inbox_in_order: bool = False


class HubIdentity(NamedTuple):
    """Which hub it is.

    Attributes:
        hub_id: Random bytes that were made with the hub; a copy of it has the same.
        is_new: True when nothing has been written to it yet.
        keys: By id: the proof of each encryption key that was ever used in it, see `Store.add_key`.
    """

    hub_id: bytes
    is_new: bool
    keys: dict[str, bytes]


class Lease(NamedTuple):
    """The right to own a partition.

    Attributes:
        partition: 0 to partitions - 1.
        owner: Who holds it: text for people.
        epoch: Fencing number; grows by one with each acquisition. A commit of a lower epoch is refused.
        orphaned: The owner before did not release it: its process died, or gave up.
    """

    partition: int
    owner: str
    epoch: int
    orphaned: bool = False


class HostReport(NamedTuple):
    """What a host says of itself.

    Attributes:
        name: Text for people, such as "pid 12 on box".
        version: Of durably.
        functions: "kind:name" of what it has; the first `FUNCTIONS_MAX` of them.
        draining: It gives its partitions away, and takes none.
        backlog: How many of its activities wait for a place.
        oldest_us: How long the oldest of them has waited; None when none does.
        running: How many run.
        places: How many may run at once.
    """

    name: str
    version: str
    functions: tuple[str, ...] = ()
    draining: bool = False
    backlog: int = 0
    oldest_us: int | None = None
    running: int = 0
    places: int = 0


class HostInfo(NamedTuple):
    """A live host, as others see it.

    Attributes:
        host_id: Made with its store object; text that no other host ever has.
        report: What it said last.
        since: When it said something for the first time, in microseconds since 1970 by the clock of the hub.
        seen_at: When it did last.
        partitions: How many it owns.
        is_me: It is the store object that was asked.
        told_to_drain: See `Store.ask_to_drain`.
    """

    host_id: str
    report: HostReport
    since: int
    seen_at: int
    partitions: int
    is_me: bool
    told_to_drain: bool


class PartitionInfo(NamedTuple):
    """Who owns a partition.

    Attributes:
        partition: 0 to partitions - 1.
        owner: Who holds it, or held it last where that is known; for people.
        host_id: The host that owns it; None when nobody does, or its lease ran out.
        epoch: Of the newest lease.
        orphaned: Nobody owns it, and its owner did not release it.
    """

    partition: int
    owner: str
    host_id: str | None
    epoch: int
    orphaned: bool


class Survey(NamedTuple):
    """Who is there, and who owns what, at one moment.

    Attributes:
        partitions: All of them, in order.
        hosts: Those that are alive, by (since, host_id).
    """

    partitions: list[PartitionInfo]
    hosts: list[HostInfo]


class Workload(NamedTuple):
    """How much waits, see `durably.core.load.Load`. Moments are in microseconds since 1970.

    An instance is held when it is suspended, blocked, parked, or not to begin yet.

    No more than `WORKLOAD_MAX` rows of a kind are looked at. Where all of these are held, there may be others behind them: a
    hub that nobody has looked at wholly is not idle, so that counts as one message.

    Attributes:
        at: The moment.
        messages: That nobody has consumed, but for those to instances that are held. Numbers end at `WORKLOAD_MAX`.
        oldest_message_at: When the oldest of them was sent.
        newest_held_at: When the newest of the others was.
        timers_due: That are due and have not fired, but for those of instances that are held.
        oldest_due_at: When the first of them was due.
        next_due_at: When the next timer is due that is not due yet, of whatever instance.
        in_flight: Instances whose `in_flight` is set, and that are not held.
        tasks: In the queue of activities that all hosts share, where there is one: those that nobody has claimed.
        oldest_task_at: When the oldest of them was offered.
    """

    at: int
    messages: int
    oldest_message_at: int | None
    newest_held_at: int | None
    timers_due: int
    oldest_due_at: int | None
    next_due_at: int | None
    in_flight: int
    tasks: int = 0
    oldest_task_at: int | None = None


class WorkLog(Protocol):
    """What the owner of a partition is doing right now. It outlives the process, however that ends, but not the machine.

    Cheap, and never waits: a few bytes are copied. Entries mean nothing to a store.
    """

    @property
    def left(self) -> Sequence[bytes]:
        """What owners before this one were doing when they died, until `settle`."""
        ...

    def put(self, entry: bytes) -> int:
        """Note that work begins; returns its place for `drop`, or -1 when there is no room for it."""
        ...

    def drop(self, place: int) -> None:
        """The work has ended. Ignored for -1, and after the lease was released or the store closed."""
        ...

    def settle(self) -> None:
        """Forget what is left: it has been dealt with."""
        ...


class StoredInstance(NamedTuple):
    """All that is committed of one instance.

    Attributes:
        row: Its read model.
        history: The rows of its current execution, in order.
        inbox: Its messages that nobody has consumed, by position.
        oversize: Why `history` holds its first row only, for people; None when it is whole. A provider that has a limit on
            what it brings into memory says here which, and how it is raised.
    """

    row: InstanceRow
    history: list[HistoryRow]
    inbox: list[InboxRow]
    oversize: str | None = None


class Snapshot(NamedTuple):
    """What a new owner of a partition has to know, and nothing else.

    Attributes:
        batch: Number of the newest batch applied, 0 when there is none.
        execution: The highest execution number ever used; when there is none, the one before the first of this partition,
            see `durably.core.dump`: numbers are unique in the hub.
        in_flight: The instances whose `in_flight` is set, by execution number. `inbox` of these is empty: see `inbox`.
        timers: Timers due at or before the horizon, by (due_at, execution, seq, kind).
        inbox: All messages of the partition, by position.
        tasks: Ids of its attempts in the queue that all hosts share, claimed or not.
    """

    batch: int
    execution: int
    in_flight: list[StoredInstance]
    timers: list[TimerRow]
    inbox: list[InboxRow]
    tasks: frozenset[str] = frozenset()


class Store(Protocol):
    """One hub on one storage."""

    @property
    def url(self) -> str:
        """The hub URL that opens this store, without secrets; for messages to people."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """See `Capabilities`; valid once opened."""
        ...

    @property
    def listening(self) -> bool:
        """True while `on_arrival` is known to be called soon after a write, so that polling may be slow."""
        ...

    @property
    def tasks(self) -> SharedTasks | None:
        """The queue of activities that all hosts share; None where one host serves the hub alone. Valid once opened."""
        ...

    def partition_of(self, instance_id: str) -> int:
        """The partition that an instance or entity belongs to; never changes. Valid once opened."""
        ...

    # --- hub ---------------------------------------------------------------------------------------------------------

    async def open(self, *, create: bool = True) -> None:
        """Open the hub; create or migrate it where needed and allowed. Creating is idempotent.

        Raises:
            HubNotFoundError: It does not exist and `create` is False.
            HubVersionError: It was written by a newer version.
        """
        ...

    async def close(self) -> None:
        """Finish what is being written and let go of everything, leases of this object included. Idempotent."""
        ...

    async def delete(self) -> None:
        """Close, then delete the hub and all that is in it. Idempotent.

        Raises:
            HubLockedError: A live host owns it.
        """
        ...

    async def identity(self) -> HubIdentity:
        """See `HubIdentity`."""
        ...

    async def add_key(self, key_id: str, proof: bytes) -> None:
        """Remember, durably, that an encryption key is in use. The first proof of an id stays."""
        ...

    def dump(self) -> AsyncGenerator[DumpChunk]:
        """All rows of the hub as they are stored, of one moment, while hosts go on serving it; see `durably.core.dump`.

        What it needs in memory does not depend on the size of the hub. Close it, also when it is not read to its end.
        """
        ...

    async def restore(self, chunks: AsyncIterator[DumpChunk]) -> None:
        """Make the hub of a dump, wholly or not at all, with its id. Called instead of `open`, which follows.

        Who becomes its owner goes on where the one of the dumped hub was. The number of partitions may differ. When the
        process dies, or `chunks` raises, there is no hub.

        Raises:
            HubNotEmptyError: There is one already, which is left alone. A provider may take one that nobody has used.
            HubLockedError: Somebody else is making or serving it.
        """
        ...

    # --- leases ------------------------------------------------------------------------------------------------------
    #
    # On a shared hub a lease ends by the clock of the hub, never by one of this machine. The store object renews its
    # leases by itself, also while the host loop is blocked; not for ever: a loop that gives no sign of life for a minute
    # loses them. Whatever happened, a commit of an old epoch is refused: a host that was paused learns of it then.

    async def acquire(self, partition: int, owner: str) -> Lease:
        """Become the owner; the epoch grows by one, whoever had it before is fenced.

        Raises:
            HubLockedError: A live host of another process (or another store object of this one) owns it; the message
                names it. The lock of a dead process is taken over, and so is a lease that ran out.
        """
        ...

    async def renew(self, lease: Lease) -> None:
        """Extend the lease now.

        Raises:
            LeaseLostError: Somebody else acquired it, or it ran out.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Give the partition back, with nothing left undone; others are told. Ignored when it was lost already."""
        ...

    def on_lease_lost(self, callback: Callable[[Lease], None]) -> None:
        """Call back on the host loop when a lease of this object ran out, or somebody else acquired its partition.

        Once for a lease at most; not for one that was released, or that this object acquired anew.
        """
        ...

    async def work_log(self, lease: Lease) -> WorkLog:
        """The log of what is done under this lease. Without one nothing is left for the next owner to find.

        Raises:
            StoreUnavailableError: There is no room for one.
        """
        ...

    # --- hosts -------------------------------------------------------------------------------------------------------

    async def survey(self, report: HostReport | None = None) -> Survey:
        """Look who is there and who owns what, in one round trip.

        With a report, also say that this host is there: others see it for as long as a lease lasts from now, and are
        told when it is new. Without one it is only a look.
        """
        ...

    async def withdraw(self) -> None:
        """This host is going: others do not see it any more, and are told. `close` does it, too. Idempotent."""
        ...

    async def ask_to_drain(self, host_id: str) -> bool:
        """Ask a live host to give its partitions away; it is told. False when there is no such host."""
        ...

    # --- partition: only its owner calls these -----------------------------------------------------------------------

    async def load(self, lease: Lease, timers_until: int) -> Snapshot:
        """Read what a new owner needs; see `Snapshot`. Sees every batch of every earlier owner that was acknowledged."""
        ...

    def commit(self, lease: Lease, batch: Batch) -> Awaitable[None]:
        """Apply a batch: wholly or not at all, durable once the awaitable is done. Called again only after that.

        Idempotent by number: a batch whose number equals the newest applied one of the same partition and epoch was
        applied already, and succeeds without doing anything. Ownership of the batch passes to the store: the caller
        does not change it any more, but may send the same object again.

        Raises (from the awaitable):
            LeaseLostError: The epoch is not the current one; nothing was applied.
            InvariantError: The number is not the newest one plus one, or a history row exists already; nothing was
                applied. Also when a change names an instance that is not there.
        """
        ...

    def read_instances(
        self, lease: Lease, instance_ids: Sequence[str]
    ) -> Awaitable[list[StoredInstance | None]]:
        """Read whole instances, one answer per id in the same order, None for one that does not exist.

        Sees every batch whose `commit` has completed. One round trip for all of them.
        """
        ...

    def read_entities(self, lease: Lease, instance_ids: Sequence[str]) -> Awaitable[list[EntityRow | None]]:
        """Read rows of entities, one answer per id in the same order. Sees every batch whose `commit` has completed."""
        ...

    def read_timers(self, lease: Lease, after: int, until: int) -> Awaitable[list[TimerRow]]:
        """Timers with after < due_at <= until, by (due_at, execution, seq, kind)."""
        ...

    def read_inbox(self, lease: Lease, after: int = 0) -> Awaitable[list[InboxRow]]:
        """Messages of the partition with a position greater than `after`, by position.

        `after` is a hint that makes the usual case cheap: positions may commit out of order, so the owner also reads
        from 0 now and then and ignores what it holds.
        """
        ...

    # --- anybody -----------------------------------------------------------------------------------------------------

    async def post(self, messages: Sequence[InboxRow]) -> bool:
        """Add messages to the inbox, durable on return. A message whose id is in the inbox or a tombstone is ignored.

        Returns:
            True when live owners of all that they are for have been told; False: they wait for one, and an owner whose lease
            ran out commits nothing any more, so what is sent behind them is not dealt with before them. Without messages
            nothing is done, and it tells whether there is any live owner.
        """
        ...

    def on_arrival(self, callback: Callable[[], None]) -> None:
        """Call back on the host loop soon after somebody else wrote; may be early, late, or too often.

        Also after a lease was released, and after a host came, went, or was asked to drain.
        """
        ...

    def heed(self, callback: Callable[[News], None]) -> bool:
        """Call back on the running loop with what others make known by their commits, for the next ten seconds at least.

        Whoever waits for something calls this now and then as long as he does; the same callback counts once.

        Returns:
            True while hosts are known to tell, so that looking without news may be rare. False where nobody does, or nobody
            does yet.
        """
        ...

    async def verdicts(self, message_ids: Sequence[str]) -> list[bytes | None]:
        """What became of messages, by their tombstones: see `Tombstone.verdict`; None for one that has none (yet)."""
        ...

    async def read_messages(self, instance_id: str) -> list[InboxRow]:
        """The messages to an instance, existing or not, that nobody has consumed, by position."""
        ...

    async def read_parked(
        self, after: int = 0, limit: int = 100, *, message_id: str | None = None
    ) -> list[ParkedMessage]:
        """Messages that were set aside, by position: up to `limit` of those behind `after`, or the one of this id."""
        ...

    async def get_instance(self, instance_id: str, *, payloads: bool = True) -> InstanceRow | None:
        """The committed row, or None. `updated_at` covers the newest history row.

        Without `payloads`, input and output are None, and it takes no longer when they are large.
        """
        ...

    async def get_instances(self, instance_ids: Sequence[str]) -> list[InstanceRow | None]:
        """The same for several, in the same order, in one round trip."""
        ...

    async def read_history(self, instance_id: str) -> list[HistoryRow]:
        """The committed history of the current execution, in order; empty when there is no such instance."""
        ...

    async def get_entity(self, instance_id: str) -> EntityRow | None:
        """The committed row of an entity, or None."""
        ...

    async def query_entities(self, query: EntityQuery) -> EntitiesFound:
        """Entities that match, in order of their ids by code point. Each that existed throughout is seen exactly once."""
        ...

    async def query(self, query: InstanceQuery) -> Found:
        """Instances that match, in order of `Place`: an instance that is purged and started again goes to the end.

        Walking all pages visits every instance that existed throughout exactly once. A page is empty only when nothing
        is left.
        """
        ...

    async def query_with_waiting(self, query: InstanceQuery) -> FoundWithWaiting:
        """The same page, and messages that nobody has taken in, of one moment with it."""
        ...

    async def workload(self, now: int | None = None) -> Workload:
        """How much waits at this moment; by default by the clock of the hub, which is that of its server, where it has one.

        It takes milliseconds, however large the hub is, and however much waits.
        """
        ...

    async def count(self, query: InstanceQuery) -> Counts:
        """How many instances `query` finds on all its pages, by name and status; `after` and `page_size` mean nothing."""
        ...
