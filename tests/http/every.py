"""A good request for every route there is: of the management API, its other place for the official clients, ``/api/v1``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from durably.http_api.durable.routes import durable_routes
from durably.http_api.links import BASE, RPC
from durably.http_api.routing import Route
from durably.http_api.served import Served
from durably.http_api.v1.routes import v1_operations
from durably.http_api.v1.streams import Streams

UNSERVED = Served(None, None, None, "orders")  # type: ignore[arg-type]

RPC_BASE = f"{RPC}/{{grant}}"


class Names(NamedTuple):
    """What requests are about. They start under ids that are not taken, unless `new` says otherwise."""

    instance: str = "i"
    entity: str = "counter"
    key: str = "k"
    function: str = "waits"
    schedule: str = "s"
    item: str = "none"
    new: str = ""
    operation: str = "add"


class Ask(NamedTuple):
    """A request.

    Attributes:
        route: Its row.
        path: Filled in.
        body: JSON, or None.
        params: Of the query.
    """

    route: Route
    path: str
    body: Any = None
    params: Mapping[str, str] = MappingProxyType({})

    @property
    def name(self) -> str:
        return f"{self.route.method} {self.route.path}"

    @property
    def changes(self) -> bool:
        return self.route.method != "GET" and self.route.needs not in {"read", "payloads"}

    async def of(
        self, http: httpx.AsyncClient, headers: dict[str, str] | None = None, **params: str
    ) -> httpx.Response:
        """Ask."""
        body = {} if self.body is None else {"json": self.body}
        return await http.request(
            self.route.method, self.path, params={**self.params, **params}, headers=headers, **body
        )


def _filled(path: str, names: Names, grant: str) -> str:
    values = {
        "instanceId": names.instance,
        "functionName": names.function,
        "eventName": "go",
        "name": names.entity,
        "key": names.key,
        "itemId": names.item,
        "hostId": names.item,
        "scheduleId": names.schedule,
        "grant": grant,
    }
    start = names.new or names.instance
    path = path.replace("[/{instanceId}]", f"/{quote(start, safe='')}").replace("[/{name}]", "/{name}")
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    assert "{" not in path, path
    return path


def _body_of_v1(operation: str, names: Names) -> Any:
    bulk = {"filter": {"idPrefix": names.instance}, "reason": "r"}
    bodies: dict[str, Any] = {
        "startInstance": {"name": names.function, **({"instanceId": names.new} if names.new else {})},
        "raiseEvent": 1,
        "restartInstance": {"newId": True},
        "signalEntity": {"operation": names.operation, "input": 1},
        "callEntity": {"operation": names.operation, "input": 1, "waitS": 0},
        "createSchedule": {
            "scheduleId": f"{names.schedule}-new",
            "orchestrator": names.function,
            "cron": "0 0 3 * * *",
        },
        "updateSchedule": {"jitterS": 1},
        "triggerSchedule": {"overlap": "allow"},
        "backfillSchedule": {"start": "2020-01-01T00:00:00Z", "end": "2020-01-01T01:00:00Z"},
        "cleanEntities": {},
        "pauseSchedule": {"note": "n"},
        "resumeSchedule": {"note": "n"},
    }
    if operation in bodies:
        return bodies[operation]
    return bulk if operation.endswith("Instances") else {"reason": "r"}


def every(names: Names | None = None, *, grant: str = "") -> list[Ask]:
    """One request for each route; of `RPC` only with a capability for its path."""
    named = names or Names()
    found: list[Ask] = []
    for base in (BASE, RPC_BASE) if grant else (BASE,):
        for route in durable_routes(UNSERVED, base):
            posts = route.method == "POST" and route.path.endswith(
                ("[/{instanceId}]", "Event/{eventName}", "{key}")
            )
            params = {"createdTimeFrom": "2020-01-01T00:00:00Z"} if route.path == f"{base}/instances" else {}
            if posts and route.path.endswith("{key}"):
                params = {"op": named.operation}
            found.append(Ask(route, _filled(route.path, named, grant), 1 if posts else None, params))
    for operation in v1_operations(UNSERVED, Streams(1)):
        route = operation.route(1 << 20)
        body = None if operation.body is None else _body_of_v1(operation.id, named)
        found.append(Ask(route, _filled(route.path, named, ""), body))
    return found
