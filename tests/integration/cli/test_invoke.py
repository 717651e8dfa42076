"""``durably invoke``: functions of a host in another process."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator

import pytest

from tests.integration.cli.programs import Done, Folder, Run
from tests.integration.cli.test_run_http import announced, url_of

WEB = """
from dataclasses import dataclass
from durably import App, Client, OrchestrationContext

app = App()

@dataclass
class Order:
    item: str
    count: int = 1

@app.activity
async def price(order: Order) -> float:
    if order.count < 1:
        raise ValueError("nothing to buy")
    return 4.5 * order.count

@app.orchestrator
async def buy(ctx: OrchestrationContext, order: Order) -> float:
    return await ctx.call_activity(price, order)

@app.route("orders/{number}", methods=["POST"])
async def place(number: str, order: Order, client: Client):
    return await client.start(buy, order, instance_id=number)

@app.route("files/{*path}", methods=["GET", "PUT"])
async def file(path: str, body: str | None = None):
    return {"path": path, "body": body}

@app.route("health", auth_level="anonymous")
async def health() -> str:
    return "well"
"""

Invoke = Callable[..., Done]


@contextlib.contextmanager
def served(folder: Folder, run: Run, *options: str) -> Iterator[Invoke]:
    folder.write("web.py", WEB)
    with folder.started("run", "web.py", *options, DURABLY_HTTP="on", DURABLY_HTTP_PORT="0") as process:
        url = url_of(announced(process))
        yield lambda *arguments: run("invoke", *arguments, "--url", url)


def test_http_functions_and_orchestrators(folder: Folder, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(folder, run, "--dev") as invoke:
        assert invoke("health") == (0, "well\n", "")
        assert json.loads(invoke("file", "path=a b/c").out) == {"path": "a b/c", "body": None}
        assert json.loads(invoke("file", "path=x", "-i", '"text"').out) == {"path": "x", "body": "text"}
        assert json.loads(invoke("place", "number=o1", "-i", '{"item": "tea"}').out)["id"] == "o1"
        waited = invoke("place", "number=o2", "-i", '{"item": "tea", "count": 2}', "--wait")
        assert (waited.code, waited.out) == (0, "9.0\n")
        folder.write("order.json", '{"item": "tea", "count": 4}')
        assert invoke("buy", "--input", "@order.json", "--id", "o4", "--wait") == (
            0,
            "18.0\n",
            "Started o4\n",
        )
        monkeypatch.setattr("sys.stdin", io.StringIO('{"item": "tea"}'))
        done = json.loads(invoke("buy", "-i", "-", "--wait", "-o", "json").out)
        assert (done["status"], done["result"]) == ("Completed", 4.5)
        failed = invoke("buy", "-i", '{"item": "tea", "count": 0}', "--wait")
        assert failed.code == 7
        assert "nothing to buy" in failed.err


def test_what_cannot_be_called_is_said(folder: Folder, run: Run) -> None:
    with served(folder, run, "--dev") as invoke:
        for arguments, code, says in (
            (("plaice",), 2, "did you mean 'place'?"),
            (("price",), 2, "'price' is an activity"),
            (("place", "-i", "{}"), 2, "expected number=VALUE"),
            (("place", "nr=1"), 2, "has no parameter 'nr' in its route: expected number"),
            (("place", "number"), 2, "expected NAME=VALUE"),
            (("place", "number=1", "-i", '{"count": 1}'), 2, "does not fit"),
            (("place", "number=a/b", "-i", '{"item": "tea"}'), 2, "holds '/'"),
            (("place", "number=1", "--id", "x"), 2, "--id is for orchestrators"),
            (("buy", "number=1"), 2, "'buy' is an orchestrator"),
            (("buy", "--timeout", "1"), 2, "add --wait"),
            (("file", "path=x", "-X", "DELETE"), 4, "DELETE"),
        ):
            done = invoke(*arguments)
            assert done.code == code, done
            assert says in done.err


def test_keys(folder: Folder, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(folder, run) as invoke:
        assert invoke("health").out == "well\n"
        assert json.loads(invoke("file", "path=x").out)["path"] == "x"  # until there is a key
        function_key = run("keys", "renew", "function", "ci", "--function", "file").out.strip()
        denied = invoke("files/x")
        assert denied.code == 3
        assert "DURABLY_KEY" in denied.err
        assert json.loads(invoke("files/x", "--key", function_key).out)["path"] == "x"
        assert invoke("orders/1", "-i", '{"item": "tea"}', "--key", function_key).code == 3
        host_key = run("keys", "renew", "host").out.strip()
        waited = invoke("orders/1", "-i", '{"item": "tea"}', "--wait", "--key", host_key)
        assert (waited.code, waited.out) == (0, "4.5\n")
        monkeypatch.setenv("DURABLY_KEY", run("keys", "renew", "master").out.strip())
        assert invoke("buy", "-i", '{"item": "tea"}', "--wait").out == "4.5\n"


def test_nobody_answers(run: Run) -> None:
    done = run("invoke", "x", "--url", "http://127.0.0.1:1")
    assert (done.code, "Start one with durably run" in done.err) == (1, True)
