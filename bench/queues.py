"""QUEUE: messages of the hub's own queue, each of which starts an orchestration of one activity."""

from __future__ import annotations

from time import perf_counter

from bench.figures import Load, MeasurementError, Record, check, closed_loop, latency
from bench.programs import order
from bench.workloads import SINGLE_LIMIT_S
from durably import Client, RuntimeStatus


async def queue(client: Client, load: Load) -> Record:
    """From the first send until the last orchestration has ended."""
    messages = client.queue("bench")

    async def send(key: str) -> str:
        await messages.send(order(), message_id=key)
        return key

    began = perf_counter()
    sent = await closed_loop(load.keys(), send, load.c, began + load.cap_s)
    sent_after = perf_counter() - began
    for timing in reversed(
        sent
    ):  # from the last one on: most of the others have ended by then, which costs one read each
        await _ended(client, f"bench:{timing.result}")
    wall = perf_counter() - began
    completed = await client.count_instances(
        instance_id_prefix=f"bench:{load.tag}-", runtime_status=RuntimeStatus.Completed
    )
    check(completed, len(sent))
    return {
        "done": completed,
        "wall_s": round(wall, 4),
        "send_s": round(sent_after, 4),
        "messages_per_s": round(completed / wall, 2),
        **latency([timing.seconds for timing in sent]),
    }


async def _ended(client: Client, key: str) -> None:
    await client.wait_for_completion(
        f"queue:{key}", timeout=SINGLE_LIMIT_S
    )  # it has started the orchestration then
    status = await client.wait_for_completion(key, timeout=SINGLE_LIMIT_S)
    if status.runtime_status != RuntimeStatus.Completed:
        raise MeasurementError(f"{key} is {status.runtime_status.value}: expected Completed")
