"""The failure of user code as it is stored: with the frames of users, without ours."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final

from durably.errors import FailureDetails, TaskFailedError

_OURS: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # noqa: PTH100, PTH120 - text only


def is_ours(filename: str) -> bool:
    """True for a source file of this package."""
    return filename.startswith(_OURS)


def describe(error: BaseException) -> FailureDetails:
    """`FailureDetails` of an exception and its causes, without our own frames in their stack traces."""
    for one in _chain(error):
        one.__traceback__ = _of_users(one.__traceback__)
    return FailureDetails.of(error)


def failed_tasks(error: BaseException) -> tuple[int, ...]:
    """The calls whose failures are among the causes of an exception, in the order of their numbers."""
    found = {one.task_id for one in _chain(error) if isinstance(one, TaskFailedError)}
    return tuple(sorted(seq for seq in found if seq >= 0))


def forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an exception and its causes, and with them the circle of frames, tasks and errors."""
    for one in _chain(error):
        one.__traceback__ = None


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        found.append(one)
        waiting += (one.__cause__, one.__context__)
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions  # pyright: ignore[reportUnknownMemberType] - of any exceptions
    return found


def _of_users(trace: TracebackType | None) -> TracebackType | None:
    kept: list[TracebackType] = []
    while trace is not None:
        if not is_ours(trace.tb_frame.f_code.co_filename):
            kept.append(trace)
        trace = trace.tb_next
    result: TracebackType | None = None
    for one in reversed(kept):
        result = TracebackType(result, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return result
