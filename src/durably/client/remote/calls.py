"""Calls of HTTP functions: which functions a host has, where they are, and what becomes of a 202."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, urlsplit

from durably.client.queries import status_of_row
from durably.client.remote.answer import Answer
from durably.client.remote.api import HostApi
from durably.client.remote.bodies import row_of
from durably.client.remote.refused import error_of
from durably.core.status import InstanceStatus
from durably.errors import AccessDeniedError, OperationError, UsageError

_FIRST_LOOK_S, _LOOK_MAX_S = 0.02, 1.0

_ORIGIN = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*:)?//[^/]*")

_PARAMETER = re.compile(r"\{(\*{0,2})(\w+)(?::\w+)?(\?)?\}")


@dataclass(frozen=True)
class Function:
    """A function of a host.

    Attributes:
        name: Its name.
        kind: ``httpTrigger``, ``orchestrationTrigger``, ``activityTrigger``, ``entityTrigger``.
        url: Of an HTTP function: where it is, with parameters in braces.
        methods: Of an HTTP function; empty: all.
    """

    name: str
    kind: str
    url: str = ""
    methods: tuple[str, ...] = ()


async def functions_of(api: HostApi) -> list[Function] | None:
    """The functions of a host, or None: it does not tell, or not with this key.

    Raises:
        OperationError: Nobody answers.
    """
    answer = await api.send("GET", f"{api.url}/admin/functions")
    if answer.status != 200:
        error = error_of(answer)
        if isinstance(error, AccessDeniedError) or answer.status == 404:
            return None
        raise error
    found: list[Function] = []
    for one in cast("list[dict[str, Any]]", answer.json()):
        trigger = one["config"]["bindings"][0]
        url = _at(api, one["invoke_url_template"] or "")
        found.append(Function(one["name"], trigger["type"], url, tuple(trigger.get("methods", ()))))
    return found


def _at(api: HostApi, template: str) -> str:
    """Where a function is at the host that was named: the key goes nowhere else, whatever that host says."""
    if not template:
        return ""
    path = "/" + _ORIGIN.sub("", template).lstrip("/")
    base = urlsplit(api.url).path.rstrip("/")
    if path.startswith(f"{base}/"):
        path = path.removeprefix(base)
    return f"{api.url.rstrip('/')}{path}"


def filled(function: Function, given: Mapping[str, str]) -> str:
    """The URL of an HTTP function, with its parameters.

    Raises:
        UsageError: One is missing, or is none of it.
    """
    names = [match[2] for match in _PARAMETER.finditer(function.url)]
    unknown = [name for name in given if name not in names]
    if unknown:
        known = ", ".join(names) or "none"
        raise UsageError(
            f"Function '{function.name}' has no parameter '{unknown[0]}' in its route: expected {known}"
        )

    def value(match: re.Match[str]) -> str:
        stars, name, mark = match.groups()
        if name in given:
            return quote(given[name], safe="/" if stars else "")
        if stars or mark:
            return ""
        raise UsageError(f"Function '{function.name}' needs '{name}' for its route: expected {name}=VALUE")

    return _PARAMETER.sub(value, function.url).rstrip("/")


def status_link(api: HostApi, answer: Answer) -> str | None:
    """Where the instance that an answer is about can be followed, or None.

    Raises:
        OperationError: Somewhere else than at the host: the key stays here.
    """
    if answer.status != 202:
        return None
    link = answer.headers.get("location")
    if link is None:
        return None
    if urlsplit(link)[:2] != urlsplit(api.url)[:2]:
        raise OperationError(
            f"The answer links to {link[:100]!r}, which is not at {api.url}: expected a link to the same host. Use the URL that "
            "the host is known under"
        )
    return link


async def followed(api: HostApi, link: str, timeout_s: float | None) -> InstanceStatus:
    """How the instance behind a link ends.

    Raises:
        TimeoutError: It has not ended in time; it goes on.
        DurablyError: The host refuses.
    """
    over = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    pause = _FIRST_LOOK_S
    while True:
        answer = await api.send("GET", link)
        if answer.status == 200:
            return status_of_row(row_of(answer.json()))
        if answer.status != 202:
            raise error_of(answer)
        left = over - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"The instance has not ended within {timeout_s:g} s; it goes on")
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, _LOOK_MAX_S)
