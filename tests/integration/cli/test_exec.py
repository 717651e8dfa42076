"""``durably exec`` as people run it."""

import json
import signal
import sqlite3

from tests.integration.cli.programs import APP, PATIENCE_S, Folder, Run, interrupted, until_says

STEPS = ("exec", "shop.py", "steps", "--id", "s1")
ABC = ("--input", '["a", "b", "c"]')


def test_the_result_is_on_stdout_and_all_else_on_stderr(folder: Folder):
    done = folder.run(*STEPS, *ABC)
    assert done.code == 0
    assert json.loads(done.out) == ["A", "B", "C"]
    assert "done      work" in done.err
    assert "completed steps  s1" in done.err
    assert "working on a" in done.err


def test_one_object_for_programs_and_no_progress_when_quiet(folder: Folder, run: Run):
    done = run(*STEPS, *ABC, "-q", "--hub", "memory://", "-o", "json")
    assert done.code == 0
    assert done.err == "working on a\nworking on b\nworking on c\n"
    answer = json.loads(done.out)
    assert answer.pop("duration_s") > 0
    assert answer == {
        "instance_id": "s1",
        "status": "Completed",
        "result": ["A", "B", "C"],
        "failure": None,
        "custom_status": {"total": 3},
    }


def test_a_finished_instance_gives_its_result_and_does_not_run_again(folder: Folder, run: Run):
    first = run(*STEPS, *ABC)
    again = run(*STEPS)
    assert (again.code, again.out) == (0, first.out)
    assert "done before: 3 of 3 steps" in again.err
    assert folder.worked() == ["a", "b", "c"]

    other = run(*STEPS, "--input", '["x"]')
    assert other.out == first.out
    assert "Instance 's1' is there already: it keeps the input that it has" in other.err
    quiet = run(*STEPS, "--input", '["x"]', "-q")
    assert quiet.err == "Instance 's1' is there already: it keeps the input that it has\n"

    refused = run("exec", "shop.py", "wait", "--id", "s1")
    assert refused.code == 5
    assert "it is an instance of 'steps', expected one of 'wait'" in refused.err

    refused = run(*STEPS, *ABC, "--on-existing", "fail")
    assert refused.code == 5
    assert "Instance 's1' already exists and is Completed" in refused.err

    replaced = run(*STEPS, "--input", '["x"]', "--on-existing", "replace_finished")
    assert json.loads(replaced.out) == ["X"]


def test_after_a_kill_the_same_command_goes_on(folder: Folder, run: Run):
    with folder.started(*STEPS, *ABC, HOLD="b") as process:
        folder.until_working_on("b", process)
        assert interrupted(process, signal.SIGKILL).code == -signal.SIGKILL
    done = run(*STEPS, *ABC)
    assert (done.code, json.loads(done.out)) == (0, ["A", "B", "C"])
    assert "done before: " in done.err
    assert folder.worked() == ["a", "b", "b", "c"]  # what had ended is not done again


def test_ctrl_c_lets_activities_end_and_says_how_to_go_on(folder: Folder, run: Run):
    hub = "sqlite:///orders hub.db"
    with folder.started(*STEPS, *ABC, "--hub", hub, HOLD="b") as process:
        folder.until_working_on("b", process)
        process.send_signal(signal.SIGINT)
        err = until_says(process, "Stopping: waiting up to 10 s for 1 activity")
        folder.write("release", "")
        assert process.wait(PATIENCE_S) == 130
    assert f"Interrupted. To go on:\n  python -m durably exec shop.py steps --id s1 --hub '{hub}'\n" in err
    assert folder.worked() == ["a", "b"]
    done = run(*STEPS, "--hub", hub)
    assert (done.code, json.loads(done.out)) == (0, ["A", "B", "C"])
    assert folder.worked() == ["a", "b", "c"]


def test_a_second_signal_ends_the_drain_at_once(folder: Folder, run: Run):
    with folder.started(*STEPS, *ABC, HOLD="a", DURABLY_DRAIN_TIMEOUT_S="1000") as process:
        folder.until_working_on("a", process)
        process.send_signal(signal.SIGTERM)
        until_says(process, "Stopping: waiting up to 1000 s for 1 activity")
        assert interrupted(process).code == 130
    assert json.loads(run(*STEPS).out) == ["A", "B", "C"]
    assert folder.worked() == ["a", "a", "b", "c"]


def test_a_failed_instance_tells_why(folder: Folder, run: Run):
    arguments = ("exec", "shop.py", "buy", "--id", "b1", "-i", '{"sku": "tea"}')
    done = run(*arguments)
    assert (done.code, done.out) == (7, "")
    story = done.err[done.err.index("Error: Instance") :].splitlines()
    assert story[:2] == ["Error: Instance 'b1' ended as Failed", "LookupError: out of stock"]
    assert "caused by ValueError: no tea" in story
    assert 'raise LookupError("out of stock") from error' in done.err
    assert all("shop.py" in line for line in story if line.lstrip().startswith("File "))

    answer = json.loads(run(*arguments, "-o", "json", "-q").out)
    assert (answer["status"], answer["result"]) == ("Failed", None)
    assert (answer["failure"]["type"], answer["failure"]["inner"]["inner"]["message"]) == (
        "LookupError",
        "no tea",
    )


def test_what_takes_too_long_is_left_in_the_hub(folder: Folder, run: Run):
    done = run("exec", "shop.py", "wait", "--id", "w1", "--timeout", "0.3", "-o", "json")
    assert done.code == 6
    assert "Instance 'w1' has not ended within 0.3 s" in done.err
    assert "durably exec shop.py wait --id w1\n" in done.err
    answer = json.loads(done.out)
    assert (answer["status"], answer["result"], answer["duration_s"]) == ("Running", None, None)
    in_memory = run("exec", "shop.py", "wait", "--timeout", "0.1", "--hub", "memory://")
    assert "the hub was in memory only, and is gone" in in_memory.err


def test_changed_code_blocks_with_a_diff_and_the_fix_goes_on(folder: Folder, run: Run):
    with folder.started(*STEPS, *ABC, HOLD="b") as process:
        folder.until_working_on("b", process)
        interrupted(process, signal.SIGKILL)
    folder.write("shop.py", APP.replace("ctx.call_activity(work, name)", "ctx.call_activity('other', name)"))
    blocked = run(*STEPS, "-o", "json")
    assert blocked.code == 1
    assert "Instance 's1' cannot go on" in blocked.err
    assert "goes on when the code fits its history" in blocked.err
    answer = json.loads(blocked.out)
    assert answer["failure"]["type"] == "Blocked"
    assert "other" in answer["failure"]["message"]

    folder.write("shop.py", APP)
    done = run(*STEPS)
    assert (done.code, json.loads(done.out)) == (0, ["A", "B", "C"])


def test_a_hub_that_cannot_be_read_is_one_clear_line(folder: Folder, run: Run):
    with sqlite3.connect(folder.path / "durably.db") as file:
        file.execute("CREATE TABLE something_else (x)")
    file.close()
    done = run(*STEPS, *ABC)
    assert done.code == 4
    assert done.err.startswith("Error: File ")
    assert "is not a hub: it is a database of another program" in done.err
    assert len(done.err.splitlines()) == 1
