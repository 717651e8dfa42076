"""``durably run --dev`` as people use it: an editor, a terminal, and somebody who asks over HTTP."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from durably.cli.dev.run import _with_http
from durably.cli.run import Face
from durably.config.settings import Settings
from tests.integration.cli.programs import PATIENCE_S, Folder, Run

WEB = """
import time
from pathlib import Path
from durably import App, Client, OrchestrationContext

app = App()
turns = 0

@app.activity
def hold(name: str) -> str:
    with open("work.log", "a") as log:
        log.write(name + "\\n")
    while not Path("release").exists():
        time.sleep(0.01)
    return name.upper()

@app.activity
def declined(name: str) -> str:
    raise ValueError(f"no {name}")

@app.orchestrator
async def long(ctx: OrchestrationContext) -> str:
    first = await ctx.wait_for_external_event("Go", str)
    return first + await ctx.call_activity(hold, "a")

@app.orchestrator
async def fails(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(declined, "bread")

@app.orchestrator
async def chance(ctx: OrchestrationContext) -> str:
    global turns
    turns += 1
    return await ctx.wait_for_external_event(f"Go{turns}", str)

@app.route("answer", methods=["GET"])
async def answer() -> str:
    return "first"

@app.route("broken", methods=["GET"])
def broken() -> str:
    return {}["not there"]

@app.route("start/{name}", methods=["POST"])
async def start(name: str, client: Client):
    return await client.start(name, instance_id=name)
"""


class Dev:
    """A host in development, and what its terminal shows."""

    def __init__(self, folder: Folder, process: subprocess.Popen[bytes], terminal: Path) -> None:
        self.folder = folder
        self.process = process
        self._terminal = terminal
        self.http = httpx.Client(timeout=PATIENCE_S)

    @property
    def shown(self) -> str:
        return self._terminal.read_text(encoding="utf-8")

    def until_shows(self, words: str, times: int = 1) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while self.shown.count(words) < times:
            assert time.monotonic() < deadline, self.shown
            assert self.process.poll() is None, self.shown
            time.sleep(0.005)
        return self.shown

    def ready(self) -> None:
        shown = self.until_shows("Ready")
        found = re.search(r"http://127\.0\.0\.1:\d+", shown)
        assert found is not None, shown
        self.http.base_url = found.group()

    def save(self, text: str) -> float:
        """Write the app; the time of it."""
        self.folder.write("web.py", text)
        return time.monotonic()

    def until_answers(self, text: str) -> httpx.Response:
        """Ask until the code of now answers. A connection that was open goes with the process that had it."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                answer = self.http.get("/api/answer")
                if text in answer.text:
                    return answer
        raise AssertionError(self.shown)


@contextlib.contextmanager
def developing(folder: Folder, *arguments: str) -> Iterator[Dev]:
    folder.write("web.py", WEB)
    terminal = folder.path / "terminal.txt"
    command = [sys.executable, "-m", "durably", "run", "web.py", "--dev", "--port", "0", *arguments]
    environment = {**folder.environment, "DURABLY_HTTP": "on"}
    with (
        terminal.open("wb") as out,
        subprocess.Popen(command, cwd=folder.path, env=environment, stdout=out, stderr=out) as process,
    ):
        dev = Dev(folder, process, terminal)
        try:
            dev.ready()
            yield dev
        finally:
            dev.http.close()
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            finally:
                process.kill()


def test_after_a_save_the_new_code_answers(folder: Folder) -> None:
    with developing(folder) as dev:
        dev.until_answers("first")
        took: list[float] = []
        for number in range(5):
            saved = dev.save(WEB.replace('"first"', f'"number {number}"'))
            dev.until_answers(f"number {number}")
            took.append(time.monotonic() - saved)
        took.sort()
        print(f"save to new code answering: {', '.join(f'{one:.3f}' for one in took)} s")
        assert statistics.median(took) < 3 * 0.5


@pytest.mark.slow_once
def test_instances_go_on_under_the_code_of_now(folder: Folder, run: Run) -> None:
    with developing(folder) as dev:
        assert dev.http.post("/api/start/long").status_code == 202
        dev.save(WEB.replace('"first"', '"second"'))
        dev.until_answers("second")
        assert run("instances", "raise", "long", "Go", "--data", '"went on: "').code == 0
        while folder.worked() != ["a"]:
            time.sleep(0.005)
        dev.save(WEB.replace('"first"', '"while an activity ran"'))  # it is cut off, and runs again
        dev.until_answers("while an activity ran")
        while folder.worked() != ["a", "a"]:
            time.sleep(0.005)
        folder.write("release", "")
        assert run("instances", "result", "long").out == '"went on: A"\n'
    assert dev.process.returncode == 0
    assert dev.shown.endswith("Stopped\n")


@pytest.mark.slow_once
def test_what_it_serves_is_told_at_each_reload_and_no_key_is_asked_for(folder: Folder) -> None:
    with developing(folder) as dev:
        url = str(dev.http.base_url).rstrip("/")
        assert f"  http           {url} (no keys are asked for)\n" in dev.shown
        listed = f"GET      {url}/api/answer  (function, answer)"
        assert dev.shown.count(listed) == 1
        assert dev.http.get("/runtime/webhooks/durabletask/instances").json() == []
        dev.save(WEB.replace('route("answer"', 'route("reply"'))
        shown = dev.until_shows("Ready", 2)
        assert "web.py changed\n" in shown
        assert f"GET      {url}/api/reply  (function, answer)" in shown
        assert re.search(r"Ready after \d\.\d\d s; Ctrl-C stops\n$", shown)
        assert dev.http.get("/api/reply", headers={"Host": "evil.example"}).status_code == 421
        foreign = dev.http.post("/api/start/long", headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403


@pytest.mark.slow_once
def test_settings_that_are_saved_hold_for_the_code_of_now(folder: Folder) -> None:
    with developing(folder) as dev:
        dev.save(f"import os\n{WEB}".replace('"first"', 'os.environ.get("WORD", "no word")'))
        dev.until_answers("no word")
        folder.write("local.settings.json", '{"Values": {"WORD": "said", "DURABLY_WROD": "1"}}')
        dev.until_answers("said")
        shown = dev.until_shows("Warning: local.settings.json:1: DURABLY_WROD is unknown, and ignored\n")
        assert "local.settings.json changed\n" in shown
        folder.write("local.settings.json", "{")
        shown = dev.until_shows("Nothing is served")
        assert "Error: local.settings.json, line 1: expected a key in quotes, the file ends\n" in shown
        folder.write("local.settings.json", "{}")
        dev.until_answers("no word")


@pytest.mark.slow_once
def test_code_that_cannot_be_loaded_is_explained_and_the_next_save_tries_again(folder: Folder) -> None:
    with developing(folder) as dev:
        dev.until_answers("first")
        dev.save(WEB + "\ndef (:\n")
        shown = dev.until_shows("Nothing is served")
        assert f'File "{folder.path}/web.py", line {len(WEB.splitlines()) + 2}\n    def (:\n' in shown
        assert "SyntaxError" in shown
        assert "src/durably" not in shown
        assert dev.until_answers("cannot be loaded").status_code == 503

        dev.save("from helpers.words import word\n" + WEB.replace('"first"', "word"))
        dev.until_shows("No module named 'helpers'")
        (folder.path / "helpers").mkdir()
        (folder.path / "helpers" / "words.py").write_text('word = "from a new module"')
        assert dev.until_answers("from a new module").status_code == 200
        (folder.path / "helpers" / "words.py").write_text('word = "from a module that changed"')
        dev.until_answers("from a module that changed")


@pytest.mark.slow_once
@pytest.mark.parametrize("debug", [False, True])
def test_what_fails_is_told_with_the_frames_of_the_user(folder: Folder, debug: bool) -> None:
    with developing(folder, *["--debug"] * debug) as dev:
        assert dev.http.get("/api/broken").status_code == 500
        shown = dev.until_shows("KeyError: 'not there'")
        assert 'web.py", line' in shown
        assert ("http_api/functions/function.py" in shown) is debug
        dev.http.post("/api/start/fails")
        shown = dev.until_shows("FAILED instance 'fails' (orchestrator 'fails')\nTaskFailedError")
        assert "FAILED activity 'declined', attempt 1, of instance 'fails'\nValueError: no bread\n" in shown
        dev.until_shows("return await ctx.call_activity(declined")


@pytest.mark.slow_once
def test_code_that_is_not_deterministic_is_told_at_once(folder: Folder) -> None:
    with developing(folder) as dev:
        dev.http.post("/api/start/chance")
        shown = dev.until_shows("NOT DETERMINISTIC")
        assert "history says:  wait for external event 'Go1' (#0)" in shown
        assert "code now does: wait for external event 'Go2' (#0) at" in shown
        dev.until_shows("Take time, chance and ids from ctx")
        assert "is blocked" not in dev.shown


@pytest.mark.slow_once
def test_a_change_under_a_running_instance_is_told_at_once(folder: Folder, run: Run) -> None:
    with developing(folder) as dev:
        dev.http.post("/api/start/long")
        while run("instances", "list", "--status", "Running", "-o", "ids").out != "long\n":
            time.sleep(0.005)
        dev.save(WEB.replace('wait_for_external_event("Go"', 'wait_for_external_event("Other"'))
        shown = dev.until_shows("CHANGED UNDER A RUNNING INSTANCE")
        assert "code now does: wait for external event 'Other' (#0) at" in shown
        assert "NOT DETERMINISTIC" not in shown
        run("instances", "raise", "long", "Go", "--data", '"x"')
        while "Is blocked" not in run("instances", "why", "long").out:
            time.sleep(0.005)
        assert dev.shown.count("CHANGED UNDER A RUNNING INSTANCE") == 1
        dev.save(WEB.replace('hold, "a"', 'hold, "b"'))  # it agrees with the history again
        dev.until_shows("Ready", 3)
        folder.write("release", "")
        assert run("instances", "result", "long").out == '"xB"\n'


@pytest.mark.slow_once
def test_a_process_whose_parent_is_killed_lets_go(folder: Folder, run: Run) -> None:
    with developing(folder) as dev:
        found = re.search(r"\(pid (\d+)\)", dev.shown)
        assert found is not None
        child = int(found.group(1))
        assert child != dev.process.pid
        dev.process.send_signal(signal.SIGKILL)
        dev.process.wait(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while run("exec", "web.py", "fails", "--id", "x").code == 5:  # the hub is served
            assert time.monotonic() < deadline
        while _is_there(child):
            assert time.monotonic() < deadline


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow_once
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_in_order(folder: Folder, number: signal.Signals) -> None:
    with developing(folder) as dev:
        dev.process.send_signal(number)
        assert dev.process.wait(PATIENCE_S) == 0
        assert dev.shown.endswith("Stopped\n")


@pytest.mark.slow_once
def test_code_that_hangs_is_replaced(folder: Folder, run: Run) -> None:
    with developing(folder) as dev:
        hangs = WEB.replace("    global turns\n", "    while True:\n        pass\n")
        dev.save(hangs.replace('"first"', '"it will hang"'))
        dev.until_answers("it will hang")
        with pytest.raises(httpx.ReadTimeout):
            dev.http.post("/api/start/chance", timeout=1)
        dev.save(WEB.replace('f"Go{turns}"', '"Go"').replace('"first"', '"mended"'))
        dev.until_answers("mended")
        assert "The code holds up its process, which is killed" in dev.shown
        assert dev.http.post("/api/start/chance").status_code == 202
        assert run("instances", "raise", "chance", "Go", "--data", '"on"').code == 0
        assert run("instances", "result", "chance").out == '"on"\n'


@pytest.mark.slow_once
def test_activities_in_processes_run_the_code_of_now(folder: Folder, run: Run) -> None:
    computes = WEB.replace("@app.activity\ndef declined", '@app.activity(executor="process")\ndef declined')
    with developing(folder) as dev:
        for answer in ("one", "two"):
            dev.save(
                computes.replace('raise ValueError(f"no {name}")', f'return "{answer}"').replace(
                    "first", answer
                )
            )
            dev.until_answers(answer)
            dev.http.post("/api/start/fails")
            assert run("instances", "result", "fails").out == f'"{answer}"\n'


def test_keys_are_asked_for_where_others_could_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def insecure(bind: str) -> bool:
        plan = _with_http(("web.py",), "sqlite:///durably.db", Face(bind, 0, None), Settings.read())
        assert plan.http is not None
        assert plan.listening is not None
        plan.listening.close()
        return plan.http.insecure

    assert insecure("127.0.0.1")
    assert not insecure("0.0.0.0")
    monkeypatch.setenv("DURABLY_HTTP_OIDC_ISSUER", "https://login.example.com/")
    monkeypatch.setenv("DURABLY_HTTP_OIDC_AUDIENCE", "orders")
    monkeypatch.setenv("DURABLY_HTTP_OIDC_JWKS_URL", "https://login.example.com/keys")
    assert insecure("127.0.0.1")
    assert not insecure("0.0.0.0")
    monkeypatch.setenv("DURABLY_HTTP_ALLOWED_HOSTS", "*")
    assert not insecure("127.0.0.1")


@pytest.mark.slow_once
def test_a_hub_in_memory_is_warned_of(folder: Folder) -> None:
    with developing(folder, "--hub", "memory://") as dev:
        assert "A hub in memory ends with each reload" in dev.shown


@pytest.mark.slow_once
def test_a_port_that_is_taken_is_named(folder: Folder) -> None:
    with developing(folder) as dev:
        port = str(dev.http.base_url.port)
        second = folder.run("run", "shop.py", "--dev", "--port", port, DURABLY_HTTP="on")
    assert second.code == 1
    assert f"port {port}" in second.err
