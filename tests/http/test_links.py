"""Links that answers hand out: never for more than whoever asks may do, and never for longer than a link that asks."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.requests import Request

from durably import DurableClient
from durably.errors import InvalidIdError
from durably.http_api.links import BASE, RPC, Links
from durably.security.capabilities import ANY_INSTANCE, sign
from durably.security.key_file import Glance, KeyFile
from durably.security.roles import ROLES
from tests.http.scene import Scene, flows, serving

LETTERS = {"viewer": "r", "reader": "rv", "operator": "rvc", "developer": "rvcs"}


def in_scene(folder: Path, test: Callable[[Scene], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with serving(flows(), folder) as scene:
            await test(scene)

    asyncio.run(whole())


def tokens_of(answer: httpx.Response) -> list[str]:
    """The capabilities in the links of an answer."""
    body = answer.json()
    urls = [url for name, url in body.items() if name.endswith("Uri")]
    return [parse_qs(urlsplit(url).query)["sig"][0] for url in (answer.headers["location"], *urls)]


@pytest.mark.parametrize("role", [*LETTERS])
def test_links_in_an_answer_allow_no_more_than_who_asks_may(tmp_path: Path, role: str) -> None:
    async def test(scene: Scene) -> None:
        await scene.start("waits", "w")
        expires_s = scene.host.engine.clock.now() // 1_000_000 + 3_600
        letters = LETTERS[role]
        for bound in (ANY_INSTANCE, "w"):
            token = sign(scene.keys.ring.signing[-1], "orders", bound, letters, expires_s)
            asked = [
                await scene.http.get(f"{BASE}/instances/w?sig={token}"),
                await scene.http.post(f"{BASE}/instances/w/restart?sig={token}"),
            ]
            if bound == ANY_INSTANCE:
                asked.append(await scene.http.get(f"{RPC}/{token}/instances/w"))
                asked.append(await scene.http.post(f"{BASE}/orchestrators/waits?sig={token}"))
            given = [one for answer in asked if answer.status_code == 202 for one in tokens_of(answer)]
            assert len(given) == (1 + 9) if (bound, role) == ("w", "developer") else given
            for one in given:
                _, expiry, verbs, _ = one.split(".")
                assert set(verbs) <= set(letters), one
                assert int(expiry, 16) <= expires_s
            again = f"{BASE}/instances/w?sig={given[0]}"
            assert (await scene.http.get(again)).status_code == 202
            if "start" not in ROLES[role]:
                start = await scene.http.post(f"{BASE}/instances/w/restart?sig={given[0]}")
                assert start.status_code == 403
            assert (await scene.http.delete(again)).status_code == 403

    in_scene(tmp_path, test)


@pytest.mark.parametrize("wrong", ["", ANY_INSTANCE, "a/b", "@counter@k"])
def test_a_link_is_made_for_one_instance_that_can_be(tmp_path: Path, wrong: str) -> None:
    made: list[str] = []

    def credential(instance_id: str) -> dict[str, str]:
        made.append(instance_id)
        return {"sig": "s"}

    links = Links("http://host", "orders", credential)
    with pytest.raises(InvalidIdError):
        links.of_instance(wrong)
    assert made == []
    assert links.binding()["requiredQueryStringParameters"].endswith("sig=s")

    app = flows()

    @app.route("links", methods=["GET"], auth_level="anonymous")
    async def give(request: Request, client: DurableClient) -> dict[str, str]:
        return client.create_http_management_payload(request, request.query_params["id"])

    @app.route("response", methods=["GET"], auth_level="anonymous")
    async def respond(request: Request, client: DurableClient) -> object:
        return client.create_check_status_response(request, request.query_params["id"])

    async def whole() -> None:
        async with serving(app, tmp_path) as scene:
            for path in ("links", "response"):
                answer = await scene.http.get(f"/api/{path}", params={"id": wrong})
                assert answer.status_code == 400, answer.text
                assert "sig=" not in answer.text
            whole_links = (await scene.http.get("/api/links", params={"id": "a"})).json()
            token = parse_qs(urlsplit(whole_links["statusQueryGetUri"]).query)["sig"][0]
            assert token.split(".")[2] == "rvcsp"  # code of the app may hand out everything

    asyncio.run(whole())


def test_code_in_a_thread_makes_links_and_a_key_that_is_revoked_afterwards_opens_nothing(
    tmp_path: Path,
) -> None:
    app = flows()

    @app.route("response", methods=["GET"])
    def respond(request: Request, client: DurableClient) -> object:
        return client.create_check_status_response(request, "a")

    async def test(scene: Scene) -> None:
        headers = {"x-functions-key": scene.keys.renew("host", "guest")}
        await scene.start("waits", "a")
        for _ in range(2):
            made = await scene.http.get("/api/response", headers=headers)
            assert made.status_code == 202, made.text
            assert (await scene.http.get(made.headers["location"])).status_code == 202
        scene.keys.delete("host", "guest")
        assert (await scene.http.get("/api/response", headers=headers)).status_code == 401

    async def whole() -> None:
        async with serving(app, tmp_path) as scene:
            await test(scene)

    asyncio.run(whole())


def test_threads_and_other_loops_look_at_the_keys_of_now(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys", lambda: 0)
    keys.prepare()
    glance = Glance(keys)

    async def other() -> int:
        return len(glance().keys)

    async def whole() -> None:
        before = len(glance().keys)  # seen for this step, which goes on
        keys.renew("host", "one")
        with ThreadPoolExecutor(8) as pool:
            counts = {one.result() for one in [pool.submit(lambda: len(glance().keys)) for _ in range(64)]}
            counts |= {pool.submit(asyncio.run, other()).result()}
        assert counts == {before + 1}
        await asyncio.sleep(0)
        assert len(glance().keys) == before + 1

    asyncio.run(whole())
