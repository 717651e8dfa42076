"""What Schemathesis cannot know: names of functions. A text where one is expected becomes one; the rest stays as drawn."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """An orchestrator that exists."""
    if isinstance(body, dict) and context.operation.path.endswith("/instances"):
        name = body.get("name")
        if isinstance(name, str) and name:
            return {**body, "name": "shout"}
    return body


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """An entity that exists."""
    name = (path_parameters or {}).get("name")
    if "/entities/" in context.operation.path and isinstance(name, str) and name:
        return {**path_parameters, "name": "counter"}
    return path_parameters
