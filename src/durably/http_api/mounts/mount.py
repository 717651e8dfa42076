"""Mounted applications of an app: at which paths they are, and which one a request is for."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from durably.errors import RegistrationError
from durably.http_api.functions.function import LEVELS
from durably.http_api.links import BASE, RPC
from durably.http_api.v1.operation import V1

RESERVED: Final = (f"/{BASE.split('/')[1]}", RPC, V1, "/admin")
"""What is below these is the host's own, whether there is something or not."""

_PATH: Final = re.compile(r"/|(?:/[A-Za-z0-9_.~-]+)+")


def is_reserved(path: str) -> bool:
    """True for a path that is the host's own. Case tells nothing apart here: `/ADMIN` would only mislead."""
    return any(_is_below(path.lower(), one) for one in RESERVED)


@dataclass(frozen=True)
class Mount:
    """An application at a path.

    Attributes:
        path: Where it is, with everything below; ``"/"`` for what nothing else answers.
        app: It.
        level: What a caller needs, see `LEVELS`.
        name: What function keys know it by.
        threads: How many requests a WSGI application is given at once; 0: it is an ASGI application.
    """

    path: str
    app: Callable[..., Any]
    level: int
    name: str
    threads: int = 0

    @property
    def shown(self) -> str:
        """Its path, for people."""
        return f"{self.path.rstrip('/')}/*"

    def takes(self, path: str) -> bool:
        """True when a path is below its own."""
        return _is_below(path, self.path)


def make_mount(path: str, app: Any, *, auth_level: str, name: str | None, threads: int) -> Mount:
    """A mount.

    Raises:
        RegistrationError: The path is none or reserved, the level is unknown, or this is no such application.
    """
    what = f"Application at {path!r}"
    if type(path) is not str or not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise RegistrationError(
            f"{what}: expected a path such as '/shop' or '/api/shop', of letters, digits, '_', '.', '~' and '-', without '/' at "
            "its end"
        )
    if is_reserved(path):
        raise RegistrationError(
            f"{what} would be in the host's own place: expected a path that is not below {', '.join(RESERVED)}"
        )
    level = LEVELS.get(auth_level)
    if level is None:
        raise RegistrationError(f"{what} has auth_level={auth_level!r}: expected one of {', '.join(LEVELS)}")
    if not callable(app) or inspect.isclass(app) or not _takes(app, 2 if threads else 3):
        kind, call = ("WSGI", "(environ, start_response)") if threads else ("ASGI", "(scope, receive, send)")
        other = "mount() is for ASGI" if threads else "mount_wsgi() is for WSGI"
        raise RegistrationError(f"{what} is {app!r}: expected a callable of {kind}, {call}; {other}")
    return Mount(
        path, app, level, path.strip("/").replace("/", "-") or "root" if name is None else name, threads
    )


class Mounts:
    """Mounted applications, the longest paths first."""

    def __init__(self) -> None:
        self._mounts: list[Mount] = []

    def add(self, mount: Mount) -> None:
        """Take one more.

        Raises:
            RegistrationError: Its path or name is taken.
        """
        self.check(mount)
        self._mounts.append(mount)
        self._mounts.sort(key=lambda one: len(one.path), reverse=True)

    def check(self, mount: Mount) -> None:
        """Refuse one that `add` would. Raises as that."""
        for other in self._mounts:
            if mount.path == other.path or mount.name == other.name:
                raise RegistrationError(
                    f"An application '{other.name}' is mounted at '{other.path}' already: expected another path than "
                    f"'{mount.path}', and another name= than '{mount.name}'"
                )

    def merge(self, other: Mounts) -> None:
        """Take over all of another app. Raises as `add`; nothing is taken over then."""
        for mount in other:
            self.check(mount)
        for mount in other:
            self.add(mount)

    def __iter__(self) -> Iterator[Mount]:
        return iter(list(self._mounts))

    def __len__(self) -> int:
        return len(self._mounts)


def _is_below(path: str, root: str) -> bool:
    return root in {"/", path} or path.startswith(f"{root}/")


def _takes(app: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(app).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # of code without a signature, which is not refused for that
        return True
    return True
