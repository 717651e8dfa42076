"""Is there an order of these calls, one at a time, in which each gets the answer that it got? (C16, after Wing and Gong.)"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A call of a client, from when it was made until it was answered."""

    made: float
    answered: float
    what: str
    answer: Any


State = Hashable
Model = Callable[[State, str], Iterable[tuple[Any, State]]]
"""The answers that a call may get in a state, each with the state that follows."""

Drift = Callable[[State], Iterable[State]]
"""Where a state may go by itself."""


def linearizable(calls: list[Call], start: State, model: Model, drift: Drift) -> bool:
    """True when the calls fit into one line, in which no call comes before one that was answered before it was made."""
    everything = (1 << len(calls)) - 1
    before = [
        sum(1 << n for n, other in enumerate(calls) if other.answered < call.made) for call in calls
    ]  # what must stand in the line already
    seen: set[tuple[int, State]] = set()
    todo: list[tuple[int, State]] = [(0, start)]
    while todo:
        done, state = todo.pop()
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if done == everything:
            return True
        todo += [(done, other) for other in drift(state)]
        for n, call in enumerate(calls):
            if not done >> n & 1 and before[n] & ~done == 0:
                todo += [
                    (done | 1 << n, after)
                    for answer, after in model(state, call.what)
                    if answer == call.answer
                ]
    return False
