"""Which Python files and settings have changed. By looking: whoever forks has no threads, and events come in threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable

_FOLDERS_MAX = 1_000
"""The nearest ones. A project has fewer; somebody's home has more."""

_NOT_ENTERED = frozenset(("__pycache__", "node_modules", "site-packages"))

_SETTINGS = frozenset(("host.json", "local.settings.json"))

Stamp = tuple[int, int, int]
"""Of a file: when it was written, its size, and which file it is (editors put a new one into the place of the old)."""


class Watch:
    """Looks at the Python files and settings of folders and of all that is below them.

    Args:
        folders: Where to look.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self._roots = _outermost(folders)
        self._seen = self._look()

    def add(self, folders: Iterable[str]) -> None:
        """Look there too, from now on; what they hold counts as seen."""
        roots = _outermost([*self._roots, *folders])
        if roots != self._roots:
            self._roots = roots
            for path, stamp in self._look().items():
                self._seen.setdefault(path, stamp)

    def changed(self) -> list[str]:
        """The files that were written, made or removed since the last call, sorted."""
        now = self._look()
        before, self._seen = self._seen, now
        return sorted(path for path in now.keys() | before.keys() if now.get(path) != before.get(path))

    def _look(self) -> dict[str, Stamp]:
        found: dict[str, Stamp] = {}
        folders = deque(self._roots)
        for _ in range(_FOLDERS_MAX):
            if not folders:
                break
            try:
                with os.scandir(folders.popleft()) as entries:
                    for entry in entries:
                        if entry.name.endswith(".py") or entry.name in _SETTINGS:
                            about = entry.stat()
                            found[entry.path] = (about.st_mtime_ns, about.st_size, about.st_ino)
                        elif _is_entered(entry):
                            folders.append(entry.path)
            except OSError:  # it went while we looked; the next look knows more
                continue
        return found


def _is_entered(entry: os.DirEntry[str]) -> bool:
    if entry.name[0] == "." or entry.name in _NOT_ENTERED or not entry.is_dir(follow_symlinks=False):
        return False
    return not os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))  # noqa: PTH110, PTH118 - many times a second


def _outermost(folders: Iterable[str]) -> list[str]:
    """Without those that are below others."""
    kept: list[str] = []
    for folder in sorted(set(folders)):
        if not any(folder == one or folder.startswith(f"{one.rstrip(os.sep)}{os.sep}") for one in kept):
            kept.append(folder)
    return kept
