"""Hosts with worker processes: durable time-outs, retries, cancellation, drains, and hosts that are killed."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import (
    App,
    AppHost,
    EngineOptions,
    OrchestrationContext,
    ProcessDiedError,
    RetryPolicy,
    RuntimeStatus,
    TaskFailedError,
)
from tests.integration.processes import programs
from tests.integration.processes.bench import Pipe, is_gone
from tests.support.clock import ManualClock

app = App()
for one in (programs.busy, programs.busy_at_first, programs.until_told, programs.pid, programs.exits):
    app.activity(executor="process")(one)
app.activity(executor="process", max_concurrent=1)(programs.alone)


@app.orchestrator
async def limited(ctx: OrchestrationContext, pipe: str) -> list[Any]:
    try:
        await ctx.call_activity(programs.busy, pipe, timeout=3600)
    except TimeoutError as error:
        return [type(error).__name__, await ctx.call_activity(programs.pid)]
    return []


@app.orchestrator
async def retried(ctx: OrchestrationContext, pipe: str) -> int:
    policy = RetryPolicy(first_retry_interval=timedelta(milliseconds=1), max_number_of_attempts=2)
    return await ctx.call_activity(programs.busy_at_first, pipe, retry=policy)


@app.orchestrator
async def dying(ctx: OrchestrationContext) -> str:
    try:
        await ctx.call_activity(programs.exits, 9)
    except TaskFailedError as error:
        return f"{error.details.type}, {error.details.is_caused_by(ProcessDiedError)}"
    return ""


@app.orchestrator
async def waiting(ctx: OrchestrationContext, pipe: str) -> None:
    await ctx.call_activity(programs.busy, pipe)


@app.orchestrator
async def told(ctx: OrchestrationContext, pipes: tuple[str, str]) -> int:
    return await ctx.call_activity(programs.until_told, pipes)


@app.orchestrator
async def one_at_a_time(ctx: OrchestrationContext, path: str) -> int:
    return len(await ctx.when_all([ctx.call_activity(programs.alone, path) for _ in range(20)]))


def host(hub: str = "memory://", clock: ManualClock | None = None, **options: Any) -> AppHost:
    return app.host(hub, options=EngineOptions(activity_processes=2, **options), clock=clock)


def test_a_time_out_ends_a_busy_loop(pipe: Pipe) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with host(clock=clock) as running:
            handle = await running.client.start(limited, pipe.path)
            worker = await pipe.announced()
            clock.advance(3600)
            name, other = await handle.result(timeout=60)
            assert name == "TaskTimeoutError"
            assert other != worker
            assert await pipe.rest() == ""

    asyncio.run(main())


def test_a_worker_that_is_killed_is_retried_and_its_failure_has_a_type(pipe: Pipe) -> None:
    async def main() -> None:
        async with host() as running:
            handle = await running.client.start(retried, pipe.path)
            os.kill(await pipe.announced(), signal.SIGKILL)
            assert await handle.result(timeout=60) == 2
            died = await running.client.start(dying)
            assert await died.result(timeout=60) == "ProcessDiedError, True"

    asyncio.run(main())


def test_cancelling_the_instance_ends_the_work(pipe: Pipe) -> None:
    async def main() -> None:
        async with host() as running:
            handle = await running.client.start(waiting, pipe.path)
            await pipe.announced()
            await handle.cancel()
            assert await pipe.rest() == ""
            status = await running.client.wait_for_completion(handle.instance_id, timeout=60)
            assert status.runtime_status is RuntimeStatus.Canceled

    asyncio.run(main())


def test_max_concurrent_holds(tmp_path: Path) -> None:
    async def main() -> None:
        async with host() as running:
            handle = await running.client.start(one_at_a_time, str(tmp_path / "taken"))
            assert await handle.result(timeout=60) == 20

    asyncio.run(main())


def test_a_drain_lets_the_work_end(pipe: Pipe, tmp_path: Path) -> None:
    hub = f"sqlite:///{tmp_path}/hub.db"
    go = Pipe(tmp_path / "go")

    async def main() -> None:
        running = host(hub, drain_timeout_s=20)
        await running.start()
        handle = await running.client.start(told, (pipe.path, go.path))
        worker = await pipe.announced()
        stopping = asyncio.create_task(running.stop())
        await asyncio.sleep(0)
        await go.release()
        await stopping
        assert is_gone(worker)
        async with host(hub) as again:
            status = await again.client.get_status(handle.instance_id)
            assert status is not None
            assert (status.runtime_status, status.output) == (RuntimeStatus.Completed, worker)

    asyncio.run(main())


def test_a_drain_that_is_over_ends_the_work_and_it_runs_again(pipe: Pipe, tmp_path: Path) -> None:
    hub = f"sqlite:///{tmp_path}/hub.db"

    async def main() -> None:
        async with host(hub, drain_timeout_s=0) as running:
            handle = await running.client.start(waiting, pipe.path)
            worker = await pipe.announced()
        assert is_gone(worker)
        pipe.close()
        async with host(hub, drain_timeout_s=0) as running:
            assert await pipe.announced() != worker
            status = await running.client.get_status(handle.instance_id)
            assert status is not None
            assert status.runtime_status is RuntimeStatus.Running

    asyncio.run(main())


# --- programs --------------------------------------------------------------------------------------------------------

SCRIPT = """
import asyncio, sys
from durably import App, OrchestrationContext
from tests.integration.processes import programs

print("imported as", __name__, flush=True)
app = App()
busy = app.activity(executor="process")(programs.busy)
busy_without_death_signal = app.activity(executor="process")(programs.busy_without_death_signal)

