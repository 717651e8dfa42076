"""The process that is killed: a host with the workload, its own clients, and a side file of what its activities did.

The program is started with the hub file and the side file. For each line of orders (JSON) on stdin it forks a process that
serves the hub: to be killed costs a life then, and not another 0.3 s of imports. What a life reports on stdout is what
its clients would know.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Coroutine
from typing import Any

from durably.app import AppHost
from durably.core.commit import InboxRow
from durably.core.history import encode_body
from durably.core.messages import RaiseEvent
from durably.engine.options import EngineOptions
from durably.errors import InstanceStateError
from tests.faults.effects import SideFile
from tests.faults.plan import EVENTS, Job, job_of
from tests.faults.programs import build_app

OPEN_MAX = 24
"""Instances under way at once."""

LIVE = ("Pending", "Running", "Suspended")


def report(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())


class Clients:
    """Starts what it is told, follows everything that has not ended, and sends events."""

    def __init__(self, host: AppHost, orders: dict[str, Any]) -> None:
        self._host = host
        self._orders = orders
        self._room = asyncio.Semaphore(OPEN_MAX)
        self._group = asyncio.TaskGroup()

    async def run(self) -> None:
        """Until everything has ended; in a life that is to be killed, for ever."""
        doubtful: list[int] = self._orders["doubtful"]
        async with self._group:
            for instance_id in await self._unfinished():
                job = job_of(instance_id)
                if job is not None and job.number not in doubtful:
                    await self._spawn(self._attend(job))
            for number in doubtful:
                await self._spawn(self._start(Job(number)))
            number = self._orders["next"]
            while self._orders["go_on"]:
                await self._spawn(self._start(Job(number)))
                number += 1

    async def _unfinished(self) -> list[str]:
        found: list[str] = []
        token = None
        while True:
            page = await self._host.client.query_instances(runtime_status=LIVE, continuation_token=token)
            found += [status.instance_id for status in page.instances]
            token = page.continuation_token
            if token is None:
                return found

    async def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        await self._room.acquire()
        self._group.create_task(work).add_done_callback(lambda _: self._room.release())

    async def _start(self, job: Job) -> None:
        report("starting", str(job.number))
        await self._host.client.start(
            job.program, job.input, instance_id=job.instance_id, on_existing="attach"
        )
        report("started", str(job.number))
        await self._attend(job)

    async def _attend(self, job: Job) -> None:
        if job.program in EVENTS:
            for n in range(job.size):
                await self._post(job, str(n), "Item", n)
        elif job.program == "tally":
            token = job.token(self._orders["life"])
            report("raising", token)
            try:
                await self._host.client.raise_event(job.instance_id, "Token", token)
                report("raised", token)
            except InstanceStateError:
                pass  # the life before had closed it
            if self._orders["go_on"] and not job.closes_in(self._orders["life"]):
                return
            await self._post(job, "close", "TOKEN", "close")
        result = await self._host.client.handle(job.instance_id).result()
        report("result", str(job.number), json.dumps(result))

    async def _post(self, job: Job, name: str, event: str, data: Any) -> None:
        """Send an event under its own id: who does not know whether it arrived sends it again."""
        body = encode_body(RaiseEvent(event, json.dumps(data).encode()))
        await self._host.engine.store.post([InboxRow(f"{job.instance_id}/{name}", job.instance_id, 0, body)])


async def main(hub: str, side_path: str, orders: dict[str, Any]) -> None:
    options = EngineOptions(**orders["options"], slow_turn_s=0, inbox_poll_s=0.02)
    app = build_app(SideFile(side_path, orders["life"]))
    async with app.host(f"sqlite:///{hub}", options=options) as host:
        report("serving")
        await Clients(host, orders).run()
    report("finished")


def live(orders: str) -> None:
    """Be born, serve, die; wait for that, so that nothing of a life is left when the next one begins."""
    pid = os.fork()
    if pid == 0:
        report("born", str(os.getpid()))
        try:
            asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(orders)))
        except BaseException:  # noqa: BLE001 - nothing of this process may run on in the fork
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    report("died", str(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    for line in sys.stdin:
        live(line)
