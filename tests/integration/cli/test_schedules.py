"""``durably schedules`` as operators use it; what programs read of it is kept in files."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from durably import AppHost
from tests.integration.cli import scene
from tests.integration.cli.programs import Folder, Run
from tests.integration.cli.test_instances_golden import check
from tests.support.clock import ManualClock
from tests.support.waiting import eventually, is_quiet


async def timetable(host: AppHost, clock: ManualClock) -> None:
    """Of each kind one, after a while."""
    schedules = host.client.schedules
    await schedules.create(
        "nightly",
        "pay",
        7,
        cron="0 30 2 * * Mon-Fri",
        time_zone="Europe/Berlin",
        tags={"region": "eu"},
        catch_up_window=timedelta(hours=6),
        note="for the board",
    )
    await schedules.create("approvals", "approve", interval=3600, overlap="buffer_all", jitter=0)
    await schedules.create(
        "beat", entity="@monitor@main", operation="beat", input={"n": 1}, interval=60, paused=True
    )
    await schedules.create("once", "pay", -1, cron="0 0 13 1 3 *", end_at=clock.moment + timedelta(days=2))

    async def is_up_to_date() -> bool:
        found = (await schedules.list()).schedules
        ended = all(one.status for one in found[2].recent + found[3].recent)
        return ended and all(one.next_time is None or one.next_time > clock.moment for one in found)

    for _ in range(15):
        clock.advance(3600)
        await eventually(is_up_to_date)


@pytest.fixture
def hub(folder: Folder) -> Folder:
    scene.build(folder.path, timetable)
    return folder


def test_what_is_printed_stays_as_it_is(hub: Folder, run: Run):
    for output in ("table", "json", "jsonl", "csv", "ids"):
        check(f"schedules_list.{output}", run("schedules", "list", "-o", output).out)
    for output in ("table", "json", "jsonl"):
        shown = run("schedules", "describe", "approvals", "beat", "nightly", "once", "-o", output).out
        check(f"schedules_describe.{output}", shown)
    check("schedules_describe_one.json", run("schedules", "describe", "nightly", "-o", "json").out)
    done = run("schedules", "pause", "nightly", "nope", "-o", "json")
    assert done.code == 4
    answers = sorted(json.loads(done.out), key=lambda answer: answer["schedule_id"])
    check("schedules_pause.json", json.dumps(answers, indent=1))


def test_what_is_asked_without_a_host_waits_for_one(folder: Folder, run: Run):
    created = run(
        "schedules", "create", "s", "pay", "--input", "5", "--every", "2h", "--overlap", "allow",
        "--jitter", "5s", "--catch-up", "all", "--catch-up-window", "1d", "--tag", "a=b", "--version", "3",
        "--start", "2026-01-01", "--end", "2027-01-01", "--paused", "--note", "not yet",
    )  # fmt: skip
    assert (created.code, "No host serves the hub" in created.err) == (0, True)
    assert run("schedules", "describe", "s").code == 4  # nobody has made it
    scene.build(folder.path, nothing)
    found = json.loads(run("schedules", "describe", "s", "-o", "json").out)
    expected = {
        "orchestrator": "pay",
        "input": 5,
        "interval_s": 7200.0,
        "overlap": "allow",
        "jitter_s": 5.0,
        "catch_up": "all",
        "catch_up_window_s": 86400.0,
        "tags": {"a": "b"},
        "version": "3",
        "start_at": "2026-01-01T00:00:00.000000Z",
        "end_at": "2027-01-01T00:00:00.000000Z",
        "paused": True,
        "note": "not yet",
    }
    assert found == found | expected
    assert run("schedules", "update", "s", "--cron", "0 0 9 * * *", "--time-zone", "Asia/Tokyo").code == 0
    assert run("schedules", "resume", "s", "--note", "now").code == 0
    assert (
        run(
            "schedules", "backfill", "s", "--from", "2026-02-01", "--to", "2026-02-02T12:00Z", "--at-once"
        ).code
        == 0
    )
    assert run("schedules", "trigger", "s", "--overlap", "allow").code == 0
    scene.build(folder.path, nothing)
    found = json.loads(run("schedules", "describe", "s", "-o", "json").out)
    assert (found["cron"], found["paused"], found["note"]) == ("0 0 9 * * *", False, "now")
    kinds = sorted((one["kind"], one["scheduled_time"][:13]) for one in found["recent"])
    assert kinds == [
        ("backfill", "2026-02-01T00"),
        ("backfill", "2026-02-02T00"),
        ("manual", "2026-03-01T12"),
    ]
    assert run("schedules", "list", "-o", "ids").out == "s\n"
    assert run("schedules", "delete", "s").code == 0
    scene.build(folder.path, nothing)
    assert run("schedules", "list", "-o", "json").out == "[]\n"


async def nothing(host: AppHost, clock: ManualClock) -> None:
    """Deal with what waits."""
    await is_quiet(host)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("pause", "nope"), 4, "'nope' is not in this hub"),
        (("describe", "nope"), 4, "'nope' is not in this hub"),
        (("delete", ""), 2, "An id is empty"),
        (("create", "nightly", "pay", "--every", "1h"), 5, "already exists"),
        (("create", "new", "pay"), 2, "neither"),
        (("create", "new", "pay", "--every", "soon"), 2, "no length of time"),
        (("create", "new", "pay", "--cron", "0 0 0 30 2 *"), 2, "never comes due"),
        (("create", "new", "pay", "--every", "1h", "--overlap", "perhaps"), 2, "perhaps"),
        (("update", "nightly"), 2, "Nothing is changed"),
        (("update", "nightly", "--every", "0.1s"), 2, "1 s or more"),
        (("update", "nope", "--every", "1s"), 4, "'nope' is not in this hub"),
        (("backfill", "nightly", "--from", "1d"), 2, "--to"),
        (("backfill", "nightly", "--from", "1d", "--to", "2d"), 2, "ends before it starts"),
        (("backfil", "nightly"), 2, "did you mean 'backfill'?"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    hub: Folder, run: Run, arguments: tuple[str, ...], code: int, said: str
):
    refused = run("schedules", *arguments)
    assert (refused.code, said in refused.err) == (code, True), refused
