"""`python -m bench.sdk`: a worker of the Durable Task SDK for Python on a hub of ours, and on the SDK's in-memory backend.

Backend, worker and client are processes of their own. Needs the extra ``grpc``. See bench/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from bench.figures import MeasurementError, Record

_ACTIVITIES: Final = 5
_RETRY_MS: Final = 200
_KILLS: Final = 20
_LIMIT_S: Final = 60.0
_BIG: Final = (("grpc.max_receive_message_length", 512 << 20), ("grpc.max_send_message_length", 512 << 20))


# --- processes of their own ------------------------------------------------------------------------------------------


def serve_in_memory(port: int) -> None:
    """The SDK's test backend. Its pool has 10 threads, and each client that waits takes one: given 256."""
    from concurrent import futures
    from types import SimpleNamespace

    from durabletask.testing import in_memory_backend

    module: Any = in_memory_backend
    module.futures = SimpleNamespace(ThreadPoolExecutor=lambda **_: futures.ThreadPoolExecutor(256))
    backend = in_memory_backend.create_test_backend(port=port, max_history_size=10_000_000)
    backend.start()
    _ready()


def work(port: int) -> None:
    """A worker with the functions of all workloads."""
    import grpc
    from durabletask import task
    from durabletask.worker import ConcurrencyOptions, TaskHubGrpcWorker

    def act(ctx: Any, given: Any) -> Any:
        return {"ok": True, "i": given["i"]}

    def chain(ctx: Any, given: Any) -> Any:
        done = 0
        for i in range(given["k"]):
            answer = yield ctx.call_activity(act, input={"data": given["data"], "i": i})
            done += answer["ok"]
        return done

    def fan(ctx: Any, given: Any) -> Any:
        calls = [ctx.call_activity(act, input={"data": given["data"], "i": i}) for i in range(given["k"])]
        answers = yield task.when_all(calls)
        return sum(answer["ok"] for answer in answers)

    failed: set[str] = set()

    def fails_once(ctx: Any, given: Any) -> Any:
        if ctx.orchestration_id not in failed:
            failed.add(ctx.orchestration_id)
            raise ValueError("the first time")
        return 1

    def retry(ctx: Any, given: Any) -> Any:
        from datetime import timedelta

        policy = task.RetryPolicy(
            first_retry_interval=timedelta(milliseconds=_RETRY_MS), max_number_of_attempts=2
        )
        done = yield ctx.call_activity(fails_once, input=0, retry_policy=policy)
        return done

    many = ConcurrencyOptions(
        maximum_concurrent_activity_work_items=1000,
        maximum_concurrent_orchestration_work_items=1000,
        maximum_thread_pool_workers=16,
    )
    quiet = logging.getLogger("durabletask")
    quiet.setLevel(logging.CRITICAL)
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=_BIG)
    worker: Any = TaskHubGrpcWorker(channel=channel, concurrency_options=many, logger=quiet)
    for orchestrator in (chain, fan, retry):
        worker.add_orchestrator(orchestrator)
    worker.add_activity(act)
    worker.add_activity(fails_once)
    worker.start()
    _ready()


def _ready() -> None:
    print("READY", flush=True)
    while True:
        time.sleep(3600)


# --- the client ------------------------------------------------------------------------------------------------------


class Backend:
    """A backend, and a worker that can be killed and started again.

    Args:
        name: ``durably`` or ``in-memory``.
        folder: For the hub and for logs.
        hub: Of ours: its URL; None for SQLite in the folder.
    """

    def __init__(self, name: str, folder: Path, hub: str | None) -> None:
        self._folder = folder
        self._port = _free_port()
        ours = ["-m", "durably", "run", "--hub", hub or f"sqlite:///{folder}/hub.db"]
        ours += ["--grpc", f"127.0.0.1:{self._port}"]
        theirs = ["-m", "bench.sdk", "--role", "in-memory", "--port", str(self._port)]
        self._server = self._spawn(ours if name == "durably" else theirs, "server.log")
        if name == "in-memory":
            _await_ready(self._server)
        self._listens()
        self.worker = self._start_worker()

    def _spawn(self, words: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        with (self._folder / log).open("ab") as file:
            return subprocess.Popen(  # noqa: S603 - this program
                [sys.executable, *words], stdout=subprocess.PIPE, stderr=file
            )

    def _listens(self) -> None:
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port)):
                return
            time.sleep(0.05)
        raise MeasurementError(f"the server does not listen: {self._folder / 'server.log'}")

    def _start_worker(self) -> subprocess.Popen[bytes]:
        worker = self._spawn(["-m", "bench.sdk", "--role", "worker", "--port", str(self._port)], "worker.log")
        _await_ready(worker)
        return worker

    def kill_worker(self) -> None:
        """``kill -9``, and another one at once."""
        self.worker.kill()
        self.worker.wait()
        self.worker = self._start_worker()

    def cpu_s(self) -> tuple[float, float]:
        """What server and worker have used."""
        return _cpu_s(self._server.pid), _cpu_s(self.worker.pid)

    def stop(self) -> None:
        """Both."""
        self.worker.kill()
        self._server.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._server.wait(10)
        self._server.kill()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """A client of the SDK."""
        import grpc.aio
        from durabletask.client import AsyncTaskHubGrpcClient

        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options=_BIG)
        client: Any = AsyncTaskHubGrpcClient(channel=channel, logger=logging.getLogger("bench.quiet"))
        try:
            yield client
        finally:
            await client.close()
            await channel.close()


