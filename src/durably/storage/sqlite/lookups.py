"""Instances that are asked for one at a time, and read many at a time.

A job wakes a thread, and its answer wakes the loop: for the row of one instance that costs several times what reading costs.
Those who ask in one step of the event loop ask at the same time, so one job reads for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from durably.core.commit import InstanceRow

_ROWS_MAX: Final = 64
"""Rows by one job: one that has many large payloads holds up others for no longer."""

_Hope: TypeAlias = "asyncio.Future[InstanceRow | None]"
_Answer: TypeAlias = "asyncio.Future[list[InstanceRow | None]]"


class Lookups:
    """Gathers what is asked for, until the next step of the loop of whoever asks.

    Args:
        read: Reads instances in the order of their ids; None for one that is not there.
    """

    def __init__(self, read: Callable[[Sequence[str]], _Answer]) -> None:
        self._read = read
        self._asked: dict[asyncio.AbstractEventLoop, list[tuple[str, _Hope]]] = {}

    def ask(self, instance_id: str) -> _Hope:
        """The row of an instance, or None."""
        loop = asyncio.get_running_loop()
        hope: _Hope = loop.create_future()
        asked = self._asked.get(loop)
        if asked is None:
            self._asked[loop] = asked = []
            loop.call_soon(self._look, loop)
        asked.append((instance_id, hope))
        return hope

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        asked = [
            one for one in self._asked.pop(loop) if not one[1].done()
        ]  # nobody waits for those that are cancelled
        for start in range(0, len(asked), _ROWS_MAX):
            some = asked[start : start + _ROWS_MAX]
            hopes = [hope for _, hope in some]
            try:
                answer = self._read([instance_id for instance_id, _ in some])
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
                _fail(hopes, error)
            else:
                answer.add_done_callback(partial(_hand_out, hopes))


def _hand_out(hopes: list[_Hope], answer: _Answer) -> None:
    if answer.cancelled():
        for hope in hopes:
            hope.cancel()
        return
    error = answer.exception()
    if error is not None:
        _fail(hopes, error)
        return
    for hope, row in zip(hopes, answer.result(), strict=True):
        if not hope.done():
            hope.set_result(row)


def _fail(hopes: list[_Hope], error: BaseException) -> None:
    for hope in hopes:
        if not hope.done():
            hope.set_exception(error)
