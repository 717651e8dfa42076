"""The ASGI application of a host: limits, who is let in, routes, and errors as answers."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from durably.codec.convert import Converter
from durably.http_api.access import Access, require, require_level
from durably.http_api.admin import admin_routes
from durably.http_api.auditing import Auditor
from durably.http_api.client import DurableClient
from durably.http_api.durable.routes import durable_routes
from durably.http_api.functions.function import LEVELS
from durably.http_api.functions.routes import HttpFunctions
from durably.http_api.links import BASE, RPC, Credential, Links, origin_of
from durably.http_api.patience import within
from durably.http_api.refusals import Refusal, answer_of, refusal_of
from durably.http_api.routing import Found, Table
from durably.http_api.served import Served
from durably.http_api.v1.operation import V1
from durably.http_api.v1.problems import problem_answer
from durably.http_api.v1.routes import v1_routes
from durably.http_api.v1.streams import Streams


class FunctionLine(NamedTuple):
    """An HTTP function, for people."""

    name: str
    methods: str
    path: str
    level: str


class HostApp:
    """Serves the management API of one hub, and the HTTP functions of its app.

    Args:
        served: The hub.
        access: Who is let in.
        functions: HTTP functions.
        converter: Of their bodies and results.
        route_prefix: Before their routes.
        outstanding_max: More requests than this at once are answered with 429.
        audit: Records who changes what.
        body_timeout_s: See `HttpOptions`.
    """

    def __init__(
        self,
        served: Served,
        access: Access,
        functions: HttpFunctions,
        converter: Converter,
        *,
        route_prefix: str,
        outstanding_max: int,
        audit: Auditor,
        body_timeout_s: float,
    ) -> None:
        twice = replace(served, json_twice=True)
        self._prefix = f"/{route_prefix.strip('/')}/" if route_prefix.strip("/") else "/"
        self._streams = Streams(max(1, outstanding_max // 2))
        self.table = Table(
            [
                *durable_routes(served, BASE),
                *v1_routes(served, self._streams),
                *durable_routes(twice, f"{RPC}/{{grant}}"),
                *admin_routes(functions, served.registry, self._prefix),
            ]
        )
        self._served = served
        self._access = access
        self._functions = functions
        self._converter = converter
        self._client = DurableClient.serving(served)
        self._outstanding = 0
        self._outstanding_max = outstanding_max
        self._audit = audit
        self._body_timeout_s = body_timeout_s

    @property
    def listing(self) -> list[FunctionLine]:
        """The HTTP functions, by their routes."""
        levels = {number: level for level, number in LEVELS.items()}
        lines = [
            FunctionLine(
                function.name,
                ",".join(sorted(function.methods)) or "any",
                f"{self._prefix}{function.template.text}",
                levels[function.level],
            )
            for function in self._functions
        ]
        return sorted(lines, key=lambda line: line.path)

    def leave(self) -> None:
        """End what would go on for as long as its readers want: the host stops."""
        self._streams.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await _refuse_other(scope, receive, send)
            return
        request = Request(scope, within(receive, self._body_timeout_s))
        if self._outstanding >= self._outstanding_max:
            text = f"{self._outstanding} requests are under way: try again later"
            busy = Refusal(429, text, "TooManyRequests", {"Retry-After": "1"})
            await _refused(request, busy, busy)(scope, receive, send)
            return
        self._outstanding += 1
        try:
            try:
                answer = await self._answer(request)
            except Exception as error:  # noqa: BLE001 - whatever it is, there is an answer
                plain = refusal_of(error)
                refusal = self._access.noted(request, plain)
                request.state.refused = refusal.kind
                answer = _refused(request, error if refusal is plain else refusal, refusal)
            except BaseException:
                self._audit.cut_off(request)
                raise
            answer = await self._audit.recorded(request, answer)
            await answer(scope, receive, send)
        finally:
            self._outstanding -= 1

    async def close(self) -> None:
        """Finish the audit log. Idempotent."""
        await self._audit.close()

    async def _answer(self, request: Request) -> Response:
        path = _raw_path(request)
        request.state.found = found = self.table.find(request.method, path)
        self._access.check_host(request)
        if found is None and path.startswith(self._prefix) and not path.startswith(f"{BASE}/"):
            answer = await self._call_function(request, path.removeprefix(self._prefix))
            if answer is not None:
                return answer
        instance_id = _touched(found)
        grant = None if found is None else found.parameters.get("grant")
        request.state.principal = principal = await self._access.principal(request, instance_id, grant)
        if found is None:
            require(principal, "read", None)  # who may know nothing does not learn what is not there
            raise self._nothing_at(request, path)
        require(principal, found.route.needs, instance_id)
        self._check_hub(request)
        request.scope["path_params"] = found.parameters
        self._link(request, self._access.credential_from(principal))
        await self._audit.check(found)
        return await found.route.handler(request)

    def _nothing_at(self, request: Request, path: str) -> Refusal:
        methods = self.table.methods(path) if _is_v1(path) else []
        if methods:
            text = f"There is no {request.method} of {request.url.path}: expected {' or '.join(methods)}"
            return Refusal(405, text, "MethodNotAllowed", {"Allow": ", ".join(methods)})
        return Refusal(404, f"There is nothing at {request.method} {request.url.path}", "NotFound")

    async def _call_function(self, request: Request, path: str) -> Response | None:
        found = self._functions.find(request.method, path)
        if found is None:
            return None
        function = found.function
        if function.level:
            require_level(await self._access.principal(request, None), function.level, function.name)
        request.scope["path_params"] = found.parameters
        self._link(request, self._access.credential)
        return await function.answer(request, self._client, self._converter, self._served.body_bytes_max)

    def _link(self, request: Request, credential: Credential) -> None:
        request.state.links = Links(origin_of(request), self._served.hub, credential)

    def _check_hub(self, request: Request) -> None:
        """A hub is never chosen by the query: one that names another hub finds nothing."""
        for name, value in request.query_params.multi_items():
            if name.lower() == "taskhub" and value and value.lower() != self._served.hub.lower():
                raise Refusal(404, f"Task hub {value[:100]!r} is not served here", "HubNotFound")


def _raw_path(request: Request) -> str:
    """The path below where the application is mounted, percent-encoded as it came."""
    raw: bytes | None = request.scope.get("raw_path")
    path = request.scope["path"] if raw is None else raw.partition(b"?")[0].decode("ascii", "replace")
    return path.removeprefix(request.scope.get("root_path", ""))


def _is_v1(path: str) -> bool:
    return path.startswith(f"{V1}/")


def _refused(request: Request, error: Exception, refusal: Refusal) -> Response:
    if _is_v1(_raw_path(request)):
        return problem_answer(error, refusal, request.scope["path"])  # a URL needs a host that is one
    return answer_of(refusal)


def _touched(found: Found | None) -> str | None:
    """The instance that a request touches; "" for a start of a new one, None for more than one."""
    if found is None:
        return None
    if "functionName" in found.parameters:
        return ""
    return found.parameters.get("instanceId")


async def _refuse_other(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1003})
