"""One HTTP function: where its parameters come from, and how what it returns becomes an answer."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Final, Literal, cast

from starlette.requests import Request
from starlette.responses import Response

from durably.client import Client, Handle
from durably.codec.convert import Converter
from durably.errors import PayloadError, RegistrationError
from durably.http_api.client import DurableClient
from durably.http_api.functions.templates import RouteTemplate
from durably.http_api.reading import is_json, json_payload, read_body
from durably.http_api.refusals import Refusal
from durably.program.registry import name_of
from durably.program.signatures import Signature

AuthLevel = Literal["anonymous", "function", "admin"]

LEVELS: Final[dict[str, int]] = {"anonymous": 0, "function": 1, "admin": 2}

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")

_JSON = "application/json; charset=utf-8"
_SCALARS = (str, int, float, bool)


class HttpFunction:
    """A function behind a route.

    Attributes:
        name: Its name.
        template: Where it is, below the route prefix.
        methods: In capitals; empty: all.
        level: What a caller needs, see `LEVELS`.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None,
        route: str | None,
        methods: Iterable[str] | None,
        auth_level: str,
    ) -> None:
        if not callable(fn) or inspect.isclass(fn):
            raise RegistrationError(f"Cannot route to {fn!r}: expected a function")
        self.fn = fn
        self.name = name_of(fn) if name is None else name
        self.template = RouteTemplate(self.name if route is None else route, self.name)
        self.methods = _methods(methods, self.name)
        level = LEVELS.get(auth_level)
        if level is None:
            raise RegistrationError(
                f"HTTP function '{self.name}' has auth_level={auth_level!r}: expected one of {', '.join(LEVELS)}"
            )
        self.level = level
        self._signature = Signature(fn, self.name)

    @cached_property
    def _plan(self) -> list[tuple[str, str, Any]]:
        """Name, source and type of each parameter: at first use, since annotations may name what is defined further down."""
        plan: list[tuple[str, str, Any]] = []
        for one in self._signature.parameters:
            if one.kind in {one.VAR_POSITIONAL, one.VAR_KEYWORD}:
                continue
            kind = self._signature.type_of(one.name)
            if inspect.isclass(kind) and issubclass(kind, Request):
                plan.append((one.name, "request", Any))
            elif inspect.isclass(kind) and issubclass(kind, Client):
                plan.append((one.name, "client", kind))
            elif one.name in self.template.parameters:
                plan.append((one.name, "path", kind))
            elif one.name in {"req", "request"} and kind is Any:
                plan.append((one.name, "request", kind))
            elif any(source == "body" for _, source, _ in plan):
                raise RegistrationError(
                    f"HTTP function '{self.name}' has the parameter '{one.name}', which nothing would fill: expected "
                    "Request, Client, parameters of the route, and one for the JSON body"
                )
            else:
                plan.append((one.name, "body", kind))
        return plan

    def check(self) -> None:
        """Find out at the start of a host what would fail at the first request.

        Raises:
            RegistrationError: A parameter that nothing would fill.
        """
        _ = self._plan

    async def answer(
        self, request: Request, client: DurableClient, converter: Converter, body_bytes_max: int
    ) -> Response:
        """Call the function and make its answer."""
        arguments: dict[str, Any] = {}
        for name, source, kind in self._plan:
            if source == "request":
                arguments[name] = request
            elif source == "client":
                arguments[name] = client
            elif source == "path":
                if name in request.path_params:
                    arguments[name] = _scalar(request.path_params[name], kind, name)
            else:
                arguments[name] = await _body(request, kind, converter, body_bytes_max)
        if inspect.iscoroutinefunction(self.fn):
            returned = await self.fn(**arguments)
        else:
            returned = await asyncio.to_thread(self.fn, **arguments)
            if inspect.isawaitable(returned):
                returned = await returned
        return _answer(returned, request, client, converter)


def _methods(given: Iterable[str] | None, name: str) -> frozenset[str]:
    methods = [given] if isinstance(given, str) else list(given or ())
    upper = frozenset(method.upper() for method in methods)
    unknown = sorted(upper - set(METHODS))
    if unknown:
        raise RegistrationError(
            f"HTTP function '{name}' has the method {unknown[0]!r}: expected some of {', '.join(METHODS)}"
        )
    return upper


def _scalar(text: str, kind: Any, name: str) -> Any:
    if kind not in _SCALARS or kind is str:
        return text
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        raise Refusal(
            400, f"Parameter '{name}' of the path is {text[:100]!r}: expected {kind.__name__}"
        ) from None


async def _body(request: Request, kind: Any, converter: Converter, bytes_max: int) -> Any:
    body = await read_body(request, bytes_max)
    if kind is bytes:
        return body
    if kind is str and not is_json(request):
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            raise Refusal(400, f"The body is no text ({error}): expected UTF-8") from None
    payload = json_payload(body)
    if payload is None:
        return None
    try:
        return converter.decode(payload, kind)
    except PayloadError as error:
        raise Refusal(400, f"The body does not fit: {error}", "PayloadError") from None


def _answer(returned: Any, request: Request, client: DurableClient, converter: Converter) -> Response:
    if isinstance(returned, Response):
        return returned
    if isinstance(returned, Handle):
        handle = cast("Handle[Any]", returned)
        return client.create_check_status_response(request, handle.instance_id)
    if returned is None:
        return Response(b"", 204)
    if isinstance(returned, str):
        return Response(returned.encode(), 200, media_type="text/plain; charset=utf-8")
    if isinstance(returned, bytes):
        return Response(returned, 200, media_type="application/octet-stream")
    return Response(converter.encode(returned), 200, media_type=_JSON)
