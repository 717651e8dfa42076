"""Instances: start them, tell them what to do, delete them."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Raw, UnsetType

from durably.core.events import Payload
from durably.core.ids import check_text
from durably.core.messages import StartInstance
from durably.core.notices import checked_tags
from durably.errors import InstanceNotFoundError
from durably.http_api.reading import json_payload
from durably.http_api.reserved import check_orchestrator, check_restart
from durably.http_api.served import Served
from durably.http_api.v1 import bodies, requests
from durably.http_api.v1.instances import ONE
from durably.http_api.v1.operation import V1, Answer, AnyJson, Call, Operation
from durably.program.durations import micros_of

_ORDERS: Final = {
    "terminate": "Stop at once; with `recursive`, its descendants too",
    "cancel": "Ask it to cancel itself: its code may clean up",
    "suspend": "Let no turn run until it is resumed; idempotent",
    "resume": "Go on after a suspend; idempotent",
    "rewind": "Let a failed instance go on from before its failure",
}


class Orders:
    """Operations that change an instance."""

    def __init__(self, served: Served) -> None:
        self._client = served.client
        self._management = served.management
        self._random = served.random

    @property
    def operations(self) -> list[Operation]:
        """Their rows."""
        return [
            Operation(
                id="startInstance",
                method="POST",
                path="/instances",
                needs="start",
                summary="Start an orchestration",
                act=self._start,
                body=requests.Start,
                answers={201: bodies.Started},
            ),
            Operation(
                id="raiseEvent",
                method="POST",
                path=f"{ONE}/events/{{eventName}}",
                needs="control",
                summary="Deliver an external event; the body is its data",
                act=self._raise_event,
                body=AnyJson,
                body_required=False,
            ),
            *(
                Operation(
                    id=f"{verb}Instance",
                    method="POST",
                    path=f"{ONE}/{verb}",
                    needs="control",
                    summary=summary,
                    act=self._orders(verb),
                    body=requests.Terminate if verb == "terminate" else requests.Reason,
                    body_required=False,
                )
                for verb, summary in _ORDERS.items()
            ),
            Operation(
                id="restartInstance",
                method="POST",
                path=f"{ONE}/restart",
                needs="start",
                summary="Start a finished instance once more, or any one under a new id",
                act=self._restart,
                body=requests.Restart,
                body_required=False,
                answers={201: bodies.Started},
            ),
            Operation(
                id="purgeInstance",
                method="DELETE",
                path=ONE,
                needs="purge",
                summary="Delete a finished instance with its history",
                act=self._purge,
                query=requests.Recursive,
            ),
        ]

    async def _start(self, call: Call) -> Answer:
        asked: requests.Start = call.body
        check_orchestrator(asked.name)
        check_text(asked.version, "version")
        fresh = asked.instance_id is None
        instance_id = self._management.new_instance_id() if asked.instance_id is None else asked.instance_id
        await self._management.start(
            instance_id,
            StartInstance(
                asked.name,
                payload_of(asked.input),
                self._random.token(),
                asked.version,
                None,
                checked_tags(asked.tags),
                None if asked.start_at is None else micros_of(asked.start_at),
                asked.on_existing,
                fresh,
            ),
        )
        return _created(instance_id)

    async def _restart(self, call: Call) -> Answer:
        asked: requests.Restart = call.body
        await check_restart(self._management, call.path["instanceId"], call.principal)
        handle = await self._client.restart(
            call.path["instanceId"], new_instance_id=asked.new_id, reason=asked.reason
        )
        return _created(handle.instance_id)

    async def _raise_event(self, call: Call) -> None:
        name = call.path["eventName"]
        check_text(name, "name of the event")
        await self._management.raise_event(call.path["instanceId"], name, call.body)

    def _orders(self, verb: str) -> Any:
        async def order(call: Call) -> None:
            give = getattr(self._client, verb)
            await give(call.path["instanceId"], **msgspec.structs.asdict(call.body))

        return order

    async def _purge(self, call: Call) -> None:
        instance_id = call.path["instanceId"]
        query: requests.Recursive = call.query
        if not await self._management.purge(instance_id, recursive=query.recursive):
            raise InstanceNotFoundError(instance_id)


def _created(instance_id: str) -> Answer:
    return Answer(
        201,
        bodies.Started(instance_id=instance_id),
        {"Location": f"{V1}/instances/{quote(instance_id, safe='')}"},
    )


def payload_of(given: Raw | UnsetType) -> Payload:
    """A payload in a body."""
    return None if given is UNSET else json_payload(bytes(given))
