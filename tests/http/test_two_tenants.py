"""Two hubs, two hosts: whatever names the other one, nothing of it is seen or changed, or told to be there."""

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from durably import App, OrchestrationContext
from durably.http_api.links import BASE, RPC
from durably.http_api.v1.operation import V1
from durably.security.capabilities import ANY_INSTANCE, INSTANCE_VERBS, sign
from tests.http.every import Ask, Names, every
from tests.http.issuer import AUDIENCE, LocalIssuer, issuing, rsa
from tests.http.scene import Scene, flows, serving

FAR = 2**33
SECRET = "canary-of-b"
ABOUT_ONE = ("/instances/{instanceId}", "{key}", "{itemId}", "{scheduleId}", "{hostId}")
KEY_A, KEY_B = rsa("a"), rsa("b")


def tenant_flows() -> App:
    app = flows()

    @app.orchestrator
    async def reaches(ctx: OrchestrationContext, target: str) -> list[str]:
        """Everything that code can name another instance or entity with."""
        child = await ctx.call_sub_orchestrator("shout", "x", instance_id=target)
        ctx.send_event(target, "go", "from a")
        ctx.signal_entity(f"@counter@{target}", "add", 100)
        await ctx.start_orchestration("shout", "y", instance_id=f"{target}-more")
        return [child]

    return app


class Tenant(NamedTuple):
    scene: Scene
    file: Path
    issuer: LocalIssuer

    @property
    def hub(self) -> str:
        return self.file.stem

    def rows(self) -> list[str]:
        """All that is in its hub."""
        with contextlib.closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as connection:
            return list(connection.iterdump())

    def grant(self) -> str:
        return sign(self.scene.keys.ring.signing[-1], self.hub, ANY_INSTANCE, INSTANCE_VERBS, FAR)

    def link(self, instance_id: str) -> str:
        return sign(self.scene.keys.ring.signing[-1], self.hub, instance_id, INSTANCE_VERBS, FAR)


@asynccontextmanager
async def tenant(folder: Path, name: str, issuer: LocalIssuer) -> AsyncGenerator[Tenant]:
    folder.mkdir()  # noqa: ASYNC240
    options = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
    async with serving(tenant_flows(), folder, hub=name, **options) as scene:
        yield Tenant(scene, folder / f"{name}.db", issuer)


@asynccontextmanager
async def tenants(folder: Path) -> AsyncGenerator[tuple[Tenant, Tenant]]:
    with issuing(KEY_A) as issuer_a, issuing(KEY_B) as issuer_b:
        async with (
            tenant(folder / "a", "alpha", issuer_a) as a,
            tenant(folder / "b", "beta", issuer_b) as b,
        ):
            client = b.scene.host.client
            await client.start("waits", SECRET, instance_id="of-b")
            await client.start("shout", SECRET, instance_id="ended-of-b")
            await client.wait_for_completion("ended-of-b", 30)
            await client.signal_entity("@note@of-b", "keep", SECRET)
            await client.call_entity("@note@of-b", "keep", SECRET)
            await client.schedules.create("of-b", "waits", SECRET, cron="0 0 3 1 1 *")
            assert any(SECRET.encode().hex() in line.lower() or SECRET in line for line in b.rows())
            yield a, b


OF_B = Names(instance="of-b", entity="note", key="of-b", schedule="of-b", item="of-b", new="of-b")
OF_NOBODY = Names(instance="of-c", entity="note", key="of-c", schedule="of-c", item="of-c", new="of-c")


def credentials(one: Tenant, instance_id: str) -> list[tuple[dict[str, str], dict[str, str]]]:
    """Headers and parameters of each kind."""
    key = KEY_A if one.hub == "alpha" else KEY_B
    token = one.issuer.token(key, roles=["durably.admin"])
    return [
        ({"x-functions-key": one.scene.key}, {}),
        ({"x-functions-key": one.scene.master}, {}),
        ({}, {"code": one.scene.master}),
        ({}, {"sig": one.grant()}),
        ({}, {"sig": one.link(instance_id)}),
        ({"authorization": f"Bearer {token}"}, {}),
    ]


