"""A batch of jobs is killed, looked at and cancelled from other processes, and meets jobs that fail for hours."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import RuntimeStatus
from durably.testing.pytest_plugin import DurableEnv
from examples.batch_jobs import app as batch
from examples.batch_jobs.__main__ import fill
from examples.effects import query
from tests.examples.commands import PATIENCE_S, ROOT, Example, lines_until


def invoices(folder: Path) -> set[int]:
    return {int(file.stem) for file in (folder / "invoices").glob("*.txt")}


@pytest.mark.slow_once
def test_a_batch_that_is_killed_goes_on_and_reports_the_jobs_that_failed(tmp_path: Path) -> None:
    example = Example("batch_jobs", tmp_path)

    slow = ("--jobs", "120", "--max-in-flight", "20", "--job-time", "0.5")
    example.kill_when(lambda: len(invoices(tmp_path)) >= 20, *slow)
    out = example.run("--job-time", "0")

    assert "Completed: 118 of 120 done, 2 failed" in out
    assert invoices(tmp_path) == set(range(1, 121)) - {50, 100}
    report = json.loads((tmp_path / "result.json").read_text())
    reason = "it has nothing to pay for"
    assert report == {"done": 118, "failed": 2, "cancelled": 0, "failures": {"50": reason, "100": reason}}


@pytest.mark.slow_once
def test_a_batch_is_started_and_cancelled_by_clients_and_the_next_one_does_the_rest(tmp_path: Path) -> None:
    example, request = Example("batch_jobs", tmp_path), Example("batch_jobs.request", tmp_path)

    assert request.run("start", "--max-in-flight", "5") == "Pending: 0 of 0 done, 0 failed\n"
    with example.started("--jobs", "100", "--job-time", "0.4") as process:
        lines_until(" of 100 done", process)
        request.run("cancel")
        lines_until("Canceled: ", process)
        process.communicate()
        assert process.returncode == 1
    report = json.loads((tmp_path / "result.json").read_text())
    assert report["cancelled"] > 0
    assert report["done"] + report["failed"] + report["cancelled"] == 100
    assert len(invoices(tmp_path)) == report["done"]  # also of those that were running: the report is final

    assert request.run("start").startswith("Pending: ")
    assert ": 98 done, 2 failed, 0 cancelled" in example.run("--job-time", "0")
    assert invoices(tmp_path) == set(range(1, 101)) - {50, 100}


@pytest.mark.slow_once
def test_over_http_a_start_is_accepted_and_its_status_is_polled_until_it_has_ended(tmp_path: Path) -> None:
    fill(tmp_path / "queue.db", 60)
    hub = f"sqlite:///{tmp_path / 'hub.db'}"
    command = [sys.executable, "-m", "durably", "run", "examples.batch_jobs.app", "--hub", hub]
    with subprocess.Popen(
        [*command, "--http", "--port", "0", "--insecure"],
        cwd=ROOT,
        env={**os.environ, "BATCH_JOB_S": "0.05"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            said = "\n".join(lines_until("Ready", process))
            url = re.findall(r"http://127\.0\.0\.1:\d+", said)[0]
            content = json.dumps({"folder": str(tmp_path), "max_in_flight": 10}).encode()
            status, links = asked(
                f"{url}/runtime/webhooks/durabletask/orchestrators/run_batch/batch", content
            )
            assert status == 202
            statuses: list[int] = []
            while 200 not in statuses:
                time.sleep(0.05)
                status, shown = asked(links["statusQueryGetUri"])
                statuses.append(status)
            assert statuses[0] == 202
            assert shown["customStatus"] == {"jobs": 60, "done": 59, "failed": 1}
            assert shown["output"] == json.loads((tmp_path / "result.json").read_text())
        finally:
            process.kill()
    assert invoices(tmp_path) == set(range(1, 61)) - {50}


def asked(url: str, content: bytes | None = None) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer: a POST with content, a GET without."""
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return answer.status, json.load(answer)


async def test_never_more_jobs_at_once_than_allowed(durable_env: DurableEnv, tmp_path: Path) -> None:
    fill(tmp_path / "queue.db", 40)
    running, most = 0, 0

    async def print_slowly(job: batch.Job) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    async with durable_env(batch.app) as env:
        env.mock_activity(batch.run_job, runs=print_slowly)
        await env.run(batch.run_batch, batch.Batch(str(tmp_path), 7))
        assert len(env.calls(batch.run_job)) == 40
    assert most == 7


async def test_a_job_that_fails_for_too_long_is_reported_and_the_others_are_done(
    durable_env: DurableEnv, tmp_path: Path
) -> None:
    fill(tmp_path / "queue.db", 10)
    async with durable_env(batch.app) as env:
        env.mock_activity(batch.run_job, raises=OSError("the printer is on fire"), times=6 * 2)
        env.kill_after(4)
        began = env.now
        report = await env.run(batch.run_batch, batch.Batch(str(tmp_path), 2))
        assert env.now - began > timedelta(minutes=2)
        assert env.deaths == 1
    assert report.done == 8
    assert list(report.failures.values()) == ["the printer is on fire"] * 2


async def test_a_batch_that_is_cancelled_waits_for_nobody_and_closes_the_queue(
    durable_env: DurableEnv, tmp_path: Path
) -> None:
    fill(tmp_path / "queue.db", 10)
    async with durable_env(batch.app) as env:
        env.mock_activity(batch.run_job, delay=timedelta(days=1))
        env.kill_after(batch.close_queue)  # in the middle of tidying up
        handle = await env.start(batch.run_batch, batch.Batch(str(tmp_path), 2))
        await env.settle()
        began = env.now
        await handle.cancel("enough")
        status = await handle.wait_for_completion()
        assert status.runtime_status is RuntimeStatus.Canceled
        assert env.now - began < timedelta(days=1)
        assert env.deaths == 1
    assert query(tmp_path / "queue.db", "SELECT DISTINCT state FROM jobs") == [("cancelled",)]
    assert json.loads((tmp_path / "result.json").read_text())["cancelled"] == 10
