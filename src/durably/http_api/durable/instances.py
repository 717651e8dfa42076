"""One instance, and lists of them: status, history, events, orders, purge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.responses import Response

from durably.client.selection import Filters, selection
from durably.core.ids import check_text
from durably.core.query import FIRST, PAGE_SIZE_MAX, place_of, token_of
from durably.core.status import TERMINAL, RuntimeStatus
from durably.errors import InstanceNotFoundError
from durably.http_api.access import sees_payloads
from durably.http_api.durable.bodies import history_rows, status_body
from durably.http_api.durable.starts import JSON
from durably.http_api.incoming import Incoming
from durably.http_api.reading import Parameters, is_json, json_payload, read_body
from durably.http_api.refusals import Refusal
from durably.http_api.served import Served

TOKEN = "x-ms-continuation-token"  # noqa: S105 - the name of a header

_RETRY_AFTER_S = "5"


class Instances:
    """The routes of instances."""

    def __init__(self, served: Served) -> None:
        self._served = served

    async def status(self, request: Incoming) -> Response:
        """``GET instances/{id}``: 202 while it runs, 200 when it has ended."""
        instance_id: str = request.path_params["instanceId"]
        parameters = Parameters(request)
        show_history = parameters.flag("showHistory", default=False)
        show_output = parameters.flag("showHistoryOutput", default=False)
        show_input = parameters.flag("showInput", default=True)
        failed = 500 if parameters.flag("returnInternalServerErrorOnFailure", default=False) else 200
        payloads = sees_payloads(request)
        row = await self._served.management.get(instance_id, payloads=payloads)
        if row is None:
            raise InstanceNotFoundError(instance_id)
        history: list[dict[str, Any]] | None = None
        if show_history:
            history = history_rows(
                await self._history(instance_id), show_output=show_output, payloads=payloads
            )
        body = msgspec.json.encode(
            status_body(row, show_input=show_input, history=history, payloads=payloads)
        )
        if row.status not in TERMINAL:
            location = request.links.of_instance(instance_id)["statusQueryGetUri"]
            return Response(body, 202, {"Location": location, "Retry-After": _RETRY_AFTER_S}, media_type=JSON)
        return Response(body, failed if row.status == RuntimeStatus.Failed.value else 200, media_type=JSON)

    async def _history(self, instance_id: str) -> list[Any]:
        try:
            return list(await self._served.management.history(instance_id))
        except InstanceNotFoundError:  # it waits for a host, or its first turn, and has none yet
            return []

    async def find(self, request: Incoming) -> Response:
        """``GET instances``: one page, in the order of creation."""
        parameters = Parameters(request)
        token = request.headers.get(TOKEN)
        payloads = sees_payloads(request)
        query = selection(
            self._filters(parameters),
            page_size=parameters.number("top", 100, 1, PAGE_SIZE_MAX),
            after=place_of(token) if token else FIRST,
            payloads=payloads,
        )
        show_input = parameters.flag("showInput", default=True)
        found = await self._served.management.query(query)
        body = msgspec.json.encode(
            [status_body(row, show_input=show_input, payloads=payloads) for row in found.rows]
        )
        headers = {} if found.next_after is None else {TOKEN: token_of(found.next_after)}
        return Response(body, 200, headers, media_type=JSON)

    @staticmethod
    def _filters(parameters: Parameters) -> Filters:
        return Filters(
            created_from=parameters.moment("createdTimeFrom"),
            created_to=parameters.moment("createdTimeTo"),
            runtime_status=parameters.statuses("runtimeStatus"),
            instance_id_prefix=parameters.text("instanceIdPrefix"),
        )

    # --- purge -------------------------------------------------------------------------------------------------------

    async def purge(self, request: Incoming) -> Response:
        """``DELETE instances/{id}``."""
        instance_id: str = request.path_params["instanceId"]
        if not await self._served.management.purge(instance_id):
            raise InstanceNotFoundError(instance_id)
        return _deleted(1)

    async def purge_many(self, request: Incoming) -> Response:
        """``DELETE instances``: all finished ones that were created in a time."""
        parameters = Parameters(request)
        filters = self._filters(parameters)
        if filters.get("created_from") is None:
            raise Refusal(
                400, "createdTimeFrom is missing: expected an instant, so that nobody purges a hub by mistake"
            )
        asked = filters.get("runtime_status")
        if asked is not None:
            filters["runtime_status"] = [status for status in asked if status in TERMINAL]
        result = await self._served.client.purge_instances(**filters) if asked != () else None
        if result is None or not result.done:
            raise Refusal(404, "No finished instance matches: nothing was deleted", "NothingMatches")
        return _deleted(result.done)

    # --- events and orders -------------------------------------------------------------------------------------------

    async def raise_event(self, request: Incoming) -> Response:
        """``POST instances/{id}/raiseEvent/{eventName}``."""
        body = await read_body(request, self._served.body_bytes_max)
        if not is_json(request):
            given = request.headers.get("content-type", "none")
            raise Refusal(400, f"Only application/json request content is supported, and this is {given}")
        name: str = request.path_params["eventName"]
        check_text(name, "name of the event")
        await self._served.management.raise_event(
            request.path_params["instanceId"], name, json_payload(body, twice=self._served.json_twice)
        )
        return _accepted()

    async def terminate(self, request: Incoming) -> Response:
        """``POST instances/{id}/terminate``."""
        return await self._order(request, self._served.client.terminate)

    async def suspend(self, request: Incoming) -> Response:
        """``POST instances/{id}/suspend``; of one that is suspended, it changes nothing."""
        return await self._order(request, self._served.client.suspend)

    async def resume(self, request: Incoming) -> Response:
        """``POST instances/{id}/resume``; of one that runs, it changes nothing."""
        return await self._order(request, self._served.client.resume)

    async def rewind(self, request: Incoming) -> Response:
        """``POST instances/{id}/rewind``."""
        return await self._order(request, self._served.client.rewind)

    @staticmethod
    async def _order(request: Incoming, give: Callable[[str, str | None], Awaitable[None]]) -> Response:
        await give(request.path_params["instanceId"], Parameters(request).text("reason"))
        return _accepted()


def _deleted(count: int) -> Response:
    return Response(msgspec.json.encode({"instancesDeleted": count}), 200, media_type=JSON)


def _accepted() -> Response:
    return Response(b"", 202)