def plain(answer: httpx.Response, *names: str) -> tuple[int, str]:
    """An answer without the ids that were asked for."""
    text = answer.text
    for name in names:
        text = text.replace(name, "…")
    return answer.status_code, text


def asks(names: Names, grant: str) -> list[Ask]:
    return [ask for ask in every(names, grant=grant) if not ask.path.endswith("/makeprimary")]


@pytest.mark.slow_once
def test_no_credential_of_one_opens_the_other(tmp_path: Path) -> None:
    async def whole() -> None:
        async with tenants(tmp_path) as (a, b):
            before = b.rows()
            bodies: dict[int, set[str]] = {}
            for ask in asks(OF_B, a.grant()):
                given = [({}, {})] if ask.path.startswith(RPC) else credentials(a, "of-b")
                for headers, params in given:
                    answer = await ask.of(b.scene.http, headers, **params)
                    assert answer.status_code in {401, 403}, (ask.name, headers, params, answer.text)
                    assert SECRET not in answer.text
                    bodies.setdefault(answer.status_code, set()).add(plain(answer, ask.path)[1])
            assert b.rows() == before
            # One for links and one for all else that is no credential here; each in the two forms of the APIs.
            assert len(bodies[403]) == 2
            assert len(bodies[401]) == 4, bodies[401]  # a key, and a token

    asyncio.run(whole())


def test_nothing_tells_what_is_in_the_other_hub(tmp_path: Path) -> None:
    """A's own credentials at A's host, with ids that are B's: the very answer that ids of nobody get."""

    async def whole() -> None:
        async with tenants(tmp_path) as (a, b):
            before = b.rows()
            headers = {"x-functions-key": a.scene.master}
            pairs = [
                pair
                for pair in zip(asks(OF_B, a.grant()), asks(OF_NOBODY, a.grant()), strict=True)
                if any(name in pair[0].route.path for name in ABOUT_ONE)
                and not pair[0].path.endswith("/call")
            ]
            assert len(pairs) >= 40
            for theirs, nobodys in sorted(
                pairs, key=lambda pair: pair[0].changes
            ):  # what is looked at is not there yet
                mine = {} if theirs.path.startswith(RPC) else headers
                said = [
                    plain(await ask.of(a.scene.http, mine), name)
                    for ask, name in ((theirs, "of-b"), (nobodys, "of-c"))
                ]
                assert said[0] == said[1], theirs.name
                assert said[0][0] in {404, *([400] if theirs.path.endswith("/restart") else [])} or (
                    theirs.changes and "/entities/" in theirs.path
                ), (theirs.name, said)
            assert b.rows() == before

    asyncio.run(whole())


@pytest.mark.slow_once
def test_a_hub_that_is_named_in_any_field_is_not_looked_into(tmp_path: Path) -> None:
    async def whole() -> None:
        async with tenants(tmp_path) as (a, b):
            before = b.rows()
            headers = {"x-functions-key": a.scene.master}
            url = b.scene.host.engine.store.url
            for ask in asks(OF_B, a.grant()):
                mine = {} if ask.path.startswith(RPC) else headers
                for name in ("taskHub", "TaskHub", "taskhub"):
                    answer = await ask.of(a.scene.http, mine, **{name: b.hub})
                    other = await ask.of(a.scene.http, mine, **{name: "nobody"})
                    assert answer.status_code == 404, (ask.name, answer.text)
                    assert plain(answer, b.hub) == plain(other, "nobody"), ask.name
                twice = await a.scene.http.request(
                    ask.route.method, ask.path, headers=mine, params=[("taskHub", a.hub), ("taskHub", b.hub)]
                )
                assert twice.status_code == 404, ask.name
                for more in ({"connection": url}, {"hub": b.hub}, {"hubUrl": url}):
                    if ask.path.endswith("/stream"):
                        continue
                    answer = await ask.of(a.scene.http, mine, **more)
                    assert SECRET not in answer.text, (ask.name, more)
                    if ask.path.startswith(V1) and "connection" not in more:
                        assert answer.status_code == 400, (ask.name, more, answer.text)
            assert b.rows() == before

    asyncio.run(whole())


