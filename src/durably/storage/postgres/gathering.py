"""Reads of several partitions as one statement: what is asked in one turn of the loop, or while another one is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Generic, TypeVar, cast

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Gathering(Generic[Asked, Answer]):
    """Sends questions together.

    Args:
        ask: Answers several questions, in order.
        name: Of the tasks, for people.
        at_once: So many statements may be under way: what takes long does not keep the others.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]],
        *,
        name: str,
        at_once: int = 1,
    ) -> None:
        self._ask = ask
        self._name = name
        self._at_once = at_once
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._begun = False  # a task that has taken nothing yet
        self._working: set[asyncio.Task[None]] = set()

    def __call__(self, asked: Asked) -> asyncio.Future[Answer]:
        """Ask."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if not self._begun and len(self._working) < self._at_once:
            self._begun = True
            self._working.add(asyncio.create_task(self._work(), name=self._name))
        return answer

    async def _work(self) -> None:
        """Begins in the next turn of the loop: until then others join."""
        self._begun = False
        task = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                await self._send([one for one in waiting if not one[1].done()])
        finally:
            self._working.discard(task)
            if not self._working:
                for _, answer in self._waiting:  # only when this task was cancelled
                    answer.cancel()

    async def _send(self, waiting: list[tuple[Asked, asyncio.Future[Answer]]]) -> None:
        if not waiting:
            return
        try:
            answers = await self._ask([asked for asked, _ in waiting])
        except Exception as error:  # noqa: BLE001 - whatever it is, who asked has to hear of it
            for _, answer in waiting:
                if not answer.done():
                    answer.set_exception(error)
            return
        except BaseException:
            for _, answer in waiting:
                answer.cancel()
            raise
        for (_, answer), found in zip(waiting, answers, strict=True):
            if not answer.done():
                answer.set_result(found)


def divided(asked: Sequence[Sequence[object]], found: Iterable[Answer]) -> list[list[Answer]]:
    """Take an answer to several lists apart again: one item for each of theirs."""
    rest = iter(found)
    return [list(islice(rest, len(one))) for one in asked]
