"""What programs read of us stays as it is: the output of each command in each format, kept in files.

A file that is missing is written, and the test fails once: look at it before it is kept.
"""

import json
import re
from pathlib import Path

import pytest

from tests.integration.cli import scene
from tests.integration.cli.programs import Folder, Run

GOLDEN = Path(__file__).parent / "golden"
CHANGING = (
    (r"\b\d[\d.]* (ms|s|min|h|d)( \d+ (s|min|h))?\b", "<span>"),
    (r'("+python"+: ?"+)3\.\d+', r"\1<minor>"),
)


@pytest.fixture
def hub(folder: Folder) -> Folder:
    scene.build(folder.path, scene.one_of_each)
    return folder


def check(name: str, text: str) -> None:
    for pattern, instead in CHANGING:
        text = re.sub(pattern, instead, text)
    path = GOLDEN / name
    if not path.exists():
        path.write_text(text, encoding="utf-8")
        pytest.fail(f"{name} was written: look at it")
    assert text == path.read_text(encoding="utf-8")


def test_what_is_printed_stays_as_it_is(hub: Folder, run: Run):
    for output in ("table", "json", "jsonl", "csv", "ids"):
        check(f"list.{output}", run("instances", "list", "-o", output).out)
        if output != "ids":
            check(f"count.{output}", run("instances", "count", "-o", output).out)
            check(f"history.{output}", run("instances", "history", "paid-1", "-o", output).out)
        check(
            f"dry_run.{output}",
            run("instances", "purge", "--status", "Completed,Failed", "--dry-run", "-o", output).out,
        )
    check("history_payloads.table", run("instances", "history", "paid-1", "--payloads").out)
    check("history_payloads.csv", run("instances", "history", "paid-1", "--payloads", "-o", "csv").out)
    for output in ("table", "json", "jsonl"):
        check(
            f"show.{output}", run("instances", "show", "paid-1", "suspended-1", "stopped-1", "-o", output).out
        )
    check("show_one.json", run("instances", "show", "paid-1", "-o", "json").out)
    ids = run("instances", "list", "-o", "ids").out.split()
    check("why.table", run("instances", "why", *ids).out)
    check("why.jsonl", run("instances", "why", "-o", "jsonl", *ids).out)
    check("result.json", run("instances", "result", "paid-1", "-o", "json").out)
    check("result.table", run("instances", "result", "paid-1").out)
    done = run("instances", "terminate", "=wait+1", "failed-1", "nope", "-o", "json")
    answers = sorted(
        json.loads(done.out), key=lambda answer: answer["instance_id"]
    )  # in the order of their ends
    check("terminate.json", json.dumps(answers, indent=1))
    done = run("instances", "terminate", "=wait+1", "-o", "csv")
    check("terminate.csv", done.out)
