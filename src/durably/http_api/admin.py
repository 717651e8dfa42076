"""What a host serves, in the shape in which Azure Functions tells it: ``GET /admin/functions``."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from durably.http_api.durable.starts import JSON
from durably.http_api.functions.function import LEVEL_NAMES
from durably.http_api.functions.routes import HttpFunctions
from durably.http_api.links import origin_of
from durably.http_api.mounts.mount import Mounts
from durably.http_api.routing import Route
from durably.program.registry import Registry

_TRIGGERS: tuple[tuple[Literal["orchestrator", "activity", "entity"], str], ...] = (
    ("orchestrator", "orchestrationTrigger"),
    ("activity", "activityTrigger"),
    ("entity", "entityTrigger"),
)


def admin_routes(functions: HttpFunctions, mounts: Mounts, registry: Registry, prefix: str) -> list[Route]:
    """The route.

    Args:
        functions: HTTP functions.
        mounts: Applications beside them.
        registry: All others.
        prefix: Before the routes of HTTP functions, with slashes at both ends.
    """

    async def listing(request: Request) -> Response:
        origin = origin_of(request)
        found = [
            _function(
                function.name,
                {
                    "type": "httpTrigger",
                    "direction": "in",
                    "name": "req",
                    "route": function.template.text,
                    "methods": sorted(function.methods),
                    "authLevel": LEVEL_NAMES[function.level],
                },
                f"{origin}{prefix}{function.template.text}",
            )
            for function in sorted(functions, key=lambda one: one.name)
        ]
        found += [
            _function(
                mount.name,
                {
                    "type": "httpTrigger",
                    "direction": "in",
                    "name": "req",
                    "route": f"{mount.path}/{{*path}}".lstrip("/"),
                    "methods": [],
                    "authLevel": LEVEL_NAMES[mount.level],
                },
                f"{origin}{mount.path}",
            )
            for mount in sorted(mounts, key=lambda one: one.name)
        ]
        for kind, trigger in _TRIGGERS:
            found += [
                _function(name, {"type": trigger, "direction": "in", "name": "context"})
                for name in registry.names(kind)
            ]
        return Response(msgspec.json.encode(found), 200, media_type=JSON)

    return [Route("GET", "/admin/functions", "read", listing)]


def _function(name: str, trigger: dict[str, Any], url: str | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "language": "python",
        "isDisabled": False,
        "invoke_url_template": url,
        "config": {"bindings": [trigger]},
    }
