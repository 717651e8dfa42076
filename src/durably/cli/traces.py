"""Tracebacks as the author of the user's code wants them: without the frames of durably and of the import machinery."""

from __future__ import annotations

import importlib
import logging
import traceback
from types import TracebackType
from typing import TypeAlias

from durably.program.failures import is_ours

_ExcInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


def trace_of_users(error: BaseException) -> str:
    """The traceback of an error and of what caused it, with the frames of the user's code only."""
    whole = traceback.TracebackException.from_exception(error)
    one: traceback.TracebackException | None = whole
    while one is not None:
        frames = [frame for frame in one.stack if not _is_machinery(frame.filename)]
        one.stack = traceback.StackSummary.from_list(frames)
        one = one.__cause__ or one.__context__
    return "".join(whole.format())


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or is_ours(filename) or filename == importlib.__file__


class FormatterForUsers(logging.Formatter):
    """Log records with such tracebacks."""

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 - of the standard library
        """See `logging.Formatter.formatException`."""
        return "" if ei[1] is None else trace_of_users(ei[1]).rstrip("\n")
