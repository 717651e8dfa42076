"""Records a hub whose entities have work before them: ``python -m tests.golden.record_entity_hub NAME``.

A lock is held by an orchestration that waits, another orchestration and operations wait behind it, a signal is due
later, an operation is under way, and the orchestration that called it has failed. See `record_hub`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from tests.golden.record_hub import HUBS, record
from tests.support.waiting import eventually, has_event

if TYPE_CHECKING:
    from durably import Client, EntityId

ENTITY_HUBS = HUBS / "entities"


async def fill() -> None:
    """Runs in the process that is killed."""
    from tests.golden.entity_hub_program import HANGING, LEDGER, A, B, build

    HANGING.touch()
    async with build().host("sqlite:///hub.db") as host:
        client = host.client
        await client.call_entity(LEDGER, "write", "first line")
        await client.start("keeper", instance_id="keeper")
        await has_event(host, "keeper", "CustomStatusSet")
        await client.start("second", instance_id="second")
        await _waiting(client, A, 1)
        await client.start("asks", instance_id="asks")
        await _waiting(client, A, 3)
        await client.signal_entity(A, "put", "signal of a client")
        await client.signal_entity(B, "put", "later", at=3)
        await client.start("audited", instance_id="audited")
        await client.wait_for_completion("audited")
        await _waiting(client, A, 4)
        os.kill(os.getpid(), signal.SIGKILL)


async def _waiting(client: Client, entity: EntityId, count: int) -> None:
    async def are_there() -> bool:
        found = await client.get_entity(entity)
        return found is not None and found.waiting == count

    await eventually(are_there)


if __name__ == "__main__":
    record(ENTITY_HUBS / f"{sys.argv[1]}.tar.xz", "tests.golden.record_entity_hub")
