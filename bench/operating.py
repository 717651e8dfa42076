"""A hub of size under the hands of its operators. QUERY: pages of a large hub. PURGE: deleting beside the usual work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from bench.figures import Load, MeasurementError, Record, check, closed_loop, percentile
from bench.hub import check_durable, hub_url
from bench.programs import ChainJob, chain, order
from bench.workloads import Workload
from durably import Client
from durably.core.commit import Batch, HistoryRow, InstanceRow
from durably.core.query import InstanceQuery
from durably.storage.api import Lease, Store
from durably.storage.open import open_store

_FILLED_AT_ONCE = 5_000
_EPOCH = 1_700_000_000_000_000
_APART_US = 1_000
_NAMES, _TENANTS = 20, 1_000
_RARE = {997: "Failed", 499: "Terminated"}
"""Every so many instances one is not Completed."""

_STEPS = 5
_MEASURED_S = 3.0
_SETTLED_S = 1.0


# --- QUERY -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def filled(variant: str, directory: Path) -> AsyncGenerator[Workload]:
    """Hand out QUERY, on a hub that is filled by the first repetition."""
    store = open_store(hub_url(variant, directory))
    await store.open()
    try:
        check_durable(variant, store)
        lease = await store.acquire(0, "bench")
        rows = 0

        async def repetition(load: Load) -> Record:
            nonlocal rows
            if not rows:
                await _fill(store, lease, load.n)
                rows = load.n
            return await first_pages(store, rows)

        yield repetition
    finally:
        await store.close()


async def _fill(store: Store, lease: Lease, n: int) -> None:
    for number, first in enumerate(range(0, n, _FILLED_AT_ONCE), 1):
        some = range(first, min(first + _FILLED_AT_ONCE, n))
        await store.commit(
            lease, Batch(number, instances=[_instance(i) for i in some], history=[_history(i) for i in some])
        )


def _instance(i: int) -> InstanceRow:
    at = _EPOCH + i * _APART_US
    status = next((status for every, status in _RARE.items() if i % every == every - 1), "Completed")
    tags = msgspec.json.encode({"tenant": f"t{i % _TENANTS}", "kind": f"{i % 7}"}) if i % 2 else None
    return InstanceRow(
        instance_id=f"order-{i:07}",
        execution=i + 1,
        ordinal=0,
        execution_id=f"{i:032x}",
        name=f"flow-{i % _NAMES}",
        version=None,
        status=status,
        created_at=at,
        updated_at=at,
        input=b'{"id":%d}' % i,
        output=b'{"ok":true}',
        custom_status=None,
        failure=None,
        blocked=None,
        parked=None,
        in_flight=False,
        parent_instance_id=None,
        tags=tags,
        start_at=None,
    )


def _history(i: int) -> HistoryRow:
    return HistoryRow(i + 1, 0, _EPOCH + i * _APART_US, bytes(300), bytes(8))


def _filters(n: int) -> dict[str, dict[str, Any]]:
    late = _EPOCH + (n - n // 100) * _APART_US
    return {
        "all": {},
        "name": {"name": "flow-3"},
        "name_unknown": {"name": "none"},
        "failed": {"statuses": ("Failed",)},
        "failed_of_name": {"statuses": ("Failed",), "name": "flow-7"},
        "running": {"statuses": ("Running",)},
        "completed_late": {"statuses": ("Completed",), "created_from": late},
        "created_late": {"created_from": late},
        "created_early": {"created_to": _EPOCH + 10 * _APART_US},
        "prefix_rare": {"instance_id_prefix": f"order-{n - 1:07}"[:-2]},
        "prefix_tenth": {"instance_id_prefix": f"order-{n - 1:07}"[:-5]},
        "tag": {"tags": {"tenant": f"t{_TENANTS - 1}"}},
        "tag_common": {"tags": {"kind": "3"}},
        "tag_unknown": {"tags": {"tenant": "none"}},
        "stuck": {"stuck": True},
    }


async def first_pages(store: Store, n: int) -> Record:
    """The time of the first page of each filter, in milliseconds; every result is right."""
    times: dict[str, float] = {}
    for name, filters in _filters(n).items():
        query = InstanceQuery(**filters)
        began = perf_counter()
        page = await store.query(query)
        times[name] = round((perf_counter() - began) * 1000, 3)
        check([row for row in page.rows if not query.matches(row)], [])
    return {
        "done": n,
        "wall_s": round(sum(times.values()) / 1000, 4),
        "first_page_p50_ms": round(percentile(list(times.values()), 0.5), 3),
        "first_page_max_ms": max(times.values()),
        "first_page_ms": times,
    }


# --- PURGE -----------------------------------------------------------------------------------------------------------


async def purge(client: Client, load: Load) -> Record:
    """Purge `n` finished instances by filter while W1 runs on; what W1 loses by it, before, meanwhile and after."""
    job: ChainJob = {"data": order(), "steps": 1, "stamped": False}

    async def finish(key: str) -> None:
        handle = await client.start(chain, job, instance_id=key)
        await handle.result()

    await closed_loop(load.keys(), finish, 200)
    usual = _Usual(client, load)
    workers = [asyncio.create_task(usual.worker(number)) for number in range(load.c)]
    try:
        await asyncio.sleep(_SETTLED_S)
        before = await usual.rate(_MEASURED_S)
        began, steps = perf_counter(), usual.steps
        result = await client.purge_instances(instance_id_prefix=f"{load.tag}-")
        wall = perf_counter() - began
        meanwhile = (usual.steps - steps) / wall
        after = await usual.rate(_MEASURED_S)
    finally:
        usual.over = True
        await asyncio.gather(*workers)
    check((result.done, result.failed), (load.n, 0))
    if not before:
        raise MeasurementError("W1 did nothing meanwhile")
    return {
        "done": result.done,
        "wall_s": round(wall, 3),
        "purged_per_s": round(result.done / wall, 1),
        "act_per_s_before": round(before, 1),
        "act_per_s_meanwhile": round(meanwhile, 1),
        "act_per_s_after": round(after, 1),
        "lost_share": round(1 - meanwhile / ((before + after) / 2), 4),
    }


class _Usual:
    """W1 without an end."""

    def __init__(self, client: Client, load: Load) -> None:
        self._client = client
        self._tag = f"usual-{load.tag}"
        self.steps = 0
        self.over = False

    async def worker(self, number: int) -> None:
        job: ChainJob = {"data": order(), "steps": _STEPS, "stamped": False}
        made = 0
        while not self.over:
            made += 1
            handle = await self._client.start(chain, job, instance_id=f"{self._tag}-{number}-{made}")
            check(await handle.result(), _STEPS)
            self.steps += _STEPS

    async def rate(self, seconds: float) -> float:
        began, steps = perf_counter(), self.steps
        await asyncio.sleep(seconds)
        return (self.steps - steps) / (perf_counter() - began)
