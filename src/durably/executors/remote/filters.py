"""Which functions a worker takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Versions = frozenset[str]


class Filters:
    """What a worker has said that it takes.

    Args:
        wanted: By kind and name: versions, none for any. None: everything. A kind without a name in it takes nothing.
    """

    def __init__(self, wanted: Mapping[tuple[str, str], Versions] | None = None) -> None:
        self._wanted = wanted

    def match(self, kind: str, name: str, version: str) -> bool:
        """True when it takes a function of this name and version ("" for none)."""
        if self._wanted is None:
            return True
        versions = self._wanted.get((kind, name.lower() if kind == "entity" else name))
        return versions is not None and (not versions or version in versions)

    def names(self, kind: str) -> Iterable[str]:
        """The functions that it has named."""
        return [name for known, name in self._wanted or () if known == kind]