@app.activity(executor="process")
def triple(n: int) -> int:
    print("tripling")
    return 3 * n

@app.orchestrator
async def call(ctx: OrchestrationContext, what: tuple[str, object]):
    return await ctx.call_activity(*what)

async def main() -> None:
    async with app.host("memory://") as host:
        handle = await host.client.start(call, (sys.argv[1], eval(sys.argv[2])))
        print(await handle.result(timeout=60))

"""

GUARDED = f"{SCRIPT}if __name__ == '__main__':\n    asyncio.run(\n        main()\n    )\n"


@contextmanager
def script(
    folder: Path, text: str, *arguments: str, name: str = "script.py"
) -> Iterator[subprocess.Popen[str]]:
    """A program of its own; killed if it still runs at the end."""
    (folder / name).write_text(text)
    process = subprocess.Popen(
        [sys.executable, *([] if arguments[0].startswith("-") else [name]), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ended(folder: Path, text: str, *arguments: str, name: str = "script.py") -> tuple[int, list[str], str]:
    with script(folder, text, *arguments, name=name) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out.splitlines(), err


@pytest.mark.parametrize("activity", ["busy", "busy_without_death_signal"])
def test_a_host_that_is_killed_leaves_no_worker_behind(tmp_path: Path, pipe: Pipe, activity: str) -> None:
    with script(tmp_path, GUARDED, activity, repr(pipe.path)) as process:

        async def main() -> None:
            await pipe.announced()
            process.kill()
            assert await pipe.rest() == ""

        asyncio.run(main())


# A script may be called like a module of the standard library, and be no module at all.
@pytest.mark.parametrize("name", ["script.py", "wave.py", "my-script"])
def test_a_program_is_imported_but_not_run_by_its_workers(tmp_path: Path, name: str) -> None:
    code, out, err = ended(tmp_path, GUARDED, "triple", "14", name=name)
    assert (code, err) == (0, "")
    assert [one for one in out if "__main__" in one] == ["imported as __main__"]
    assert [one for one in out if "imported" not in one] == ["tripling", "42"]
    assert len(out) == 4


def test_a_program_without_a_guard_is_refused_before_anything_is_run_twice(tmp_path: Path) -> None:
    code, out, err = ended(tmp_path, f"{SCRIPT}asyncio.run(main())\n", "triple", "14")
    assert (code, out) == (1, ["imported as __main__"])
    last = err.splitlines()[-1]
    assert last.startswith("durably.errors.RegistrationError: Activity 'triple' has executor='process', but")
    assert "the program would run again" in last
    assert "under if __name__ == '__main__'" in last


def test_a_program_without_a_file_is_refused(tmp_path: Path) -> None:
    code, out, err = ended(tmp_path, "", "-c", SCRIPT)
    assert (code, out) == (1, ["imported as __main__"])
    assert "the program has no file" in err


APP = SCRIPT.replace("imported as", "app as")


def test_the_command_line_serves_an_app_of_any_file(tmp_path: Path) -> None:
    (tmp_path / "wave.py").write_text(APP)
    arguments = ("-m", "durably", "exec", "wave.py", "call", "-i", json.dumps(["triple", 14]), "-q")
    code, out, err = ended(tmp_path, "", *arguments)
    assert (code, out) == (0, ["42"])  # what code prints goes to stderr
    assert err.splitlines() == ["app as wave_of_user", "app as wave_of_user", "tripling"]
    bad = APP.replace("def triple", "def other(): pass\n\ndef triple").replace(
        "def triple", "other = 1\n\ndef triple", 1
    )
    (tmp_path / "bad.py").write_text(bad)
    code, out, err = ended(tmp_path, "", "-m", "durably", "run", "bad.py")
    assert code == 2
    assert "Activity 'other' has executor='process', but a worker process cannot import it" in err
    assert "another object (1) at 'bad.other'" in err


STARTS_ON_IMPORT = """
import asyncio, os
from durably import App
app = App()

@app.activity(executor="process")
def one() -> int:
    return 1

async def main() -> None:
    async with app.host("memory://"):
        raise SystemError("it was started")

if os.environ.get("START"):
    {act}
"""


@pytest.mark.parametrize(
    ("act", "type_", "words"),
    [
        ("asyncio.run(main())", "RegistrationError", "A host cannot be started by the import of a module"),
        ("raise LookupError('no luck')", "LookupError", "no luck"),
        ("raise SystemExit('bye')", "SystemExit", "bye"),
        ("del one", "AttributeError", "has no attribute 'one'"),
    ],
)
def test_an_import_that_fails_in_the_worker_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, type_: str, words: str
) -> None:
    (tmp_path / "starts.py").write_text(STARTS_ON_IMPORT.format(act=act))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    starts: Any = importlib.import_module("starts")
    monkeypatch.setenv("START", "yes")  # from now on, in workers

    @starts.app.orchestrator
    async def call(ctx: OrchestrationContext) -> Any:
        return await ctx.call_activity("one")

    async def main() -> None:
        async with starts.app.host("memory://") as running:
            handle = await running.client.start(call)
            status = await running.client.wait_for_completion(handle.instance_id, timeout=60)
        assert status.failure is not None
        failure = status.failure.inner
        assert failure is not None
        assert failure.type == "RegistrationError"
        assert "Activity 'one' cannot be imported in a worker process" in failure.message
        assert failure.inner is not None
        assert failure.inner.type == type_
        assert words in failure.inner.message

    try:
        asyncio.run(main())
    finally:
        del sys.modules["starts"]
