"""The ASGI application of a host: limits, who is let in, routes, and errors as answers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from durably.bindings.outlets import Outlets
from durably.codec.convert import Converter
from durably.executors.time_limit import in_time
from durably.http_api.access import Access, Door, require, require_level
from durably.http_api.admin import admin_routes
from durably.http_api.auditing import Auditor
from durably.http_api.client import DurableClient
from durably.http_api.durable.routes import durable_routes
from durably.http_api.functions.function import LEVEL_NAMES, Asked
from durably.http_api.functions.routes import FunctionFound, HttpFunctions
from durably.http_api.incoming import FunctionCall, Incoming
from durably.http_api.links import BASE, CLIENT, LINKS, RPC, Credential
from durably.http_api.mounts.mount import Mounts
from durably.http_api.mounts.mounted import LiveApp, MountedApps
from durably.http_api.mounts.passing import Passing
from durably.http_api.patience import within
from durably.http_api.refusals import Refusal, answer_of, refusal_of
from durably.http_api.routing import Found, Route, Table
from durably.http_api.served import Served
from durably.http_api.v1.operation import V1
from durably.http_api.v1.problems import problem_answer
from durably.http_api.v1.routes import v1_routes
from durably.http_api.v1.streams import Streams
from durably.http_api.witness import Did


class FunctionLine(NamedTuple):
    """An HTTP function, for people."""

    name: str
    methods: str
    path: str
    level: str


class HostApp:
    """Serves the management API of one hub, the HTTP functions of its app, and what is mounted beside them.

    Args:
        served: The hub.
        access: Who is let in.
        functions: HTTP functions.
        converter: Of their bodies and results.
        outlets: Where their outputs go.
        mounts: Applications beside them.
        route_prefix: Before their routes.
        outstanding_max: More requests than this at once are answered with 429.
        concurrent_max: Calls of HTTP functions at once; others wait. 0 for no limit.
        time_limit_s: Of an HTTP function; 0 for no limit.
        audit: Records who changes what.
        body_timeout_s: See `HttpOptions`.
        stop_s: How long what is mounted may take to stop.
    """

    def __init__(
        self,
        served: Served,
        access: Access,
        functions: HttpFunctions,
        converter: Converter,
        *,
        outlets: Outlets,
        mounts: Mounts,
        route_prefix: str,
        outstanding_max: int,
        concurrent_max: int,
        time_limit_s: float,
        audit: Auditor,
        body_timeout_s: float,
        stop_s: float,
    ) -> None:
        twice = replace(served, json_twice=True)
        self._prefix = f"/{route_prefix.strip('/')}/" if route_prefix.strip("/") else "/"
        self._streams = Streams(max(1, outstanding_max // 2))
        self.table = Table(
            [
                *durable_routes(served, BASE),
                *v1_routes(served, self._streams),
                *durable_routes(twice, f"{RPC}/{{grant}}"),
                *admin_routes(functions, mounts, served.registry, self._prefix),
            ]
        )
        self._served = served
        self._access = access
        self._functions = functions
        self._converter = converter
        self._outlets = outlets
        self._client = DurableClient.serving(served)
        self._mounts = mounts
        self._mounted = MountedApps(mounts, stop_s, time_limit_s)
        self._outstanding = 0
        self._outstanding_max = outstanding_max
        self._calls = asyncio.Semaphore(concurrent_max) if concurrent_max else contextlib.nullcontext()
        self._time_limit_s = time_limit_s
        self._audit = audit
        self._body_timeout_s = body_timeout_s

    @property
    def listing(self) -> list[FunctionLine]:
        """The HTTP functions and what is mounted, by their paths."""
        lines = [
            FunctionLine(
                function.name,
                ",".join(sorted(function.methods)) or "any",
                f"{self._prefix}{function.template.text}",
                LEVEL_NAMES[function.level],
            )
            for function in self._functions
        ]
        lines += [FunctionLine(one.name, "any", one.shown, LEVEL_NAMES[one.level]) for one in self._mounts]
        return sorted(lines, key=lambda line: line.path)

    @property
    def door(self) -> Door:
        """Who is asked for a credential now. Raises as `Access.principal`."""
        return self._access.door

    @property
    def way_in(self) -> str:
        """See `Access.way_in`."""
        return self._access.way_in

    def leave(self) -> None:
        """End what would go on for as long as its readers want: the host stops."""
        self._streams.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await _refuse_other(scope, receive, send)
            return
        request = Incoming(scope, within(scope, receive, self._body_timeout_s))
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
                request.refused = refusal.kind
                answer = _refused(request, error if refusal is plain else refusal, refusal)
            except BaseException:
                self._audit.cut_off(request)
                raise
            if isinstance(answer, Passing):
                async with self._calls:
                    await answer(scope, receive, send)
            else:
                answer = await self._audit.recorded(request, answer)
                await answer(scope, receive, send)
        finally:
            self._outstanding -= 1
            self._streams.leave(request)

    async def open(self) -> None:
        """Start what is mounted.

        Raises:
            OperationError: An application says that it cannot start.
        """
        await self._mounted.open()

    async def close(self) -> None:
        """Stop what is mounted, and finish the audit log. Idempotent."""
        await self._mounted.close()
        await self._audit.close()

    async def _answer(self, request: Incoming) -> Response | Passing:
        path = _raw_path(request)
        request.found = found = self.table.find(request.method, path)
        called = self._function_at(request.method, path) if found is None else None
        if called is not None and called.function.level:
            request.found = self._row_of(request.method, called)
            request.call = FunctionCall(called.function.name, Did())
        self._access.check_host(request)
        if called is not None:
            return await self._call_function(request, called)
        if found is None and (mounted := self._mounted.find(_path(request))) is not None:
            return await self._pass_on(request, mounted)
        instance_id = _touched(found)
        grant = None if found is None else found.parameters.get("grant")
        request.principal = principal = await self._access.principal(request, instance_id, grant)
        if found is None:
            require(principal, "read", None)  # who may know nothing does not learn what is not there
            raise self._nothing_at(request, path)
        require(principal, found.route.needs, instance_id)
        self._check_hub(request)
        if self._served.starts is not None and found.route.needs == "start":
            self._served.starts.take(principal)
        request.scope["path_params"] = found.parameters
        self._link(request, self._access.credential_from(principal))
        await self._audit.check(request)
        return await found.route.handler(request)

    def _nothing_at(self, request: Incoming, path: str) -> Refusal:
        methods = self.table.methods(path) if _is_v1(path) else []
        if methods:
            text = f"There is no {request.method} of {request.url.path}: expected {' or '.join(methods)}"
            return Refusal(405, text, "MethodNotAllowed", {"Allow": ", ".join(methods)})
        return Refusal(404, f"There is nothing at {request.method} {request.url.path}", "NotFound")

    def _function_at(self, method: str, path: str) -> FunctionFound | None:
        if not path.startswith(self._prefix) or path.startswith(f"{BASE}/"):
            return None
        return self._functions.find(method, path.removeprefix(self._prefix))

    def _row_of(self, method: str, called: FunctionFound) -> Found:
        """A function as a row of the table, for the audit log."""
        path = f"{self._prefix}{called.function.template.text}"
        return Found(Route(method, path, LEVEL_NAMES[called.function.level], _elsewhere), called.parameters)

    async def _call_function(self, request: Incoming, called: FunctionFound) -> Response:
        function, client = called.function, self._client
        if request.call is not None:
            await self._let_in(request, function.level, function.name)
            client = client.noting(request.call.did)
        request.scope["path_params"] = called.parameters
        self._link(request, self._access.credential)
        request.scope[LINKS] = request.links
        served = self._served
        asked = Asked(request, client, self._converter, served.body_bytes_max)
        async with self._calls:
            answer = function.answer(asked, self._outlets, served.random.token(), served.clock.now())
            return await in_time(answer, self._time_limit_s, f"HTTP function '{function.name}'")

    async def _pass_on(self, request: Incoming, mounted: LiveApp) -> Passing:
        mount, client = mounted.mount, self._client
        if mount.level:
            route = Route(request.method, mount.shown, LEVEL_NAMES[mount.level], _elsewhere)
            request.found = Found(route, {})
            request.call = call = FunctionCall(mount.name, Did())
            await self._let_in(request, mount.level, mount.name)
            client = client.noting(call.did)
        self._link(request, self._access.credential)
        more = {CLIENT: client, LINKS: request.links}
        return self._mounted.answer(mounted, request, more, self._served.body_bytes_max, self._audit)

    async def _let_in(self, request: Incoming, level: int, name: str) -> None:
        request.principal = principal = await self._access.caller(request)
        require_level(principal, level, name)
        await self._audit.check(request)

    def _link(self, request: Incoming, credential: Credential) -> None:
        request.hub, request.credential = self._served.hub, credential

    def _check_hub(self, request: Incoming) -> None:
        """A hub is never chosen by the query: one that names another hub finds nothing."""
        if not request.scope["query_string"]:
            return
        for name, value in request.query_params.multi_items():
            if name.lower() == "taskhub" and value and value.lower() != self._served.hub.lower():
                raise Refusal(404, f"Task hub {value[:100]!r} is not served here", "HubNotFound")


async def _elsewhere(request: Incoming) -> Response:
    """In the row of a function: nobody calls it there."""
    raise NotImplementedError


def _raw_path(request: Incoming) -> str:
    """The path below where the application is mounted, percent-encoded as it came."""
    raw: bytes | None = request.scope.get("raw_path")
    path = request.scope["path"] if raw is None else raw.partition(b"?")[0].decode("ascii", "replace")
    return path.removeprefix(request.scope.get("root_path", ""))


def _path(request: Incoming) -> str:
    """The same, decoded: what an application takes it for."""
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", ""))


def _is_v1(path: str) -> bool:
    return path.startswith(f"{V1}/")


def _refused(request: Incoming, error: Exception, refusal: Refusal) -> Response:
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
