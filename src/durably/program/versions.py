"""Versions: which of two is older, and which code may run an instance of a version.

Code has a version by its decorator (`@app.orchestrator(version="2.0")`), else that of its host, if it says one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

Match = Literal["none", "strict", "current_or_older"]

_PARTS: Final = re.compile(r"\d+|[^\d.\-+_]+")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Versioning:
    """What a host says about versions.

    Attributes:
        version: Of all code of this host whose decorator says none; None: such code says nothing about versions.
        default_version: What new instances get for which nobody asks for a version; None: that of the newest code.
        match: Which instances code may run: ``"strict"`` those of its own version, ``"current_or_older"`` also older
            ones, ``"none"`` all.
    """

    version: str | None = None
    default_version: str | None = None
    match: Match = "current_or_older"

    def accepts(self, version: str | None) -> bool:
        """True when code without a version of its own may run instances of a version."""
        if self.match == "none":
            return True
        if self.match == "strict":
            return version == self.version
        return self.version is None or version_key(version) <= version_key(self.version)

    def choose(self, registered: Mapping[str | None, _T], version: str | None) -> _T | None:
        """The code for instances of a version, or None.

        The code of that very version comes first, then code without a version, then the oldest that is newer than the
        instance. So code that is added takes no instance away from the code that it runs on, unless it fits better.

        Args:
            registered: The code of one orchestrator, by its version.
            version: Of the instance.
        """
        if version is not None and version in registered:
            return registered[version]
        if None in registered and self.accepts(version):
            return registered[None]
        if self.match == "strict":
            return None
        own = sorted((one for one in registered if one is not None), key=version_key)
        newer = [one for one in own if version_key(one) >= version_key(version)]
        if newer:
            return registered[newer[0]]
        return registered[own[-1]] if own and self.match == "none" else None

    def for_new(self, registered: Mapping[str | None, Any]) -> str | None:
        """The version of a new instance for which nobody asks for one: it has to be able to keep it.

        Args:
            registered: The code of its orchestrator, by its version.
        """
        if self.default_version is not None:
            return self.default_version
        if None in registered or not registered:
            return self.version
        return max(registered, key=version_key)


def version_key(version: str | None) -> tuple[Any, ...]:
    """What versions are compared by.

    1.10 is newer than 1.9 (digits compare as numbers), 1.0.1 than 1.0, 1.0 than 1.0-beta, and any version than none.
    """
    if not version:
        return ()
    parts = [(2, int(part)) if part[0].isdecimal() else (0, part) for part in _PARTS.findall(version)]
    return (*parts, (1,))
