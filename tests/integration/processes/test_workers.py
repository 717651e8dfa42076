"""Activities in worker processes: real ones, that meet, crash, and are killed."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from durably import NonRetryableError, ProcessDiedError
from durably.executors.native import NativeExecutor
from tests.integration.processes import programs
from tests.integration.processes.bench import (
    Pipe,
    call,
    failure,
    is_gone,
    performed,
    result,
    with_processes,
)
from tests.support.waiting import eventually


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def of_this_file(n: int) -> int:
    return n + 1


# --- what they do ----------------------------------------------------------------------------------------------------


def test_a_thousand_calls_share_the_workers() -> None:
    async def main(executor: NativeExecutor) -> set[int]:
        done = await asyncio.gather(*(executor.perform(call("pid")) for _ in range(1_000)))
        return {result(one) for one in done}

    pids = with_processes(main, programs.pid)
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids
    assert all(is_gone(pid) for pid in pids)


def test_two_run_at_once(pipe: Pipe) -> None:
    async def main(executor: NativeExecutor) -> list[Any]:
        done = await asyncio.gather(
            executor.perform(call("write_to", pipe.path)), executor.perform(call("read_from", pipe.path))
        )
        return [result(one) for one in done]

    assert with_processes(main, programs.write_to, programs.read_from) == ["wrote", "met"]


def test_values_contexts_and_failures_travel() -> None:
    functions = (programs.echo, programs.length, programs.tell, programs.fails, programs.quits, of_this_file)

    async def main(executor: NativeExecutor) -> None:
        for value in (0, "", [], {}, False, "ü\ud7ff", {"a": [1.5, None]}):
            assert result(await executor.perform(call("echo", value))) == value
        nothing = await executor.perform(call("echo"))
        assert (nothing.result, nothing.failure) == (None, None)
        assert result(await executor.perform(call("tell", "word"))) == [
            "word", "i", 3, 2, 1, "i:e:3", {"t": "1"}, False, {"progress": 5}
        ]  # fmt: skip
        assert result(await executor.perform(call("of_this_file", 1))) == 2
        misfit = failure(await executor.perform(call("length", 7)))
        assert misfit.type == "PayloadError"
        assert misfit.message.startswith("Input of activity 'length': ")
        failed = failure(await executor.perform(call("fails")))
        assert (failed.type, failed.message, failed.non_retryable) == ("NonRetryableError", "enough", True)
        assert failed.is_caused_by(NonRetryableError)
        assert failed.is_caused_by(KeyError)
        assert failed.stack_trace is not None
        assert "in fails" in failed.stack_trace
        assert "durably/executors" not in failed.stack_trace
        assert failure(await executor.perform(call("quits"))).type == "SystemExit"

    with_processes(main, *functions, processes=1)


def test_large_payloads_travel_both_ways() -> None:
    text = "x" * 5_000_000
    assert result(performed(programs.echo, text)) == text


def test_a_result_that_is_no_json_is_a_failure() -> None:
    failed = failure(performed(programs.returns_odd))
    assert failed.type == "PayloadError"
    assert failed.message.startswith("Result of activity 'returns_odd': ")


def test_what_they_print_is_printed_by_the_host(capfd: pytest.CaptureFixture[str]) -> None:
    performed(programs.prints, "hello")
    assert capfd.readouterr() == ("out hello\n", "err hello\n")


def test_decorated_functions_and_methods_are_found() -> None:
    async def main(executor: NativeExecutor) -> list[Any]:
        calls = (("doubled", 4), ("inner", 4), ("price", 4))
        return [result(await executor.perform(call(*one))) for one in calls]

    functions = (programs.doubled, programs.Shop.price)
    assert with_processes(main, *functions, registry=programs.registry) == [8, 4, 5]


def test_the_converter_of_the_app_is_used_in_the_worker() -> None:
    async def main(executor: NativeExecutor) -> list[Any]:
        return [result(await executor.perform(call(name, "x"))) for name in ("echo", "pid")]

    functions = (programs.echo, programs.pid)
    (said, value), (_, pid) = with_processes(
        main, *functions, processes=1, converter=programs.loud_app.converter
    )
    assert (said, value) == (f"Loud in {pid}", "x")


# --- how they die ----------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_fails_its_attempt_only(pipe: Pipe) -> None:
    async def main(executor: NativeExecutor) -> None:
        other = asyncio.create_task(executor.perform(call("read_from", pipe.path)))
        for name, number, word in (
            ("exits", 3, "exit code 3"),
            ("exits", 0, "exit code 0"),
            ("is_killed", signal.SIGSEGV, "signal SIGSEGV"),
            ("is_killed", signal.SIGKILL, "signal SIGKILL"),
        ):
            failed = failure(await executor.perform(call(name, int(number))))
            assert failed.type == "ProcessDiedError"
            assert failed.is_caused_by(ProcessDiedError)
            assert f"died while it ran activity '{name}' ({word})" in failed.message
            assert not failed.non_retryable
        await pipe.release()
        assert result(await other) == "go"

    with_processes(main, programs.exits, programs.is_killed, programs.read_from)


def test_the_newest_heartbeat_of_a_running_attempt_is_kept_by_its_host(pipe: Pipe) -> None:
    async def main(executor: NativeExecutor) -> None:
        task = asyncio.create_task(executor.perform(call("beats_and_waits", pipe.path)))
        pool = executor._processes
        await eventually(lambda: [slot.job for slot in pool._slots if slot.job and slot.job.said])
        (job,) = [slot.job for slot in pool._slots if slot.job is not None]
        assert job.said == b'{"progress":5}'
        await pipe.release()
        assert result(await task) == "go"

    with_processes(main, programs.beats_and_waits)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("steps", '{"progress":999}'),
        ("no JSON", '"a object, which is no JSON"'),
        ("large", '"100002 bytes, more'),
    ],
)
def test_the_error_of_a_worker_that_died_ends_with_its_last_heartbeat(what: str, said: str) -> None:
    failed = failure(performed(programs.beats_and_dies, what))
    assert failed.type == "ProcessDiedError"
    assert f"Its last heartbeat said {said}" in failed.message


def test_heartbeats_of_threads_disturb_neither_the_result_nor_the_next_call() -> None:
    async def main(executor: NativeExecutor) -> None:
        for _ in range(20):
            assert result(await executor.perform(call("beats_from_threads"))) == 4
            assert result(await executor.perform(call("echo", "x"))) == "x"

    with_processes(main, programs.beats_from_threads, programs.echo)


def test_a_worker_that_is_killed_from_outside_is_replaced(pipe: Pipe) -> None:
    async def main(executor: NativeExecutor) -> None:
        task = asyncio.create_task(executor.perform(call("busy", pipe.path)))
        victim = await pipe.announced()
        os.kill(victim, signal.SIGKILL)
        assert "(signal SIGKILL)" in failure(await task).message
        assert result(await executor.perform(call("pid"))) != victim

    with_processes(main, programs.busy, programs.pid, processes=1)


def test_who_waits_for_a_worker_has_not_begun() -> None:
    async def main(executor: NativeExecutor) -> None:
        begun: list[int] = []
        calls = [
            msgspec.structs.replace(call("pid"), seq=seq, begun=partial(begun.append, seq)) for seq in (1, 2)
        ]
        attempts = [asyncio.create_task(executor.perform(one)) for one in calls]
        await asyncio.sleep(0)
        assert begun == [1]
        await asyncio.gather(*attempts)
        assert begun == [1, 2]

    with_processes(main, programs.pid, processes=1)


def test_a_worker_that_dies_between_two_calls_costs_nothing() -> None:
    async def main(executor: NativeExecutor) -> None:
        first = result(await executor.perform(call("pid")))
        os.kill(first, signal.SIGKILL)
        assert result(await executor.perform(call("pid"))) != first
        assert is_gone(first)

    with_processes(main, programs.pid, processes=1)


def test_a_fork_that_a_worker_leaves_behind_does_not_hide_its_end(pipe: Pipe) -> None:
    async def main(executor: NativeExecutor) -> None:
        assert "(exit code 7)" in failure(await executor.perform(call("leaves_a_fork", pipe.path))).message
        await pipe.release()

    with_processes(main, programs.leaves_a_fork)


def test_a_worker_that_others_ask_to_end_does_so_after_its_call(pipe: Pipe, tmp_path: Path) -> None:
    async def main(executor: NativeExecutor) -> None:
        go = Pipe(tmp_path / "go")
        task = asyncio.create_task(executor.perform(call("until_told", [pipe.path, go.path])))
        worker = await pipe.announced()
        os.kill(worker, signal.SIGTERM)
        await go.release()
        assert result(await task) == worker
        assert result(await executor.perform(call("pid"))) != worker

    with_processes(main, programs.until_told, programs.pid, processes=1)


def test_a_worker_that_cannot_start_is_a_failure_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durably.executors.worker_process._BOOT", "raise SystemExit(5)")
    failed = failure(performed(programs.pid))
    assert failed.type == "ProcessDiedError"
    assert "for activity 'pid' could not start (exit code 5)" in failed.message
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    failed = failure(performed(programs.pid))
    assert failed.type == "ProcessDiedError"
    assert "No worker process can be started for activity 'pid'" in failed.message


# --- how they are ended ----------------------------------------------------------------------------------------------


def test_cancelling_ends_a_busy_loop_and_cleans_up(pipe: Pipe) -> None:
    async def main(executor: NativeExecutor) -> None:
        task = asyncio.create_task(executor.perform(call("cleans_up", pipe.path)))
        worker = await pipe.announced()
        assert os.getpgid(worker) == worker  # Ctrl-C in the terminal of the host does not reach it
        await cancelled(task)
        assert is_gone(worker)
        assert await pipe.rest() == "cancelled: True"
        assert result(await executor.perform(call("pid"))) != worker

    with_processes(main, programs.cleans_up, programs.pid, processes=1)


def test_one_that_does_not_want_to_end_is_killed(pipe: Pipe) -> None:
    async def main(executor: NativeExecutor) -> None:
        task = asyncio.create_task(executor.perform(call("stubborn", pipe.path)))
        worker = await pipe.announced()
        await cancelled(task)
        assert is_gone(worker)

    with_processes(main, programs.stubborn, grace_s=0.01)


def test_what_an_activity_has_started_ends_with_it(pipe: Pipe) -> None:
    async def main(executor: NativeExecutor) -> None:
        task = asyncio.create_task(executor.perform(call("starts_another", pipe.path)))
        await pipe.announced()
        assert await pipe.line() == "started"
        await cancelled(task)
        assert await pipe.rest() == ""

    with_processes(main, programs.starts_another)


def test_what_waits_for_a_worker_is_dropped_when_cancelled_and_holds_nobody_up(pipe: Pipe) -> None:
    async def main(executor: NativeExecutor) -> None:
        first = asyncio.create_task(executor.perform(call("busy", pipe.path)))
        await pipe.announced()
        second, third = (asyncio.create_task(executor.perform(call("pid"))) for _ in range(2))
        await asyncio.sleep(0)  # the loop goes on
        await cancelled(second)
        assert not third.done()
        await cancelled(first)
        assert isinstance(result(await third), int)

    with_processes(main, programs.busy, programs.pid, processes=1)


def test_closing_ends_what_runs_and_drops_what_waits(pipe: Pipe) -> None:
    async def main(executor: NativeExecutor) -> None:
        tasks = [asyncio.create_task(executor.perform(call("busy", pipe.path))) for _ in range(2)]
        worker = await pipe.announced()
        await executor.close()
        assert is_gone(worker)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in outcomes] == [asyncio.CancelledError] * 2  # no result: they run again

    with_processes(main, programs.busy, processes=1)
