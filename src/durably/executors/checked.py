"""A run that replays its history after each turn: code that is not deterministic shows at once, not after a crash."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from durably.core.events import OUTCOMES, Action, Arrival, HistoryEvent, TurnStarted
from durably.core.messages import WorkerAnswered
from durably.engine.executor import Executor, Run
from durably.errors import NonDeterminismError

_ALL_TURNS = 64
"""Events of a history up to which each turn is replayed."""
_EVERY = 4
"""Beyond, it is replayed whenever it has grown by this part of itself: else long histories would take quadratic time."""


class CheckedRun:
    """A run that replays its history and compares, as long as it lives.

    Args:
        run: Does the work.
        history: What it has gone through; appended to.
        executor: Replays.
        mismatch: Told when code and history differ.
    """

    def __init__(
        self,
        run: Run,
        history: list[HistoryEvent],
        executor: Executor,
        mismatch: Callable[[NonDeterminismError], None],
    ) -> None:
        self._run = run
        self._history = history
        self._executor = executor
        self._mismatch = mismatch
        self._now = -1
        self._next = 0

    def advance(self, event: Arrival, now: int) -> Sequence[Action]:
        """See `Run.advance`."""
        made = self._run.advance(event, now)
        history = self._history
        if now != self._now:
            self._now = now
            history.append(TurnStarted(now))
        history.append(event)
        history.extend(made)
        if len(history) >= self._next or (made and type(made[-1]) in OUTCOMES):
            self._next = 0 if len(history) < _ALL_TURNS else len(history) + len(history) // _EVERY
            self._check()
        return made

    def _check(self) -> None:
        try:
            self._executor.replay(self._history).close()
        except NonDeterminismError as error:
            self._mismatch(error)

    def answered(self, body: WorkerAnswered) -> WorkerAnswered | None:
        """See `Run.answered`."""
        return self._run.answered(body)

    def close(self) -> None:
        """See `Run.close`."""
        self._run.close()
