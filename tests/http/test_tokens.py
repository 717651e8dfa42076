"""Bearer tokens: those of the issuer open what their roles say, all others nothing."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from durably import UsageError
from durably.http_api.links import BASE
from durably.http_api.options import HttpOptions
from durably.security.issuer import FRESH_S, PAUSE_S, STALE_S, Issuer
from durably.security.token_rules import DEFAULT_ALGORITHMS, DEFAULT_ROLES, TokenRules
from durably.security.tokens import TokenError, check_token, read_keys
from tests.http.issuer import AUDIENCE, LocalIssuer, ec, issuing, rsa, weak
from tests.http.scene import Scene, flows, serving, until

KEY = rsa("k1")
EC_KEY = ec("e1")
STRANGER = rsa("k1")
"""Has the key id of another one."""

WEAK = weak("weak")

Test = Callable[[Scene, LocalIssuer], Awaitable[None]]


def in_scene(folder: Path, test: Test, *, roles: str = DEFAULT_ROLES) -> None:
    async def whole() -> None:
        with issuing(KEY, EC_KEY) as issuer:
            options = {"oidc_issuer": issuer.url, "oidc_audience": f"other, {AUDIENCE}", "oidc_roles": roles}
            async with serving(flows(), folder, **options) as scene:
                await test(scene, issuer)

    asyncio.run(whole())


async def ask(scene: Scene, token: str, method: str = "GET", path: str = "/instances") -> httpx.Response:
    return await scene.http.request(method, BASE + path, headers={"authorization": f"Bearer {token}"})


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed_by_hmac(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    said = f"{part(header)}.{part(claims)}"
    return f"{said}.{part(hmac.digest(secret, said.encode(), hashlib.sha256))}"


def altered(token: str, **changes: Any) -> str:
    """A token whose claims were changed after it was signed."""
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return f"{head}.{part({**claims, **changes})}.{signature}"


def forgeries(issuer: LocalIssuer) -> dict[str, str]:
    """Tokens that must not be accepted, by what is wrong with them."""
    now = int(time.time())
    good = issuer.token(KEY)
    head, body, signature = good.split(".")
    claims = issuer.claims()
    pem = KEY.as_pem(private=False)
    own = {"kid": None}
    return {
        "empty": "x",
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "five parts, encrypted": "a.b.c.d.e",
        "padding": f"{head}.{body}.{signature}==",
        "detached payload": f"{head}..{signature}",
        "alg none": f"{part({'alg': 'none', 'typ': 'JWT'})}.{body}.",
        "alg none with a signature": f"{part({'alg': 'none'})}.{body}.{signature}",
        "alg NONE": f"{part({'alg': 'NONE', 'kid': 'k1'})}.{body}.{signature}",
        "no alg": f"{part({'kid': 'k1'})}.{body}.{signature}",
        "alg a list": f"{part({'alg': ['RS256'], 'kid': 'k1'})}.{body}.{signature}",
        "header a list": f"{part(['alg'])}.{body}.{signature}",
        "header of a thousand lists": f"{part(b'[' * 1400)}.{body}.{signature}",
        "HS256 with the public key": signed_by_hmac({"alg": "HS256", "kid": "k1"}, claims, pem),
        "RS256 by name, HMAC by form": signed_by_hmac({"alg": "RS256", "kid": "k1"}, claims, pem),
        "another RSA algorithm": issuer.token(KEY, "RS512"),
        "the algorithm of another key": f"{part({'alg': 'ES256', 'kid': 'k1'})}.{body}.{signature}",
        "key of a stranger": issuer.token(STRANGER),
        "key of a stranger, no kid": issuer.token(STRANGER, header=own),
        "kid that is a number": f"{part({'alg': 'RS256', 'kid': 1})}.{body}.{signature}",
        "kid of a file": f"{part({'alg': 'RS256', 'kid': '../../../dev/null'})}.{body}.{signature}",
        "kid of another key": f"{part({'alg': 'RS256', 'kid': 'e1'})}.{body}.{signature}",
        "brings its key": issuer.token(STRANGER, header={"jwk": STRANGER.as_dict(private=False)}),
        "brings a chain": issuer.token(STRANGER, header={"x5c": ["AAAA"]}),
        "jku": issuer.token(STRANGER, header={"kid": "new", "jku": f"{issuer.url}/evil"}),
        "x5u": issuer.token(STRANGER, header={"kid": "new", "x5u": f"{issuer.url}/evil"}),
        "jku of the issuer itself": issuer.token(KEY, header={"jku": f"{issuer.url}/keys"}),
        "unknown crit": f"{part({'alg': 'RS256', 'kid': 'k1', 'crit': ['exp']})}.{body}.{signature}",
        "crit that is understood": f"{part({'alg': 'RS256', 'kid': 'k1', 'crit': ['b64'], 'b64': False})}.{body}.x",
        "another type": issuer.token(KEY, header={"typ": "logout+jwt"}),
        "no iss": issuer.token(KEY, iss=None),
        "another iss": issuer.token(KEY, iss="https://evil.test"),
        "iss with a slash more": issuer.token(KEY, iss=f"{issuer.url}/"),
        "iss a list": issuer.token(KEY, iss=[issuer.url]),
        "no aud": issuer.token(KEY, aud=None),
        "another aud": issuer.token(KEY, aud="api://billing"),
        "aud that begins alike": issuer.token(KEY, aud=f"{AUDIENCE}/x"),
        "aud a number": issuer.token(KEY, aud=7),
        "no exp": issuer.token(KEY, exp=None),
        "expired": issuer.token(KEY, exp=now - 61),
        "exp a text": issuer.token(KEY, exp=str(now + 600)),
        "exp true": issuer.token(KEY, exp=True),
        "not yet": issuer.token(KEY, nbf=now + 120),
        "issued in the future": issuer.token(KEY, iat=now + 120),
        "no sub": issuer.token(KEY, sub=None),
        "sub of two lines": issuer.token(KEY, sub="ada\nroot"),
        "claims a list": signed_list(),
        "altered": altered(good, sub="eve"),
        "altered role": altered(good, roles=["durably.admin"]),
        "signature of another token": f"{good.rsplit('.', 1)[0]}.{issuer.token(KEY, sub='eve').split('.')[2]}",
        "ECDSA of zeros": f"{part({'alg': 'ES256', 'kid': 'e1'})}.{body}.{part(bytes(64))}",
        "too long": issuer.token(KEY, more="a" * 20_000),
    }


def signed_list() -> str:
    from joserfc import jws

    return jws.serialize_compact({"alg": "RS256", "kid": "k1"}, b"[1]", KEY, algorithms=["RS256"])


def test_forged_tokens_open_nothing(tmp_path: Path) -> None:
    async def test(scene: Scene, issuer: LocalIssuer) -> None:
        assert (await ask(scene, issuer.token(KEY))).status_code == 200
        forged = forgeries(issuer)
        assert len(forged) >= 45
        for what, token in forged.items():
            answer = await ask(scene, token)
            assert answer.status_code == 401, what
            assert answer.json()["ExceptionType"] == "Unauthorized", what
            assert "Bearer" in answer.headers["www-authenticate"], what
        assert (await ask(scene, issuer.token(KEY))).status_code == 200
        assert set(issuer.asked) == {"/.well-known/openid-configuration", "/keys"}

    in_scene(tmp_path, test)


def test_good_tokens_of_each_form(tmp_path: Path) -> None:
    async def test(scene: Scene, issuer: LocalIssuer) -> None:
        now = int(time.time())
        good = (
            issuer.token(KEY),
            issuer.token(KEY, "PS256"),
            issuer.token(EC_KEY),
            issuer.token(EC_KEY, header={"kid": None}),
            issuer.token(KEY, header={"typ": "at+jwt"}),
            issuer.token(KEY, aud=["api://other", AUDIENCE]),
            issuer.token(KEY, exp=now - 30),
            issuer.token(KEY, nbf=now + 30, iat=now + 30),
            issuer.token(KEY, nbf=None, iat=None),
        )
        for token in good:
            assert (await ask(scene, token)).status_code == 200
        bare = await scene.http.get(f"{BASE}/instances", headers={"authorization": f"bEARER  {good[0]}"})
        assert bare.status_code == 200
        twice = httpx.Headers([("authorization", f"Bearer {good[0]}"), ("authorization", "Bearer x")])
        assert (await scene.http.get(f"{BASE}/instances", headers=twice)).status_code == 401
        both = {"authorization": "Bearer x", "x-functions-key": scene.key}
        assert (await scene.http.get(f"{BASE}/instances", headers=both)).status_code == 401
        basic = {"authorization": "Basic eDp4", "x-functions-key": scene.key}
        assert (await scene.http.get(f"{BASE}/instances", headers=basic)).status_code == 200

    in_scene(tmp_path, test)


OPENED: tuple[tuple[dict[str, Any], tuple[int, ...]], ...] = (
    ({"roles": ["durably.viewer"]}, (200, 403, 403, 403)),
    ({"roles": ["durably.operator"]}, (200, 202, 403, 403)),
    ({"roles": ["durably.viewer", "durably.developer"]}, (200, 202, 202, 403)),
    ({"roles": "durably.admin"}, (200, 202, 202, 200)),
    ({"roles": None, "groups": ["7d3c"]}, (200, 202, 403, 403)),
    ({"roles": None, "scp": "openid orders.read"}, (200, 403, 403, 403)),
    ({"roles": None, "scp": "xorders.read"}, (403, 403, 403, 403)),
    ({"roles": ["admin", "Durably.Admin", ["durably.admin"], {"a": 1}]}, (403, 403, 403, 403)),
    ({"roles": {"durably.admin": True}}, (403, 403, 403, 403)),
    ({"roles": None}, (403, 403, 403, 403)),
)


def test_claims_become_roles(tmp_path: Path) -> None:
    async def test(scene: Scene, issuer: LocalIssuer) -> None:
        await scene.start("waits", "i")
        asked = (
            ("GET", "/instances"),
            ("POST", "/instances/i/suspend"),
            ("POST", "/orchestrators/waits"),
            ("POST", "/makeprimary"),
        )
        for claims, statuses in OPENED:
            token = issuer.token(KEY, **claims)
            assert tuple([(await ask(scene, token, *one)).status_code for one in asked]) == statuses, claims

    in_scene(tmp_path, test, roles=f"{DEFAULT_ROLES}, groups:7d3c=operator, scp:orders.read=viewer")


def test_functions_open_to_whoever_may_start(tmp_path: Path) -> None:
    app = flows()

    @app.route("place", methods=["GET"])
    async def place() -> str:
        return "placed"

    @app.route("manage", methods=["GET"], auth_level="admin")
    async def manage() -> str:
        return "managed"

    async def whole() -> None:
        with issuing(KEY) as issuer:
            options = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
            async with serving(app, tmp_path, **options) as scene:
                found: dict[str, tuple[int, int]] = {}
                for role in ("operator", "developer", "admin"):
                    token = issuer.token(KEY, roles=[f"durably.{role}"])
                    headers = {"authorization": f"Bearer {token}"}
                    first = await scene.http.get("/api/place", headers=headers)
                    second = await scene.http.get("/api/manage", headers=headers)
                    found[role] = (first.status_code, second.status_code)
                assert found == {"operator": (401, 401), "developer": (200, 401), "admin": (200, 200)}

    asyncio.run(whole())


# --- the keys of the issuer ------------------------------------------------------------------------------------------


class Elapsed:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def rules(issuer: str, **changes: str) -> TokenRules:
    given = {
        "issuer": issuer,
        "audience": AUDIENCE,
        "algorithms": DEFAULT_ALGORITHMS,
        "roles": DEFAULT_ROLES,
        "jwks_url": "",
        **changes,
    }
    return TokenRules.of(**given)


def fresh(local: LocalIssuer, elapsed: Callable[[], float], **changes: str) -> Issuer:
    return Issuer(rules(local.url, **changes), lambda: time.time_ns() // 1_000, elapsed)


def test_a_new_key_is_found_at_once_and_an_invented_one_asks_only_once() -> None:
    async def whole() -> None:
        elapsed = Elapsed()
        with issuing(KEY) as local:
            issuer = fresh(local, elapsed)
            assert (await issuer.principal(local.token(KEY))).name == "token ada"
            successor = rsa("k2")
            local.keys.append(successor)
            assert (await issuer.principal(local.token(successor))).may("start")
            assert local.asked.count("/keys") == 2
            for number in range(20):
                with pytest.raises(TokenError):
                    await issuer.principal(local.token(STRANGER, header={"kid": f"invented{number}"}))
            assert local.asked.count("/keys") == 2
            elapsed.seconds += PAUSE_S
            invented = [local.token(STRANGER, header={"kid": f"again{number}"}) for number in range(20)]
            found = await asyncio.gather(*map(issuer.principal, invented), return_exceptions=True)
            assert all(isinstance(one, TokenError) for one in found)
            assert local.asked.count("/keys") == 3

    asyncio.run(whole())


def test_many_at_once_ask_the_issuer_once() -> None:
    async def whole() -> None:
        with issuing(KEY) as local:
            issuer = fresh(local, Elapsed())
            await asyncio.gather(*(issuer.principal(local.token(KEY)) for _ in range(20)))
            assert local.asked == ["/.well-known/openid-configuration", "/keys"]

    asyncio.run(whole())


def test_while_the_issuer_is_down_its_last_keys_stay_good(caplog: pytest.LogCaptureFixture) -> None:
    async def whole() -> None:
        elapsed = Elapsed()
        with issuing(KEY) as local:
            issuer = fresh(local, elapsed)
            await issuer.principal(local.token(KEY))
            local.close()
            for _ in range(3):
                elapsed.seconds += STALE_S
                assert (await issuer.principal(local.token(KEY))).may("read")
            with pytest.raises(TokenError):
                await issuer.principal(local.token(STRANGER, header={"kid": "new"}))
            local.keys[:] = [rsa("k2")]
            local.open()
            elapsed.seconds += PAUSE_S
            with pytest.raises(TokenError):  # it was withdrawn meanwhile
                await issuer.principal(local.token(KEY))

    asyncio.run(whole())
    assert "the last ones stay good" in caplog.text


def test_old_keys_are_renewed_while_they_are_used_on() -> None:
    async def whole() -> None:
        elapsed = Elapsed()
        with issuing(KEY) as local:
            issuer = fresh(local, elapsed, jwks_url=f"{local.url}/own")
            await issuer.principal(local.token(KEY))
            elapsed.seconds += FRESH_S
            await issuer.principal(local.token(KEY))

            async def asked() -> list[str]:
                return local.asked

            await until(asked, ["/own", "/own"])

    asyncio.run(whole())


def test_without_any_keys_nothing_is_decided(tmp_path: Path) -> None:
    async def test(scene: Scene, issuer: LocalIssuer) -> None:
        issuer.close()
        answer = await ask(scene, issuer.token(KEY))
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert (await scene.call("GET", "/instances")).status_code == 200

    in_scene(tmp_path, test)


@pytest.mark.parametrize(
    "overrides",
    [
        {
            "/.well-known/openid-configuration": {
                "issuer": "https://evil.test",
                "jwks_uri": "http://127.0.0.1/x",
            }
        },
        {"/.well-known/openid-configuration": {"issuer": "SELF", "jwks_uri": "http://evil.test/keys"}},
        {"/.well-known/openid-configuration": {"issuer": "SELF", "jwks_uri": "file:///etc/passwd"}},
        {"/.well-known/openid-configuration": {"issuer": "SELF"}},
        {"/.well-known/openid-configuration": "/elsewhere"},
        {"/.well-known/openid-configuration": b"<html>"},
        {"/keys": "/elsewhere"},
        {"/keys": [1]},
        {"/keys": {"keys": []}},
        {"/keys": {"keys": [{"kty": "oct", "k": "AAAA", "kid": "k1"}, None, {"kty": "RSA", "kid": "k1"}]}},
        {"/keys": {"keys": [WEAK, {**KEY.as_dict(private=False), "use": "enc"}]}},
        {"/keys": b" " * 600_000},
    ],
)
def test_an_issuer_that_is_not_itself_gives_no_keys(overrides: dict[str, Any]) -> None:
    async def whole() -> None:
        with issuing(KEY) as local:
            for path, document in overrides.items():
                if isinstance(document, dict) and document.get("issuer") == "SELF":
                    document["issuer"] = local.url
                local.overrides[path] = document
            local.overrides["/elsewhere"] = {"keys": [KEY.as_dict(private=False)], "issuer": local.url}
            with pytest.raises(Exception, match="cannot be had"):
                await fresh(local, Elapsed()).principal(local.token(KEY))
            assert "/elsewhere" not in local.asked

    asyncio.run(whole())


def test_of_a_key_set_only_what_checks_signatures_is_used() -> None:
    public = KEY.as_dict(private=False)
    rows = [
        {"kty": "oct", "k": "AAAA", "kid": "k1"},
        {**public, "kid": "enc", "use": "enc"},
        {**public, "kid": "ops", "key_ops": ["encrypt"]},
        {**public, "kid": 7},
        {**public, "kid": "ps", "alg": "PS256"},
        EC_KEY.as_dict(private=True),
        WEAK,
    ]
    keys = read_keys(rows)
    assert [key.kid for key in keys] == ["ps", "e1"]
    assert not keys[1].key.is_private
    local = LocalIssuer()
    only_pss = rules(local.url)
    with pytest.raises(TokenError, match="signature"):
        check_token(local.token(KEY, header={"kid": "ps"}), keys, only_pss, time.time())
    assert check_token(local.token(KEY, "PS256", header={"kid": "ps"}), keys, only_pss, time.time()).name


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"oidc_issuer": "http://login.example.com", "oidc_audience": "a"}, "https"),
        ({"oidc_issuer": "https://ada:x@login.example.com", "oidc_audience": "a"}, "https"),
        ({"oidc_issuer": "login.example.com", "oidc_audience": "a"}, "https"),
        ({"oidc_issuer": "https://login.example.com"}, "oidc_audience"),
        ({"oidc_audience": "a"}, "oidc_issuer is missing"),
        ({"oidc_jwks_url": "https://login.example.com/keys"}, "oidc_issuer is missing"),
        (
            {"oidc_jwks_url": "http://example.com", "oidc_issuer": "https://e.com", "oidc_audience": "a"},
            "jwks",
        ),
        ({"oidc_issuer": "https://e.com", "oidc_audience": "a", "oidc_algorithms": "HS256"}, "HS256"),
        ({"oidc_issuer": "https://e.com", "oidc_audience": "a", "oidc_algorithms": "none"}, "none"),
        ({"oidc_issuer": "https://e.com", "oidc_audience": "a", "oidc_algorithms": ","}, "empty"),
        (
            {"oidc_issuer": "https://e.com", "oidc_audience": "a", "oidc_roles": "roles:x=root"},
            "claim:value=role",
        ),
        (
            {"oidc_issuer": "https://e.com", "oidc_audience": "a", "oidc_roles": "x=viewer"},
            "claim:value=role",
        ),
        ({"oidc_issuer": "https://e.com", "oidc_audience": "a", "insecure": True}, "insecure"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        HttpOptions(**given)


# --- links that were asked for with a token --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "verbs"), [("viewer", "r"), ("reader", "rv"), ("operator", "rvc"), ("developer", "rvcs")]
)
def test_links_for_a_token_allow_no_more_and_end_with_it(tmp_path: Path, role: str, verbs: str) -> None:
    async def test(scene: Scene, issuer: LocalIssuer) -> None:
        await scene.start("waits", "w")
        exp = int(time.time()) + 300
        token = issuer.token(KEY, roles=[f"durably.{role}"], exp=exp + 0.5)
        answers = [await ask(scene, token, path="/instances/w")]
        if role == "developer":
            answers.append(await ask(scene, token, "POST", "/orchestrators/waits/x"))
            answers.append(await ask(scene, token, "POST", "/instances/w/restart"))
        links = [url for answer in answers for url in [answer.headers["location"], *uris(answer)]]
        assert len(links) == (1 if role != "developer" else 1 + 2 * 9)
        for link in links:
            capability = httpx.URL(link).params["sig"]
            _, expiry, letters, _ = capability.split(".")
            assert (int(expiry, 16), letters) == (exp, verbs), link
        link = links[0]
        assert (await scene.http.get(link)).status_code == 202
        shown = (await scene.http.get(link)).json()
        assert (shown["customStatus"] is not None) is ("v" in verbs)
        for verb, letter in (("terminate", "c"), ("restart", "s")):
            if letter not in verbs:
                refused = await scene.http.post(link.replace("/w?", f"/w/{verb}?"))
                assert refused.status_code == 403, verb
        assert (await scene.http.delete(link)).status_code == 403

    in_scene(tmp_path, test)


def uris(answer: httpx.Response) -> list[str]:
    return [url for name, url in answer.json().items() if name.endswith("Uri")]


def test_a_link_is_void_with_the_token_that_it_was_asked_for_with(tmp_path: Path) -> None:
    async def test(scene: Scene, issuer: LocalIssuer) -> None:
        await scene.start("waits", "w")
        late = issuer.token(KEY, exp=int(time.time()) - 1)  # clocks may differ: the token is accepted still
        answer = await ask(scene, late, path="/instances/w")
        assert answer.status_code == 202
        assert (await scene.http.get(answer.headers["location"])).status_code == 403

    in_scene(tmp_path, test)


def test_a_token_that_never_ends_is_none(tmp_path: Path) -> None:
    async def test(scene: Scene, issuer: LocalIssuer) -> None:
        for never in (float("inf"), float("nan")):
            answer = await ask(scene, issuer.token(KEY, exp=never))
            assert answer.status_code == 401, answer.text

    in_scene(tmp_path, test)
