"""Looks at a container again and again: what is new gets a receipt and is handled, receipts of what is gone may go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import msgspec

from durably.bindings.blobs.store import BlobEntry, BlobStore
from durably.core.blobs import receipt_of, receipt_prefix
from durably.core.entities import EntityState
from durably.core.messages import CallEntity
from durably.core.query import PAGE_SIZE_MAX, EntityQuery
from durably.errors import EntityCorruptError, HubClosedError, OperationError
from durably.management import Management
from durably.triggers.blob_function import BlobFunction, item_of
from durably.triggers.blob_receipts import FOUND, GONE, Receipt, decode_receipt

_AT_ONCE: Final = 256
"""Receipts that are on their way to the hub."""

_SHARE: Final = 10
"""Looking takes no more than one part in so many of the time, however many blobs there are."""

_PAUSE_MAX_S: Final = 60.0

_LOAD_S: Final = 60.0
_LOAD_SHARE: Final = 100
"""Receipts are read again after so long, and no more than one part in so many of the time: other hosts change them too."""

T = TypeVar("T")

_log = logging.getLogger("durably.blob")


class BlobWatch:
    """Looks at one container for all functions that take blobs of it.

    It paces itself by the machine's time, whatever the clock of the host is: what it looks at is the machine's.

    Args:
        container: The container.
        store: Where it is.
        functions: Which take blobs of it.
        management: Of the hub.
    """

    def __init__(
        self, container: str, store: BlobStore, functions: Sequence[BlobFunction], management: Management
    ) -> None:
        self._container = container
        self._store = store
        self._functions = functions
        self._management = management
        intervals = [one.interval_s for one in functions if one.interval_s is not None]
        self._interval_s = min(intervals, default=store.interval_s)
        self._prefix = _common([one.pattern.prefix for one in functions])
        self._known: dict[str, dict[str, str]] = {}
        """Of each function: the version of each blob that has a receipt."""
        self._fresh: dict[str, dict[str, str]] = {}
        """The part of it that came after the receipts were read: those may be on their way to the hub still."""
        self._given_up: dict[str, set[str]] = {}
        """Of each function: blobs whose receipts were marked, and that were not seen since. Another host that sees
        one corrects its receipt, and is not contradicted."""
        self._load_at = 0.0
        self._growing: dict[str, str] = {}
        """The version of each blob that may be half written, as of the look before."""
        self._missing: set[str] = set()
        """Blobs with receipts that were not there at the look before."""
        self._took_s = 0.0
        """How long the last look took, without what came of it."""

    async def run(self) -> None:
        """Look for ever."""
        trouble = 0
        while True:
            try:
                await self._load()
                await self._look()
                trouble = 0
            except HubClosedError:
                return
            except OperationError as error:
                trouble += 1
                if trouble == 1:
                    _log.warning("container '%s' is looked at again later: %s", self._container, error)
            except Exception:  # noqa: BLE001 - whatever it is: looking must go on
                trouble += 1
                _log.exception("container '%s' is looked at again later", self._container)
            pause = max(self._interval_s, _SHARE * self._took_s)
            await asyncio.sleep(min(pause * 2 ** min(trouble, 10), max(pause, _PAUSE_MAX_S)))

    async def _load(self) -> None:
        """Read the receipts that there are, once in a while."""
        now = asyncio.get_running_loop().time
        begun = now()
        if begun < self._load_at:
            return
        for function in self._functions:
            await self._load_receipts(function.name)
        self._load_at = now() + max(_LOAD_S, _LOAD_SHARE * (now() - begun))

    async def _load_receipts(self, function: str) -> None:
        known, names = dict[str, str](), set[str]()
        given_up = self._given_up.get(function, set())
        query = EntityQuery(prefix=receipt_prefix(function), page_size=PAGE_SIZE_MAX)
        while True:
            found = await self._management.query_entities(query)
            for row in found.rows:
                try:
                    state = EntityState.of(row).state
                except EntityCorruptError:  # its next version says so
                    continue
                receipt = None if state is None else decode_receipt(state)
                if receipt is None or not self._is_listed(receipt):
                    continue
                names.add(receipt.name)
                if receipt.version and not receipt.gone and receipt.name not in given_up:
                    known[receipt.name] = receipt.version
            if found.next_after is None:
                break
            query = msgspec.structs.replace(query, after=found.next_after)
        self._known[function] = known | self._fresh.get(function, {})
        self._fresh[function] = {}
        self._given_up[function] = given_up & names

    def _is_listed(self, receipt: Receipt) -> bool:
        """False for what the function took under another path: whether that is gone, nobody looks."""
        return receipt.container == self._container and receipt.name.startswith(self._prefix)

    async def _look(self) -> None:
        there, growing = set[str](), dict[str, str]()
        now = asyncio.get_running_loop().time
        begun, taking_s = now(), 0.0
        async for page in self._store.list(self._container, self._prefix):
            there.update(entry.name for entry in page)
            listed = now()
            for function in self._functions:
                known = self._known[function.name]
                new = [one for one in page if known.get(one.name) != one.version]
                await self._take([one for one in new if self._counts(function, one, growing)], function)
            taking_s += now() - listed
        self._took_s = now() - begun - taking_s
        self._growing = growing
        missing = {name for known in self._known.values() for name in known if name not in there}
        given_up = missing & self._missing
        if given_up:
            # Raises when the container is away: then nobody knows what is gone.
            await self._store.head(self._container, next(iter(given_up)))
            await self._give_up(given_up)
        self._missing = missing

    def _counts(self, function: BlobFunction, entry: BlobEntry, growing: dict[str, str]) -> bool:
        """True for a version that the function takes, and that nobody is still writing."""
        if function.pattern.match(entry.name) is None:
            return False
        if entry.whole or self._growing.get(entry.name) == entry.version:
            return True
        growing[entry.name] = entry.version
        return False

    async def _take(self, entries: Sequence[BlobEntry], function: BlobFunction) -> None:
        """Give versions their receipts, which start what handles them."""
        known = self._known[function.name]
        for some in _by(entries, _AT_ONCE):
            items = [item_of(function.name, self._container, entry) for entry in some]
            await self._signal(
                (receipt_of(function.name, self._container, item.name), FOUND, msgspec.json.encode(item))
                for item in items
            )
            for item in items:
                known[item.name] = self._fresh[function.name][item.name] = item.version
                self._given_up[function.name].discard(item.name)

    async def _give_up(self, names: set[str]) -> None:
        """Mark the receipts of blobs that are gone."""
        for function in self._functions:
            known = self._known[function.name]
            for some in _by([name for name in names if name in known], _AT_ONCE):
                await self._signal(
                    (receipt_of(function.name, self._container, name), GONE, None) for name in some
                )
                for name in some:
                    del known[name]
                    self._fresh[function.name].pop(name, None)
                    self._given_up[function.name].add(name)

    async def _signal(self, signals: Iterable[tuple[str, str, bytes | None]]) -> None:
        await asyncio.gather(
            *(
                self._management.signal_entity(receipt, CallEntity(operation, payload))
                for receipt, operation, payload in signals
            )
        )


def _common(prefixes: Sequence[str]) -> str:
    """What all begin with."""
    first, last = min(prefixes), max(prefixes)
    same = next(
        (at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first)
    )
    return first[:same]


def _by(things: Sequence[T], count: int) -> Iterable[Sequence[T]]:
    """A few at a time."""
    return (things[at : at + count] for at in range(0, len(things), count))
