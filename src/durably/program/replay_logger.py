"""The logger of an orchestrator: each line once, although the code runs again on every replay."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from durably.program.decisions import Decisions
from durably.program.loop import ProgramLoop


class ReplaySafeLogger(logging.LoggerAdapter[logging.Logger]):
    """Drops what is logged while replaying, and while the code is being torn down.

    Records carry ``instance_id`` and ``orchestrator`` as extra fields.
    """

    def __init__(self, loop: ProgramLoop, decisions: Decisions, extra: dict[str, object]) -> None:
        super().__init__(logging.getLogger("durably.orchestrator"), extra)
        self._loop = loop
        self._decisions = decisions

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - as logging spells it
        """False while nothing must be logged. Do not branch on it: a replay would decide otherwise."""
        return not (self._loop.is_replaying or self._decisions.closed) and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add our fields to those of the call."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs
