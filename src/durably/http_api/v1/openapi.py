"""OpenAPI 3.1, made of the table of operations and the structs that they are read and answered with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any, Final

import msgspec

from durably.http_api.v1.bodies import Started
from durably.http_api.v1.operation import JSON, SSE, V1, AnyJson, Call, Operation
from durably.http_api.v1.parameters import NoParameters
from durably.http_api.v1.problems import MEDIA_TYPE, Problem

_REFERENCE: Final = "#/components/schemas/{name}"

_SECURITY: Final = {
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-functions-key",
        "description": "A system or master key",
    },
    "code": {"type": "apiKey", "in": "query", "name": "code", "description": "The same, in the query"},
    "link": {
        "type": "apiKey",
        "in": "query",
        "name": "sig",
        "description": "Of a link that this host has made: for one instance",
    },
}

_ABOUT: Final = (
    "What can be done with a hub. Refusals are problem details (RFC 9457). Where a credential lacks the permission "
    "`payloads`, fields that hold payloads, or texts that may quote them, are left out."
)


class Description:
    """The description of an API.

    Args:
        operations: Its operations; the one that answers with the description is added.
    """

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.operation = Operation(
            id="describe",
            method="GET",
            path="/openapi.json",
            needs="read",
            summary="This description",
            act=self._describe,
            answers={200: dict[str, Any]},
        )
        self._operations = [*operations, self.operation]

    async def _describe(self, call: Call) -> msgspec.Raw:
        return self._encoded

    @cached_property
    def _encoded(self) -> msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode(self.document))

    @cached_property
    def document(self) -> dict[str, Any]:
        """The description, as plain data."""
        types = _types(self._operations)
        schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
        return {
            "openapi": "3.1.0",
            "info": {"title": "durably", "version": version("durably"), "description": _ABOUT},
            "servers": [{"url": "/"}],
            "security": [{name: []} for name in _SECURITY],
            "paths": self._paths(dict(zip(types, schemas, strict=True))),
            "components": {"schemas": components, "securitySchemes": _SECURITY},
        }

    def _paths(self, schemas: dict[Any, Any]) -> dict[str, Any]:
        paths: dict[str, Any] = {}
        for operation in self._operations:
            one: dict[str, Any] = {
                "operationId": operation.id,
                "summary": operation.summary,
                "tags": [operation.path.split("/")[1].partition(".")[0]],
                "description": f"Needs the permission `{operation.needs}`.",
                "parameters": [
                    *_of_path(operation.path),
                    *_of_query(operation.query),
                    *_of_header(operation),
                ],
                "responses": _responses(operation, schemas, self._operations),
            }
            if operation.body is not None:
                schema: Any = {} if operation.body is AnyJson else schemas[operation.body]
                one["requestBody"] = {
                    "required": operation.body_required,
                    "content": {JSON: {"schema": schema}},
                }
            paths.setdefault(f"{V1}{operation.path}", {})[operation.method.lower()] = one
        return paths


def _types(operations: Sequence[Operation]) -> list[Any]:
    """Every type that a body may have, once."""
    bodies = [operation.body for operation in operations if operation.body not in {None, AnyJson}]
    answers = [
        answer for operation in operations for answer in operation.answers.values() if answer is not None
    ]
    events = [data for operation in operations for data in operation.events.values()]
    return list(dict.fromkeys([Problem, *bodies, *answers, *events]))


def _of_path(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _of_query(type_: type[msgspec.Struct]) -> list[dict[str, Any]]:
    if type_ is NoParameters:
        return []
    _, components = msgspec.json.schema_components([type_], ref_template=_REFERENCE)
    found: list[dict[str, Any]] = []
    for name, schema in components[type_.__name__]["properties"].items():
        given = _without_null(schema)
        parameter = {"name": name, "in": "query", "required": False, "schema": given}
        if "description" in given:
            parameter["description"] = given.pop("description")
        found.append(parameter)
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out, where a field would be null."""
    if "anyOf" in schema:
        return dict(next(one for one in schema["anyOf"] if one != {"type": "null"}))
    if schema.get("default") in ((), None):
        return {name: value for name, value in schema.items() if name != "default"}
    return dict(schema)


def _of_header(operation: Operation) -> list[dict[str, Any]]:
    if not operation.streams or operation.method != "GET":
        return []
    return [{"name": "Last-Event-ID", "in": "header", "required": False, "schema": {"type": "string"}}]


def _links(operations: Sequence[Operation]) -> dict[str, Any]:
    """What can be done with an instance that was started, but for what goes on for as long as it does."""
    given = {"instanceId": "$response.body#/instanceId"}
    targets = [one.id for one in operations if "{instanceId}" in one.path and not one.streams]
    return {"links": {target: {"operationId": target, "parameters": given} for target in targets}}


def _event(events: Mapping[str, Any], schemas: dict[Any, Any]) -> dict[str, Any]:
    """An event of a stream, whose data is JSON."""
    kinds = [
        {
            "type": "object",
            "required": ["event", "data"],
            "properties": {
                "event": {"const": kind},
                "id": {"type": "string"},
                "data": {"type": "string", "contentMediaType": JSON, "contentSchema": schemas[type_]},
            },
        }
        for kind, type_ in events.items()
    ]
    return {"anyOf": kinds}


def _responses(
    operation: Operation, schemas: dict[Any, Any], operations: Sequence[Operation]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, type_ in operation.answers.items():
        links = _links(operations) if type_ is Started else {}
        content: dict[str, Any] = {} if type_ is None else {JSON: {"schema": schemas[type_]}}
        if operation.streams and status == 200:
            content[SSE] = {"schema": _event(operation.events, schemas)}
        found[str(status)] = {"description": "Done", **({"content": content} if content else {}), **links}
    problem = {MEDIA_TYPE: {"schema": schemas[Problem]}}
    found["4XX"] = {"description": "Refused", "content": problem}
    found["5XX"] = {"description": "The host is in trouble", "content": problem}
    return found
