"""The table of ``/api/v1``."""

from __future__ import annotations

from durably.http_api.routing import Route
from durably.http_api.served import Served
from durably.http_api.v1.bulk import Bulk
from durably.http_api.v1.entities import Entities
from durably.http_api.v1.hub import HubInfo
from durably.http_api.v1.instances import Looking
from durably.http_api.v1.openapi import Description
from durably.http_api.v1.operation import Operation
from durably.http_api.v1.orders import Orders
from durably.http_api.v1.parked import ParkedWork
from durably.http_api.v1.schedules import Schedules
from durably.http_api.v1.streams import InstanceStreams, Streams


def v1_operations(served: Served, streams: Streams) -> list[Operation]:
    """All operations, with the one that describes them all."""
    operations = [
        *Looking(served).operations,
        *Orders(served).operations,
        *InstanceStreams(served, streams).operations,
        *Bulk(served, streams).operations,
        *Entities(served, streams).operations,
        *ParkedWork(served).operations,
        *Schedules(served).operations,
        *HubInfo(served).operations,
    ]
    description = Description(operations)
    return [*operations, description.operation]


def v1_routes(served: Served, streams: Streams) -> list[Route]:
    """Their routes."""
    return [operation.route(served.body_bytes_max) for operation in v1_operations(served, streams)]
