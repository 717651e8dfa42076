"""The table of the management API, in the order of how often they are asked for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from durably.http_api.durable.entities import Entities
from durably.http_api.durable.instances import Instances
from durably.http_api.durable.starts import Starts
from durably.http_api.routing import Route
from durably.http_api.served import Served


def durable_routes(served: Served, base: str) -> list[Route]:
    """The routes under a path."""
    starts, instances, entities = Starts(served), Instances(served), Entities(served)
    one = f"{base}/instances/{{instanceId}}"
    return [
        Route("GET", one, "read", instances.status),
        Route("POST", f"{base}/orchestrators/{{functionName}}[/{{instanceId}}]", "start", starts.start),
        Route("POST", f"{one}/raiseEvent/{{eventName}}", "control", instances.raise_event),
        Route("GET", f"{base}/instances", "read", instances.find),
        Route("POST", f"{one}/terminate", "control", instances.terminate),
        Route("POST", f"{one}/suspend", "control", instances.suspend),
        Route("POST", f"{one}/resume", "control", instances.resume),
        Route("POST", f"{one}/rewind", "control", instances.rewind),
        Route("POST", f"{one}/restart", "start", starts.restart),
        Route("DELETE", one, "purge", instances.purge),
        Route("DELETE", f"{base}/instances", "purge", instances.purge_many),
        Route("GET", f"{base}/entities/{{name}}/{{key}}", "payloads", entities.state),
        Route("POST", f"{base}/entities/{{name}}/{{key}}", "control", entities.signal),
        Route("DELETE", f"{base}/entities/{{name}}/{{key}}", "control", entities.delete),
        Route("GET", f"{base}/entities[/{{name}}]", "read", entities.find),
        Route("POST", f"{base}/makeprimary", "admin", _primary),
    ]


async def _primary(request: Request) -> Response:
    """Whoever serves the hub is its primary: the lease of the store sees to that."""
    return Response(b"", 200)
