"""``durably run`` as a Functions host: what it serves, under which keys, and how it stops."""

import asyncio
import json
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from durably import Client
from durably.cli.output import Exit
from tests.integration.cli.programs import PATIENCE_S, Folder, Run, interrupted

WEB = """
from durably import App, Client, OrchestrationContext

app = App()

@app.activity
async def count(items: list[str]) -> int:
    return len(items)

@app.orchestrator
async def order(ctx: OrchestrationContext, items: list[str]) -> int:
    return await ctx.call_activity(count, items)

@app.route("orders/{number}", methods=["POST"], auth_level="anonymous")
async def place(number: str, items: list[str], client: Client):
    return await client.start(order, items, instance_id=number)

@app.route(methods=["GET"])
async def secret() -> str:
    return "in"
"""

HTTP = {"DURABLY_HTTP": "on", "DURABLY_HTTP_PORT": "0"}


def announced(process: subprocess.Popen[str]) -> list[str]:
    """The lines up to the one that says that it is ready."""
    lines: list[str] = []
    assert process.stdout is not None
    while not lines or not lines[-1].startswith("Ready"):
        line = process.stdout.readline()
        assert line, process.communicate(timeout=PATIENCE_S)
        lines.append(line.rstrip())
    return lines


def url_of(lines: list[str]) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", "\n".join(lines))
    assert found is not None, lines
    return found.group()


def test_it_says_what_it_serves_and_serves_it(folder: Folder, run: Run) -> None:
    folder.write("web.py", WEB)
    with folder.started("run", "web.py", **HTTP) as process:
        lines = announced(process)
        url = url_of(lines)
        until = "no key is asked for until 'durably keys create NAME --role ROLE' has made one"
        assert f"  http           {url} ({until})" in lines
        assert f"                 POST     {url}/api/orders/{{number}}  (anonymous, place)" in lines
        assert f"                 GET      {url}/api/secret  (function, secret)" in lines

        accepted = httpx.post(f"{url}/api/orders/o1", json=["a", "b"])
        assert accepted.status_code == 202
        status = httpx.get(accepted.headers["location"])
        while status.status_code == 202:
            status = httpx.get(accepted.headers["location"])
        assert status.json()["output"] == 2
        assert "taskHub=durably&" in accepted.headers["location"]

        assert httpx.get(f"{url}/api/secret").text == "in"
        renewed = run("keys", "renew", "function", "--function", "secret")
        assert renewed.err == "Hosts of this hub ask for a key from now on\n"
        key = renewed.out.strip()
        assert httpx.get(f"{url}/api/secret").status_code == 401
        assert httpx.get(f"{url}/api/secret", params={"code": key}).text == "in"
        assert run("keys", "delete", "function", "--function", "secret").code == 0
        assert httpx.get(f"{url}/api/secret", params={"code": key}).status_code == 401
        assert httpx.get(accepted.headers["location"]).status_code == 200
        assert run("keys", "renew-links").code == 0
        assert httpx.get(accepted.headers["location"]).status_code == 403

        done = interrupted(process, signal.SIGTERM)
    assert done.code == 0
    assert done.err.endswith("Stopped\n")


def test_keys_are_listed_without_themselves(folder: Folder, run: Run) -> None:
    assert "There are no keys" in run("keys", "list").err
    key = json.loads(run("keys", "renew", "master", "--output", "json").out)["key"]
    listed = run("keys", "list", "--output", "json")
    assert [row["name"] for row in json.loads(listed.out)] == ["_master"]
    assert key not in listed.out
    assert (folder.path / "durably.db.keys").stat().st_mode & 0o777 == 0o600
    for arguments, says in (
        (("delete", "master"), "renew it instead"),
        (("delete", "host", "nobody"), "no host key 'nobody'"),
        (("renew", "function"), "expected its name"),
        (("renew", "host", "--function", "f"), "no function in particular"),
        (("renew", "host", "a/b"), "without '/'"),
    ):
        done = run("keys", *arguments)
        assert (done.code, says in done.err) == (2, True), done.err
    assert "memory" in run("keys", "list", "--hub", "memory://").err


