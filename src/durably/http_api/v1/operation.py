"""An operation of ``/api/v1``: a row that says all there is to know of it, from which route and description are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
from starlette.responses import Response

from durably.http_api.access import sees_payloads
from durably.http_api.incoming import Incoming
from durably.http_api.reading import is_json, json_payload, read_body
from durably.http_api.refusals import Refusal
from durably.http_api.routing import Route
from durably.http_api.v1.parameters import NoParameters, read_parameters
from durably.security.roles import Principal

V1: Final = "/api/v1"

JSON: Final = "application/json"

SSE: Final = "text/event-stream"


class AnyJson:
    """Stands for a body that is a payload: any JSON value."""


class Call(NamedTuple):
    """A request that was let in, with what it says.

    Attributes:
        request: As it came.
        path: The parameters in its path.
        query: Those of its query, of the type that the operation names.
        body: Its body, likewise; bytes (or None) for `AnyJson`.
        principal: Who asks.
    """

    request: Incoming
    path: Mapping[str, str]
    query: Any
    body: Any
    principal: Principal

    @property
    def sees_payloads(self) -> bool:
        """True when inputs, outputs, states and texts that may quote them may be shown."""
        return sees_payloads(self.request)


class Answer(NamedTuple):
    """What an operation returns when it is more than a body with status 200."""

    status: int
    body: Any = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One row.

    Attributes:
        id: Its name, for clients that are generated.
        method: In capitals.
        path: Below ``/api/v1``, with parameters in braces.
        needs: The permission, see `durably.security.roles`.
        summary: What it does, in a line.
        act: Does it. Returns a body, an `Answer`, or a response that is streamed.
        query: The type of its query.
        body: The type of its body, `AnyJson`, or None.
        body_required: False: no body is an empty object.
        answers: The type of the body for each status code of success; None: no body.
        events: Of a status 200 that is, or may be, a stream: the types of the data of its events, by their names.
    """

    id: str
    method: str
    path: str
    needs: str
    summary: str
    act: Callable[[Call], Awaitable[Any]]
    query: type[msgspec.Struct] = NoParameters
    body: Any = None
    body_required: bool = True
    answers: Mapping[int, Any] = field(default_factory=lambda: {204: None})
    events: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def streams(self) -> bool:
        """True when status 200 is, or may be, a stream."""
        return bool(self.events)

    def route(self, body_bytes_max: int) -> Route:
        """The row of the table of routes."""

        async def handle(request: Incoming) -> Response:
            query = read_parameters(request, self.query)
            body = None if self.body is None else await self._read(request, body_bytes_max)
            call = Call(request, request.path_params, query, body, request.principal)
            return _response(await self.act(call), empty=200 not in self.answers)

        return Route(self.method, f"{V1}{self.path}", self.needs, handle)

    async def _read(self, request: Incoming, bytes_max: int) -> Any:
        data = await read_body(request, bytes_max)
        if not data.strip():
            if self.body_required:
                raise Refusal(400, "The body is missing: expected JSON", "InvalidJson")
            return None if self.body is AnyJson else self.body()
        if not is_json(request):
            given = request.headers.get("content-type", "none")
            raise Refusal(
                415, f"The content type is {given[:100]!r}: expected application/json", "UnsupportedMediaType"
            )
        payload = json_payload(data)  # what goes through as it is has to be JSON to its last byte
        if self.body is AnyJson:
            return payload
        try:
            return msgspec.json.decode(data, type=self.body)
        except msgspec.ValidationError as error:
            raise Refusal(400, f"The body does not fit: {error}", "InvalidBody") from None


def _response(result: Any, *, empty: bool) -> Response:
    if isinstance(result, Response):
        return result
    answer = result if isinstance(result, Answer) else Answer(204 if empty else 200, result)
    if answer.status == 204:
        return Response(status_code=204, headers=answer.headers)
    headers = {"Cache-Control": "no-store", **(answer.headers or {})}
    return Response(msgspec.json.encode(answer.body), answer.status, headers, media_type=JSON)
