"""What an HTTP function does through its client, for the audit log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from durably.management import Management
from durably.security.audit_chain import shortened

CHANGES: Final = frozenset(
    (
        "start",
        "raise_event",
        "cancel",
        "terminate",
        "suspend",
        "resume",
        "rewind",
        "restart",
        "purge",
        "signal_entity",
        "call_entity",
        "release_orphaned",
        "redrive",
        "discard",
        "drain_host",
    )
)
"""Operations of `Management` that change something; their first argument says what."""

_MOST: Final = 10
"""So many are named; of more, how many there were."""


class Did:
    """What was asked for, verb and id, in order."""

    def __init__(self) -> None:
        self._named: list[str] = []
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._count)

    def note(self, verb: str, target: str) -> None:
        """One more."""
        self._count += 1
        if len(self._named) < _MOST:
            self._named.append(shortened(f"{verb} {target}"))

    @property
    def told(self) -> tuple[str, ...]:
        """For a record."""
        more = self._count - len(self._named)
        return (*self._named, f"and {more} more") if more else tuple(self._named)


class _Witness:
    def __init__(self, management: Management, did: Did) -> None:
        self._management = management
        self._did = did

    def __getattr__(self, name: str) -> Any:
        act: Callable[..., Awaitable[Any]] = getattr(self._management, name)
        if name not in CHANGES:
            return act

        def noted(target: str, *arguments: Any, **named: Any) -> Awaitable[Any]:
            self._did.note(name, target)
            return act(target, *arguments, **named)

        return noted


def witnessed(management: Management, did: Did) -> Management:
    """The same operations, and a note of each that changes something: before it is carried out, so that none is missed."""
    return cast("Management", _Witness(management, did))
