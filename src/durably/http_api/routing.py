"""Routes as rows of a table: method, path, what it needs, what answers it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import unquote

from starlette.responses import Response

from durably.http_api.incoming import Incoming

Handler = Callable[[Incoming], Awaitable[Response]]


class Route(NamedTuple):
    """One row.

    Attributes:
        method: In capitals.
        path: With parameters in braces; each is one segment. One at the end in brackets may be missing.
        needs: The permission, see `durably.security.roles`.
        handler: What answers; parameters are in ``request.path_params``.
    """

    method: str
    path: str
    needs: str
    handler: Handler


class Found(NamedTuple):
    """The route of a request, and the parameters in its path."""

    route: Route
    parameters: dict[str, Any]


class Table:
    """Finds the route of a request. Of two that match, the one that was added first."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = list(routes)
        self._rows = [
            (route.path.partition("{")[0].rstrip("[/"), re.compile(_pattern(route.path)), route)
            for route in self.routes
        ]

    def find(self, method: str, path: str) -> Found | None:
        """The route of a path as it came, percent-encoded, so that a ``%2F`` separates nothing; or None."""
        for prefix, pattern, route in self._rows:
            if route.method != method or not path.startswith(prefix):
                continue  # tells most of them at a tenth of the price
            if (match := pattern.fullmatch(path)) is not None:
                parameters = {name: unquote(value) for name, value in match.groupdict().items() if value}
                return Found(route, parameters)
        return None

    def methods(self, path: str) -> list[str]:
        """The methods that a path is there for."""
        return sorted({route.method for _, pattern, route in self._rows if pattern.fullmatch(path)})


def _pattern(path: str) -> str:
    optional = re.sub(r"\[/\{(\w+)\}\]", r"(?:/(?P<\1>[^/]+))?", path)
    return re.sub(r"(?<!P)\{(\w+)\}", r"(?P<\1>[^/]+)", optional) + "/?"
