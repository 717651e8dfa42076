"""Who may do what: permissions, the roles that bundle them, and the principal that a credential stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PERMISSIONS: Final = ("read", "payloads", "control", "start", "purge", "admin")
"""See states; see inputs, outputs and histories; raise, signal, pause, stop, rewind; start; delete; keys and functions."""

_ALL: Final = frozenset(PERMISSIONS)

ROLES: Final[dict[str, frozenset[str]]] = {
    "viewer": frozenset(("read",)),
    "reader": frozenset(("read", "payloads")),
    "operator": frozenset(("read", "payloads", "control")),
    "developer": frozenset(("read", "payloads", "control", "start")),
    "admin": _ALL,
}

LEVELS: Final = {"admin": 2, "developer": 1}
"""What a role opens of HTTP functions: who may start an orchestration may call the function that starts it."""

SYSTEM: Final = _ALL - {"admin"}
"""What the system key of the management API stands for: all of that API, and nothing of the host."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    Attributes:
        name: For people and for the audit log; no secret.
        permissions: Some of `PERMISSIONS`.
        instance_id: All it may touch, or None: everything in the hub.
        level: What it opens of HTTP functions: 0 nothing but anonymous ones, 1 also those of level ``function``, 2 all.
        function: The only function that level 1 opens, or None: all of them.
        expires_s: Until when, in seconds since 1970 UTC, where its credential says so to whoever has it; or None.
    """

    name: str
    permissions: frozenset[str] = frozenset()
    instance_id: str | None = None
    level: int = 0
    function: str | None = None
    expires_s: int | None = None

    def may(self, permission: str, instance_id: str | None = None) -> bool:
        """True when it has a permission, for this instance; None stands for more than one."""
        bound = self.instance_id
        return permission in self.permissions and (bound is None or bound == instance_id)


ANYBODY: Final = Principal("anonymous")
"""Without a credential."""

EVERYTHING: Final = Principal("local", _ALL, level=2)
"""Where nobody is asked for a credential."""
