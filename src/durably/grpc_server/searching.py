"""Many instances, page by page."""

from __future__ import annotations

from typing import Final

import msgspec

from durably.core.commit import InstanceRow
from durably.core.query import FIRST, PAGE_SIZE_MAX, InstanceQuery, Place, place_of, token_of
from durably.core.status import TERMINAL
from durably.executors.remote.wire import pb, text_of, text_value
from durably.grpc_server.refusals import Code, Refusal
from durably.grpc_server.served import PAGE_BYTES_MAX, Call, Rpc, Rpcs, Served
from durably.grpc_server.shown import first_instant, last_before, state_of, status_of, statuses_of

_PAGE: Final = 100
"""Of a request that does not say how many."""

_ROWS_MAX: Final = 5_000
"""A request looks at so many instances; a page may be short then, and has a token to go on."""

_FIRST_STEP: Final = 10
"""Nobody knows yet how large these payloads are."""


class Searching:
    """The calls that find instances. Entities are none."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._management = served.management

    @property
    def rpcs(self) -> Rpcs:
        """Their rows."""
        return {
            "QueryInstances": Rpc(pb.QueryInstancesRequest, "read", self._query),
            "ListInstanceIds": Rpc(pb.ListInstanceIdsRequest, "read", self._list_ids),
        }

    async def _query(self, request: pb.QueryInstancesRequest, call: Call) -> pb.QueryInstancesResponse:
        """In the order of creation."""
        asked = request.query
        payloads = asked.fetchInputsAndOutputs and call.sees_payloads
        wanted = frozenset(asked.runtimeStatus)
        may_run = self._served.is_unstarted is not None
        token = text_of(asked, "continuationToken")
        query = InstanceQuery(
            statuses=tuple(sorted(statuses_of(wanted, pending_may_run=may_run))) if wanted else None,
            created_from=first_instant(asked, "createdTimeFrom"),
            created_to=last_before(asked, "createdTimeTo"),
            instance_id_prefix=text_of(asked, "instanceIdPrefix") or None,
            payloads=payloads,
            page_size=_page_size(asked.maxInstanceCount),
            after=place_of(token) if token else FIRST,
        )
        rows, after = await self._page(query, wanted if may_run else frozenset())
        return pb.QueryInstancesResponse(
            orchestrationState=[
                state_of(row, self._served, payloads=payloads, details=call.sees_payloads) for row in rows
            ],
            continuationToken=None if after is None else text_value(token_of(after)),
        )

    async def _page(
        self, query: InstanceQuery, wanted: frozenset[pb.OrchestrationStatus]
    ) -> tuple[list[InstanceRow], Place | None]:
        """A page that fits into a message, and where the next one begins (None: this was the last).

        Args:
            query: What to look for.
            wanted: Only rows that are shown with one of these statuses; empty: all.
        """
        found: list[InstanceRow] = []
        step = _FIRST_STEP if query.payloads else query.page_size
        seen = held = 0
        after: Place | None = query.after
        while after is not None and len(found) < query.page_size and seen < _ROWS_MAX:
            step = min(step, query.page_size - len(found))
            rows, place = await self._management.query(
                msgspec.structs.replace(query, after=after, page_size=step)
            )
            size = sum(_size(row) for row in rows)
            if held + size > PAGE_BYTES_MAX and found:
                break
            if size > PAGE_BYTES_MAX and len(rows) > 1:
                step = len(rows) // 2
                continue
            found += [row for row in rows if not wanted or status_of(row, self._served) in wanted]
            seen, held, after = seen + len(rows), held + size, place
            step = query.page_size if held * 4 < PAGE_BYTES_MAX else _FIRST_STEP
        return found, after

    # --- ids ---------------------------------------------------------------------------------------------------------

    async def _list_ids(self, request: pb.ListInstanceIdsRequest, call: Call) -> pb.ListInstanceIdsResponse:
        """In the order of their ends. The hub keeps that of creation: each page looks at all that ended since the last."""
        asked = statuses_of(request.runtimeStatus) if request.runtimeStatus else TERMINAL
        statuses = tuple(sorted(asked & TERMINAL))
        key = text_of(request, "lastInstanceKey")
        last = _key_of(key) if key else (-(2**63), "")
        begins = first_instant(request, "completedTimeFrom")
        query = InstanceQuery(
            statuses=statuses,
            updated_from=last[0] if begins is None else max(begins, last[0]),
            updated_to=last_before(request, "completedTimeTo"),
            payloads=False,
            page_size=PAGE_SIZE_MAX,
        )
        size = _page_size(request.pageSize)
        ends = await self._ends(query, last, size + 1) if statuses else []
        more, page = len(ends) > size, ends[:size]
        return pb.ListInstanceIdsResponse(
            instanceIds=[instance_id for _, instance_id in page],
            lastInstanceKey=text_value(f"{page[-1][0]}:{page[-1][1]}") if more else None,
        )

    async def _ends(self, query: InstanceQuery, last: tuple[int, str], count: int) -> list[tuple[int, str]]:
        """When the first few behind `last` ended, and which they are; no more than these are held."""
        first: list[tuple[int, str]] = []
        after: Place | None = FIRST
        while after is not None:
            rows, after = await self._management.query(msgspec.structs.replace(query, after=after))
            first += [end for row in rows if (end := (row.updated_at, row.instance_id)) > last]
            first = sorted(first)[:count]
        return first


def _page_size(asked: int) -> int:
    return min(asked, PAGE_SIZE_MAX) if asked > 0 else _PAGE


def _size(row: InstanceRow) -> int:
    return sum(len(payload) for payload in (row.input, row.output, row.custom_status) if payload is not None)


def _key_of(text: str) -> tuple[int, str]:
    ended, colon, instance_id = text.partition(":")
    try:
        if colon and instance_id and abs(number := int(ended)) < 2**63:
            return number, instance_id
    except ValueError:
        pass
    raise Refusal(
        Code.INVALID_ARGUMENT, f"lastInstanceKey is {text[:100]!r}: expected that of the page before"
    )
