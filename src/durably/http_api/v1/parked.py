"""What is parked: list, redrive, discard."""

from __future__ import annotations

from durably.http_api.served import Served
from durably.http_api.v1 import bodies, requests, shown
from durably.http_api.v1.operation import Call, Operation


class ParkedWork:
    """Operations on work that was set aside."""

    def __init__(self, served: Served) -> None:
        self._client = served.client

    @property
    def operations(self) -> list[Operation]:
        """Their rows."""
        return [
            Operation(
                id="listParked",
                method="GET",
                path="/parked",
                needs="read",
                summary="Work that was set aside, page by page",
                act=self._list,
                query=requests.ParkedQuery,
                answers={200: bodies.ParkedPage},
            ),
            Operation(
                id="redriveParked",
                method="POST",
                path="/parked/{itemId}/redrive",
                needs="control",
                summary="Try a parked instance or message again, with nothing counted against it",
                act=self._redrive,
            ),
            Operation(
                id="discardParked",
                method="POST",
                path="/parked/{itemId}/discard",
                needs="control",
                summary="Give a parked instance or message up",
                act=self._discard,
            ),
        ]

    async def _list(self, call: Call) -> bodies.ParkedPage:
        query: requests.ParkedQuery = call.query
        page = await self._client.query_parked(
            kind=query.kind,
            instance_id_prefix=query.id_prefix,
            page_size=query.limit,
            continuation_token=query.cursor,
        )
        items = [shown.parked_of(item, payloads=call.sees_payloads) for item in page.items]
        return bodies.ParkedPage(items=items, next_cursor=page.continuation_token)

    async def _redrive(self, call: Call) -> None:
        await self._client.redrive(call.path["itemId"])

    async def _discard(self, call: Call) -> None:
        await self._client.discard(call.path["itemId"])
