"""Callers waiting for an instance to end, or to change; they belong to the host and outlive a partition object."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from durably.core.status import Outcome


class CommitWatch:
    """Implements `durably.management.Watch`: a flag and no queue, so that whoever is slow costs nothing."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """See `Watch.changed`."""
        await self._changed.wait()
        self._changed.clear()

    def wake(self) -> None:
        """Something is durable that was not."""
        self._changed.set()


class Waiters:
    """Futures by instance, resolved when its terminal commit is durable; and watches, woken by each of its commits."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[Outcome]]] = {}
        self._watching: dict[str, list[CommitWatch]] = {}
        self._error: Exception | None = None

    def add(self, instance_id: str) -> asyncio.Future[Outcome]:
        """A future of the outcome; the caller hands it to `discard` when it stops waiting.

        After `fail` it has failed already: nobody would ever resolve it.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._error is not None:
            refuse(future, self._error)
            return future
        waiting = self._waiting.get(instance_id)
        if waiting is None:
            self._waiting[instance_id] = [future]
        else:
            waiting.append(future)
        return future

    def discard(self, instance_id: str, future: asyncio.Future[Outcome]) -> None:
        """Stop waiting. Idempotent."""
        waiting = self._waiting.get(instance_id)
        if waiting is not None and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._waiting[instance_id]

    def ended(self, instance_id: str, outcome: Outcome) -> None:
        """Answer everybody who waits for the instance."""
        for future in self._waiting.pop(instance_id, ()):
            if not future.done():
                future.set_result(outcome)

    @contextmanager
    def watch(self, instance_id: str) -> Generator[CommitWatch]:
        """A watch on an instance, for as long as the block lasts."""
        watch = CommitWatch()
        watching = self._watching.setdefault(instance_id, [])
        watching.append(watch)
        try:
            yield watch
        finally:
            watching.remove(watch)
            if not watching:
                del self._watching[instance_id]

    def moved(self, whose: Callable[[str], bool], error: Exception) -> None:
        """Some instances are another host's now: answer who waits for them with an error, and wake who watches them."""
        for instance_id in [instance_id for instance_id in self._waiting if whose(instance_id)]:
            for future in self._waiting.pop(instance_id):
                if not future.done():
                    refuse(future, error)
        for instance_id in [instance_id for instance_id in self._watching if whose(instance_id)]:
            self.changed(instance_id)

    def changed(self, instance_id: str) -> None:
        """Tell whoever watches the instance that rows of it are durable."""
        if self._watching:
            for watch in self._watching.get(instance_id, ()):
                watch.wake()

    def fail(self, error: Exception) -> None:
        """Answer everybody with an error, from now on too: the host is going away."""
        self._error = error
        for waiting in self._waiting.values():
            for future in waiting:
                if not future.done():
                    refuse(future, error)
        self._waiting.clear()
        for watching in self._watching.values():
            for watch in watching:
                watch.wake()


def refuse(future: asyncio.Future[Any], error: Exception) -> None:
    """Fail a future whose caller may have left: the loop must not report that nobody looked at it."""
    future.set_exception(error)
    future.exception()
