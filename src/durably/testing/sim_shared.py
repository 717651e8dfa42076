"""The hub of a simulated fleet as one machine sees it: through a network that is slow, loses and repeats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from durably.core.commit import Batch
from durably.errors import HubClosedError, InvariantError, StoreFailedError, StoreUnavailableError
from durably.storage.api import Capabilities, Lease
from durably.storage.memory import MemoryStore
from durably.storage.news import News
from durably.testing.sim_machine import MachineLoop
from durably.testing.sim_scene import Scene
from durably.testing.sim_shared_hub import SharedHub
from durably.testing.sim_store import FaultRates

T = TypeVar("T")

_WRITES = frozenset(("_commit_now", "post"))
_NEVER_FAIL = frozenset(("_let_go",))
_QUICK_S = 0.002
_FROZEN_LOOK_S = 0.05


@dataclass
class NetworkRates(FaultRates):
    """How often what goes wrong, as probabilities per call or wake-up. See also `FaultRates`.

    Attributes:
        late: A write is given up by its caller, and applied after that.
        stuck: A call does not leave its machine before the machine looks at it again: it waits while that is frozen.
        gap: Time passes between the moments in which a call arrives at the hub, is done, and is answered.
        slow_receipt: Of the writes that are not answered at once: it takes up to a second.
        wake_lost: Nobody is told that something was written.
        wake_doubled: It is told twice.
        wake_late: It is told later, perhaps behind the next one.
    """

    failed: float = 0.002
    doubtful: float = 0.07
    late: float = 0.03
    stuck: float = 0.3
    gap: float = 0.4
    slow_receipt: float = 0.2
    wake_lost: float = 0.25
    wake_doubled: float = 0.1
    wake_late: float = 0.2

    def stop(self) -> None:
        """From now on nothing goes wrong, but that wake-ups are lost: polling has to do without them."""
        super().stop()
        self.late = self.stuck = self.gap = self.slow_receipt = 0.0


class SharedStore(MemoryStore):
    """The hub as one machine sees it.

    Args:
        scene: The world.
        hub: The data.
        machine: Whose store it is.
        name: Of the machine, for the trace.
        rates: What goes wrong how often.
        applied: Called with each batch once it is applied, before its sender knows.
    """

    inbox_in_order = False
    """What its capabilities say; see `SharedHub`."""

    def __init__(
        self,
        scene: Scene,
        hub: SharedHub,
        *,
        machine: MachineLoop,
        name: str,
        rates: NetworkRates,
        applied: Callable[[Batch], None],
    ) -> None:
        super().__init__(hub)
        self._scene = scene
        self._shared = hub
        self._machine = machine
        self._name = name
        self._rates = rates
        self._on_applied = applied
        self._disk_failed = False

    @property
    def capabilities(self) -> Capabilities:
        """See `Store.capabilities`."""
        return super().capabilities._replace(inbox_in_order=self.inbox_in_order)

    @property
    def listening(self) -> bool:
        """See `Store.listening`. It never knows."""
        return False

    def die(self) -> None:
        """Nothing leaves this store any more, and nothing comes back. What has left may still arrive."""
        self.abandon()

    # --- calls -------------------------------------------------------------------------------------------------------

    def _later(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """All calls come through here: a way to the hub, what it does there, and the way back."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._state != "open":
            answer.set_exception(_gone())
            return answer
        kind = work.__name__
        if kind in _NEVER_FAIL:
            self._scene.loop.call_later(self._delay(), lambda: _settle(answer, work, arguments))
            return answer
        fate = self._fate(kind)
        send = self._machine if self._happens("stuck", counts=False) else self._scene.loop
        way = self._delay()
        if fate == "late":
            send.call_later(way + self._scene.chance.random(), self._arrive, None, kind, work, arguments)
        elif fate != "unavailable":
            told = None if fate == "doubtful" else answer
            send.call_later(way, self._arrive, told, kind, work, arguments)
        if fate:
            error = StoreUnavailableError(f"simulated: {fate}")
            self._machine.call_later(way + self._delay(), self._tell, answer, None, error)
        return answer

    def _fate(self, kind: str) -> str:
        if self._happens("unavailable"):
            return "unavailable"
        if self._happens("doubtful"):
            return "doubtful"
        return "late" if kind in _WRITES and self._happens("late") else ""

    def _arrive(
        self,
        answer: asyncio.Future[Any] | None,
        kind: str,
        work: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        """A request is at the hub. What it writes is seen a moment later, but its positions are given now."""
        count = 0
        if kind == "_commit_now":
            count = len(arguments[1].inbox_put)
        elif kind == "post":
            count = len(arguments[0])
        positions = self._shared.reserve(count)
        if count and self._happens("gap", counts=False):
            self._scene.loop.call_later(self._delay(), self._do, answer, kind, work, arguments, positions)
        else:
            self._do(answer, kind, work, arguments, positions)

    def _do(
        self,
        answer: asyncio.Future[Any] | None,
        kind: str,
        work: Callable[..., Any],
        arguments: tuple[Any, ...],
        positions: Sequence[int],
    ) -> None:
        result, error = None, None
        try:
            if self._disk_failed:
                raise StoreFailedError("simulated: the server is gone for good")
            with self._shared.at(positions):
                result = work(*arguments)
        except Exception as raised:  # noqa: BLE001 - whatever it is, it belongs to the caller
            error = raised
        if kind == "_acquire" and answer is None and result is not None:
            self._leases.pop(result.partition, None)  # nobody knows of it: it will run out
        if answer is None:
            return
        if self._happens("gap", counts=False):
            way = (
                self._delay()
                if kind not in _WRITES or not self._happens("slow_receipt")
                else self._scene.chance.random()
            )
            self._machine.call_later(way, self._tell, answer, result, error)
        else:
            self._machine.call_soon(self._tell, answer, result, error)

    def _tell(self, answer: asyncio.Future[Any], result: object, error: Exception | None) -> None:
        if answer.done():
            return
        if self._state == "abandoned":
            answer.set_exception(_gone())
        elif error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    def _delay(self) -> float:
        longest_s = self._rates.slow_s if self._happens("slow") else _QUICK_S
        return self._scene.chance.random() * longest_s

    def _happens(self, name: str, *, counts: bool = True) -> bool:
        if self._scene.chance.random() >= getattr(self._rates, name):
            return False
        if counts:
            self._scene.report.faults[name] += 1
        return True

    # --- commits -----------------------------------------------------------------------------------------------------

    def _commit_now(self, lease: Lease, batch: Batch) -> None:
        partition = self.hub.partitions[lease.partition]
        known, epoch = partition.batch, partition.epoch
        what = f"p{lease.partition} batch {batch.number} of epoch {lease.epoch}"
        if self._happens("failed"):
            self._disk_failed = True
        try:
            super()._commit_now(lease, batch)
        except Exception as error:
            self._scene.trace.add(self._name, f"{what} refused: {type(error).__name__}")
            raise
        if partition.batch == known:
            self._scene.trace.add(self._name, f"{what} repeated")
            return
        self._scene.trace.add(self._name, f"{what} applied: {_told(batch)}", batch)
        if lease.epoch != epoch:
            error = InvariantError("I4", "-", f"{what} was applied in epoch {epoch}")
            self._scene.give_up(error)
        self._on_applied(batch)
        if self._disk_failed:
            raise StoreFailedError("simulated: the server is gone for good")

    # --- leases and wake-ups -----------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """What a thread does for the leases stands still with its machine."""
        if self._machine.frozen and self._state == "open":
            self._keeping = self.hub.clock.call_later(int(_FROZEN_LOOK_S * 1_000_000), self._keep)
        else:
            super()._keep()

    def _lose(self, lease: Lease) -> None:
        """The host may hear late of it."""
        if self._happens("wake_late"):
            self._scene.loop.call_later(self._scene.chance.random(), super()._lose, lease)
        else:
            super()._lose(lease)

    def _written(self, lease: Lease, partitions: set[int]) -> None:
        if self._owns(partitions - {lease.partition}):
            self._wake()

    def _owns(self, partitions: set[int]) -> bool:
        return any(self.hub.partitions[number].holder is self for number in partitions)

    def _wake(self) -> None:
        told = self._shared.told
        if (told is not None and not self._owns(told)) or self._happens("wake_lost"):
            return
        if self._happens("wake_doubled"):
            super()._wake()
        if self._happens("wake_late"):
            self._scene.loop.call_later(self._scene.chance.random() * 0.5, super()._wake)
        else:
            super()._wake()

    def _heard(self, news: News) -> None:
        if self._happens("wake_lost"):
            return
        if self._happens("wake_late"):
            self._scene.loop.call_later(self._scene.chance.random() * 0.5, super()._heard, news)
        else:
            super()._heard(news)


def _settle(answer: asyncio.Future[Any], work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    result = work(*arguments)
    if not answer.done():
        answer.set_result(result)


def _gone() -> HubClosedError:
    return HubClosedError("simulated: this process is dead")


def _told(batch: Batch) -> str:
    """What a batch does, for people."""
    ids = [row.instance_id for row in (*batch.instances, *batch.changes, *batch.entities)]
    put = [row.instance_id for row in batch.inbox_put]
    return f"{' '.join(ids)} history {len(batch.history)} sends {put} consumes {len(batch.inbox_consumed)}"