def test_what_is_nested_stays_in_the_hub_of_the_credential(tmp_path: Path) -> None:
    async def whole() -> None:
        async with tenants(tmp_path) as (a, b):
            before = b.rows()
            headers = {"x-functions-key": a.scene.master}
            http, url = a.scene.http, b.scene.host.engine.store.url
            extra: list[dict[str, Any]] = [{"taskHub": b.hub}, {"hub": url}, {"connection": url}]
            for more in extra:
                for path, body in (
                    ("instances", {"name": "waits", "instanceId": "of-b"}),
                    ("bulk/terminate", {"filter": {"idPrefix": "of-b"}}),
                    ("bulk/purge", {"all": True}),
                    ("entities/note/of-b/signal", {"operation": "keep", "input": "a"}),
                    ("schedules", {"scheduleId": "x", "orchestrator": "waits", "cron": "0 0 3 * * *"}),
                ):
                    answer = await http.post(f"{V1}/{path}", json={**body, **more}, headers=headers)
                    assert answer.status_code == 400, answer.text  # unknown fields are refused
                inner = {"filter": {"idPrefix": "of-b", **more}}
                answer = await http.post(f"{V1}/bulk/purge", json=inner, headers=headers)
                assert answer.status_code == 400, answer.text
            for verb in ("terminate", "suspend", "resume", "rewind", "restart", "purge", "cancel"):
                body = {"filter": {"idPrefix": "of-b"}}
                answer = await http.post(f"{V1}/bulk/{verb}", json=body, headers=headers)
                assert (answer.status_code, answer.json()["matched"]) == (200, 0)
            for name in (
                f"{b.hub}/of-b",
                f"{url}#of-b",
                f"../{b.hub}/of-b",
                f"{b.hub}@of-b",
                f"{b.hub}:of-b",
            ):
                answer = await http.post(
                    f"{V1}/instances", json={"name": "waits", "instanceId": name}, headers=headers
                )
                assert answer.status_code in {201, 400}, answer.text
            start = {"name": "reaches", "instanceId": "parent", "input": "of-b"}
            await http.post(f"{V1}/instances", json=start, headers=headers)
            ended = await http.get(f"{V1}/instances/parent", params={"waitS": 30}, headers=headers)
            assert ended.json()["output"] == ["X"], ended.text
            await http.post(
                f"{V1}/entities/note/of-b/call", json={"operation": "keep", "input": "a"}, headers=headers
            )
            await http.post(f"{BASE}/entities/note/of-b", params={"op": "keep"}, json="a", headers=headers)
            assert b.rows() == before

    asyncio.run(whole())


def test_ids_that_are_drawn_cannot_be_guessed(tmp_path: Path) -> None:
    async def whole() -> None:
        async with serving(flows(), tmp_path) as scene:
            old = await scene.call("POST", "/orchestrators/waits")
            new = await scene.http.post(
                f"{V1}/instances", json={"name": "waits"}, headers={"x-functions-key": scene.key}
            )
            ids = [old.json()["id"], new.json()["instanceId"]]
            ids += [(await scene.host.client.start("waits")).instance_id for _ in range(20)]
            assert len(set(ids)) == len(ids)
            for one in ids:
                assert re.fullmatch(r"[0-9a-f]{32}", one), one
            for place in range(32):  # of a UUID all but the digits that say which kind it is
                fixed = len({one[place] for one in ids}) == 1
                assert not fixed or place == 12, place

    asyncio.run(whole())