def test_a_key_with_a_role_is_made_shown_once_used_renewed_and_deleted(folder: Folder, run: Run) -> None:
    folder.write("web.py", WEB)
    with folder.started("run", "web.py", **HTTP) as process:
        instances = f"{url_of(announced(process))}/api/v1/instances"
        assert httpx.get(instances).status_code == 200
        made = run("keys", "create", "ann", "--role", "viewer")
        key = made.out.strip()
        assert (made.code, made.out) == (0, f"{key}\n")
        assert "not shown again" in made.err
        assert "ask for a key from now on" in made.err
        assert httpx.get(instances).status_code == 401
        assert httpx.get(instances, headers={"x-functions-key": key}).status_code == 200
        assert httpx.get(instances, params={"code": key}).status_code == 200
        refused = httpx.post(instances, params={"code": key}, json={"name": "order", "input": []})
        assert refused.status_code == 403
        renewed = run("keys", "renew", "ann")
        assert renewed.err == ""
        codes = [httpx.get(instances, params={"code": one}).status_code for one in (key, renewed.out.strip())]
        assert codes == [401, 200]

        (listed,) = run("keys", "list").out.splitlines()
        assert re.fullmatch(r"role      ann {22}\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  as viewer", listed)
        (row,) = json.loads(run("keys", "list", "-o", "json").out)
        assert (row["kind"], row["name"], row["role"]) == ("role", "ann", "viewer")
        for arguments, says in (
            (("create", "ann", "--role", "admin"), "There is a key 'ann' (role viewer)"),
            (("create", "host", "--role", "admin"), "is a kind of keys"),
            (("create", "ben", "--role", "owner"), "'viewer', 'reader', 'operator', 'developer', 'admin'"),
            (("create", "ben"), "Missing option '--role'"),
            (("create", "a/b", "--role", "admin"), "without '/'"),
            (("renew", "ben"), "There is no key 'ben'"),
            (("renew", "ben", "x"), "'ben' is no kind of keys"),
            (("delete", "ben"), "There is no key 'ben'"),
        ):
            done = run("keys", *arguments)
            assert (done.code, done.out, says in done.err) == (2, "", True), done.err
        assert run("keys", "delete", "ann").err == "Deleted the key 'ann'\n"
        assert "nobody gets in" in run("keys", "list").err
        assert httpx.get(instances).status_code == 401
        interrupted(process, signal.SIGTERM)
    records = [json.loads(line) for line in run("audit", "list", "-o", "json").out.splitlines()]
    mine = [one for one in records if one["action"].startswith("keys ") and one["status"] == 200]
    assert [(one["action"], one["target"]) for one in mine] == [
        ("keys create", {"kind": "role", "name": "ann", "role": "viewer"}),
        ("keys renew", {"kind": "role", "name": "ann"}),
        ("keys delete", {"kind": "role", "name": "ann"}),
    ]


def test_a_port_that_is_taken(folder: Folder) -> None:
    folder.write("web.py", WEB)
    with folder.started("run", "web.py", **HTTP) as process:
        port = url_of(announced(process)).rpartition(":")[2]
        clash = {"DURABLY_HTTP": "on", "DURABLY_HTTP_PORT": port}
        second = folder.run("run", "web.py", "--hub", "sqlite:///second.db", **clash)
        assert second.code == 1
        assert f"port {port}" in second.err
        assert "--port" in second.err


def test_addresses_beyond_this_machine_need_keys(folder: Folder) -> None:
    done = folder.run("run", "shop.py", "--bind", "0.0.0.0", "--insecure", "--port", "0", DURABLY_HTTP="on")
    assert done.code == 2
    assert "anybody" in done.err
    done = folder.run("run", "shop.py", "--host", "0.0.0.0", "--port", "0", DURABLY_HTTP="on")
    assert done.code == 2
    assert "durably keys create NAME --role ROLE" in done.err


@pytest.mark.slow_once
def test_a_stop_under_load_loses_nothing_that_was_accepted(folder: Folder) -> None:
    """SIGTERM in the middle: each start that was answered with 202 ends, once, under the next host."""
    folder.write("web.py", WEB)
    accepted: list[str] = []
    other: list[Any] = []
    with folder.started("run", "web.py", **HTTP) as process:
        url = url_of(announced(process))

        def load(worker: int) -> None:
            with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
                for number in range(10_000):
                    name = f"o{worker}-{number}"
                    try:
                        answer = client.post(f"/api/orders/{name}", json=["a"])
                    except httpx.HTTPError as error:
                        other.append(type(error).__name__)
                        return
                    if answer.status_code == 202:
                        accepted.append(name)
                    else:
                        other.append(answer.status_code)

        threads = [threading.Thread(target=load, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        while len(accepted) < 200:
            threads[0].join(0.01)
        done = interrupted(process, signal.SIGTERM)
        for thread in threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in threads)
    assert done.code == 0
    assert len(accepted) >= 200
    print(f"accepted {len(accepted)}, then {sorted(set(map(str, other)))}")

    with folder.started("run", "web.py", **HTTP) as process:
        announced(process)
        results = asyncio.run(results_of(f"sqlite:///{folder.path / 'durably.db'}", accepted))
    assert results == [1] * len(accepted)


async def results_of(hub: str, instance_ids: list[str]) -> list[Any]:
    async with Client(hub) as client:
        return [await client.handle(name).result(timeout=PATIENCE_S) for name in instance_ids]


def test_the_hub_is_the_one_file(folder: Folder) -> None:
    """Nothing but the hub, what SQLite and the lease need, and the keys lies there afterwards."""
    folder.write("web.py", WEB)
    before = {path.name for path in folder.path.iterdir()}
    with folder.started("run", "web.py", **HTTP) as process:
        announced(process)
        interrupted(process, signal.SIGTERM)
    made = {path.name for path in Path(folder.path).iterdir()} - before - {"__pycache__"}
    assert {"durably.db", "durably.db.keys"} <= made
    assert all(name.startswith("durably.db") for name in made), made


def test_a_host_whose_http_fails_says_so_drains_and_ends(folder: Folder, run: Run) -> None:
    broken = """
from pathlib import Path

from durably.http_api import server

tick = server._Server.on_tick

async def on_tick(self, counter):
    if Path("break").exists():
        raise OSError("out of files")
    return await tick(self, counter)

server._Server.on_tick = on_tick
"""
    folder.write("web.py", WEB + broken)
    with folder.started("run", "web.py", **HTTP) as process:
        announced(process)
        folder.write("break", "")
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == Exit.FAILED, err
    assert "HTTP is not served any more" in err
    assert "OSError: out of files" in err
    assert "Traceback" not in err
