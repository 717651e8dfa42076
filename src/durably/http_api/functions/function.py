"""One HTTP function: where its parameters come from, and how what it returns becomes an answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, NamedTuple, cast

from starlette.requests import Request
from starlette.responses import Response

from durably.bindings.function import ABSENT, Parameter, Source, UserFunction, is_any, is_client
from durably.bindings.outlets import Outlets
from durably.bindings.placeholders import Occasion
from durably.client import Handle
from durably.codec.convert import Converter
from durably.errors import PayloadError, RegistrationError
from durably.http_api.client import DurableClient
from durably.http_api.functions.templates import RouteTemplate
from durably.http_api.reading import is_json, json_payload, read_body
from durably.http_api.refusals import Refusal

AuthLevel = Literal["anonymous", "function", "admin"]

LEVELS: Final[dict[str, int]] = {"anonymous": 0, "function": 1, "admin": 2}

LEVEL_NAMES: Final = {number: level for level, number in LEVELS.items()}

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")

_JSON = "application/json; charset=utf-8"
_SCALARS = (str, int, float, bool)


class Asked(NamedTuple):
    """A request on its way to a function."""

    request: Request
    client: DurableClient
    converter: Converter
    body_bytes_max: int


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
        self._function = UserFunction(
            fn,
            name,
            what="HTTP function",
            act="route to {}",
            sources=self._sources,
            expected="Request, Client, parameters of the route, and one for the JSON body",
        )
        self.name = self._function.name
        self.template = RouteTemplate(self.name if route is None else route, self.name)
        self.methods = _methods(methods, self.name)
        level = LEVELS.get(auth_level)
        if level is None:
            raise RegistrationError(
                f"HTTP function '{self.name}' has auth_level={auth_level!r}: expected one of {', '.join(LEVELS)}"
            )
        self.level = level

    @property
    def _sources(self) -> tuple[Source[Asked], ...]:
        return (
            Source(_is_request, lambda asked, _: asked.request),
            Source(is_client, lambda asked, _: asked.client),
            Source(lambda one: one.name in self.template.parameters, _path),
            Source(_is_named_request, lambda asked, _: asked.request),
            Source(is_any, _body, once=True),
        )

    def check(self, outlets: Outlets) -> None:
        """See `UserFunction.check`."""
        self._function.check(outlets, self.template.parameters)

    async def answer(self, asked: Asked, outlets: Outlets, origin: str, now: int) -> Response:
        """Call the function and make its answer, once its outputs are written.

        Args:
            asked: The request.
            outlets: Where its outputs go.
            origin: Names the request; no other one has it.
            now: In microseconds since 1970 UTC.
        """
        occasion = Occasion(origin, now, lambda: asked.request.path_params)
        returned = await self._function.call(asked, outlets, occasion)
        return _answer(returned, asked.request, asked.client, asked.converter)


def _methods(given: Iterable[str] | None, name: str) -> frozenset[str]:
    methods = [given] if isinstance(given, str) else list(given or ())
    upper = frozenset(method.upper() for method in methods)
    unknown = sorted(upper - set(METHODS))
    if unknown:
        raise RegistrationError(
            f"HTTP function '{name}' has the method {unknown[0]!r}: expected some of {', '.join(METHODS)}"
        )
    return upper


def _is_request(parameter: Parameter) -> bool:
    return inspect.isclass(parameter.kind) and issubclass(parameter.kind, Request)


def _is_named_request(parameter: Parameter) -> bool:
    return parameter.name in {"req", "request"} and parameter.kind is Any


def _path(asked: Asked, parameter: Parameter) -> Any:
    given = asked.request.path_params.get(parameter.name)
    return ABSENT if given is None else _scalar(given, parameter.kind, parameter.name)


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


async def _body(asked: Asked, parameter: Parameter) -> Any:
    request, kind = asked.request, parameter.kind
    body = await read_body(request, asked.body_bytes_max)
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
        return asked.converter.decode(payload, kind)
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