async def instances(client: Any, name: str, n: int, c: int, k: int) -> list[float]:
    """Run `n` instances, `c` at once; how long each took. Each has to give `k`."""
    todo = iter(range(n))
    tag = os.urandom(3).hex()
    took: list[float] = []

    async def lane() -> None:
        for i in todo:
            began = time.perf_counter()
            await _one(client, name, f"{tag}-{i}", k)
            took.append(time.perf_counter() - began)

    async with asyncio.timeout(_LIMIT_S):
        await asyncio.gather(*(lane() for _ in range(c)))
    return took


async def _one(client: Any, name: str, key: str, k: int) -> None:
    import grpc.aio

    for _ in range(20):  # the in-memory backend now and then answers CANCELLED when many start at once
        with suppress(grpc.aio.AioRpcError):
            await client.schedule_new_orchestration(name, input={"data": "x" * 80, "k": k}, instance_id=key)
            break
        await asyncio.sleep(0.02)
    state = None
    while state is None:
        state = await client.wait_for_orchestration_completion(key, timeout=25)
    if state.runtime_status.name != "COMPLETED" or json.loads(state.serialized_output) != k:
        raise MeasurementError(f"{key} is {state.runtime_status.name}: expected COMPLETED with {k}")


# --- workloads -------------------------------------------------------------------------------------------------------


async def _w1(backend: Backend, client: Any) -> Record:
    await instances(client, "chain", 20, 20, _ACTIVITIES)
    return await _measured(
        backend, 300 * _ACTIVITIES, lambda: instances(client, "chain", 300, 100, _ACTIVITIES)
    )


async def _w2(backend: Backend, client: Any) -> Record:
    await instances(client, "fan", 1, 1, 20)
    return await _measured(backend, 1000, lambda: instances(client, "fan", 1, 1, 1000))


async def _retry(backend: Backend, client: Any) -> Record:
    del backend
    await instances(client, "retry", 3, 1, 1)
    took = [1000 * one for one in await instances(client, "retry", 20, 1, 1)]
    return {"retry_p50_ms": round(statistics.median(took), 1), "retry_max_ms": round(max(took), 1)}


async def _kills(backend: Backend, client: Any) -> Record:
    """Workers are killed under load; whoever has not completed by the end is stuck, or lost."""
    going = asyncio.Event()
    done = 0

    async def load() -> None:
        nonlocal done
        while not going.is_set():
            done += len(await instances(client, "chain", 50, 50, _ACTIVITIES))

    loading = asyncio.create_task(load())
    for _ in range(_KILLS):
        await asyncio.sleep(0.5)
        await asyncio.to_thread(backend.kill_worker)
    going.set()
    await loading  # raises for one that was lost or is stuck
    return {"kills": _KILLS, "instances": done, "lost": 0, "stuck": 0}


WORKLOADS: Final[dict[str, Callable[[Backend, Any], Awaitable[Record]]]] = {
    "W1": _w1,
    "W2": _w2,
    "RETRY": _retry,
    "KILLS": _kills,
}


async def _measured(backend: Backend, activities: int, run: Callable[[], Awaitable[list[float]]]) -> Record:
    before, began = backend.cpu_s(), time.perf_counter()
    await run()
    wall = time.perf_counter() - began
    server, worker = (after - first for after, first in zip(backend.cpu_s(), before, strict=True))
    return {
        "wall_s": round(wall, 3),
        "act_per_s": round(activities / wall, 1),
        "server_us": round(server / activities * 1e6),
        "worker_us": round(worker / activities * 1e6),
    }


# --- the rest --------------------------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def _await_ready(process: subprocess.Popen[bytes]) -> None:
    if process.stdout is None or not process.stdout.readline().startswith(b"READY"):
        raise MeasurementError(f"{process.args!r} did not start")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _started(name: str, hub: str | None) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        backend = Backend(name, Path(folder), hub)
        try:
            yield backend
        finally:
            backend.stop()


def _measure(workload: str, name: str, hub: str | None) -> Record:
    """One turn. The in-memory backend hangs now and then: that is told, and the rest goes on."""
    try:
        with _started(name, hub) as backend:
            return asyncio.run(_run(workload, backend))
    except (MeasurementError, TimeoutError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


async def _run(workload: str, backend: Backend) -> Record:
    async with backend.client() as client:
        return await WORKLOADS[workload](backend, client)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure in turns, one JSON line each."""
    parser = argparse.ArgumentParser("python -m bench.sdk", description="See bench/README.md.")
    add = parser.add_argument
    add("--workload", action="append", choices=WORKLOADS, help="some of them (default: all)")
    add("--backend", action="append", choices=("durably", "in-memory"), help="one of them (default: both)")
    add("--rounds", type=int, default=3, help="turns that both take (default: %(default)s)")
    add("--hub", metavar="URL", help="ours (default: SQLite in a temporary folder)")
    add("--role", choices=("in-memory", "worker"), help=argparse.SUPPRESS)
    add("--port", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.role is not None:
        (work if given.role == "worker" else serve_in_memory)(given.port)
        return 0
    failed = False
    for workload in given.workload or WORKLOADS:
        for turn in range(given.rounds):
            for name in given.backend or ("durably", "in-memory"):
                if workload == "KILLS" and name == "in-memory":
                    continue  # it does not outlive a worker
                line = _measure(workload, name, given.hub)
                failed = failed or (name == "durably" and "error" in line)
                print(json.dumps({"workload": workload, "backend": name, "turn": turn, **line}), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
