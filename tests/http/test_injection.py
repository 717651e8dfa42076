"""What users write stays what it is: in ids, tags, names, filters and searches, in SQL, in logs and in the audit log."""

import asyncio
import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.cli.logs import one_record
from durably.errors import InvalidScheduleError
from durably.http_api.links import BASE
from durably.http_api.v1.operation import V1
from durably.schedules.cron import parse_cron
from durably.security.audit_chain import lines_of, verify
from tests.http.scene import Scene, flows, serving

CORPUS = [
    "' OR '1'='1",
    "' OR 1=1 --",
    "'; DROP TABLE instances; --",
    "'); DELETE FROM history; --",
    "x' UNION SELECT key_id FROM encryption_keys --",
    "x' AND 1=randomblob(1000000000) --",
    "' || (SELECT sql FROM sqlite_master) || '",
    '"; ATTACH DATABASE "evil.db" AS evil; --',
    "`id`",
    "%",
    "_",
    "%27",
    "a%",
    "a_b",
    "*",
    "[a-z]*",
    "?1",
    ":name",
    "@p",
    "$1",
    "{0}",
    "{instanceId}",
    "$.a",
    '"]',
    "a.b",
    "a[0]",
    "a=b",
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "..",
    "%2e%2e",
    "%2F",
    "a b",
    "a&b=c",
    "a;b",
    "a,b",
    "<script>alert(1)</script>",
    "\u202egnp.exe",
    "İstanbul",
    "é",
    "e\u0301",
    "😀",
    "\ufeff",
    "\uffff",
    "a\u2028b",
    "null",
    "true",
    "0x10",
    "1e999",
]

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@contextmanager
def statements() -> Generator[set[str]]:
    """The texts of all statements that connections execute which are opened meanwhile. A text is one statement."""
    seen: set[str] = set()

    def trace(_: Any, text: str, __: Any) -> bool:
        seen.add(text.strip())
        return True

    def hook(connection: apsw.Connection) -> None:
        connection.exec_trace = trace

    apsw.connection_hooks.append(hook)
    try:
        yield seen
    finally:
        apsw.connection_hooks.remove(hook)


def segment(text: str) -> str:
    return quote(text, safe="").replace(".", "%2E")


async def round_trip(scene: Scene, text: str, ids: list[str]) -> None:
    """Everything that a text can be, written and read through both APIs."""
    key = {"x-functions-key": scene.key}
    http = scene.http
    body = {"name": "waits", "instanceId": text, "input": {text: [text]}, "tags": {text: text}}
    started = await http.post(f"{V1}/instances", json=body, headers=key)
    assert started.status_code in {201, 400, 409}, started.text
    if started.status_code == 201:
        ids.append(text)
        one = (await http.get(f"{V1}/instances/{segment(text)}", headers=key)).json()
        assert (one["instanceId"], one["input"], one["tags"]) == (text, {text: [text]}, {text: text})
        other = (await http.get(f"{BASE}/instances/{segment(text)}", headers=key)).json()
        assert (other["instanceId"], other["input"]) == (text, {text: [text]})
        assert started.headers["location"] == f"{V1}/instances/{quote(text, safe='')}"
        wanted = f"input[{json.dumps(text)}][0]={json.dumps(text)}"
        if len(wanted) <= 500:
            assert await found(scene, where=wanted) == [text]
        if "=" not in text:
            assert await found(scene, tag=f"{text}={text}") == [text]
    beginning = sorted(one for one in ids if one.startswith(text))
    assert sorted(await found(scene, idPrefix=text)) == beginning, text
    old = await http.get(f"{BASE}/instances", params={"instanceIdPrefix": text}, headers=key)
    assert sorted(one["instanceId"] for one in old.json()) == beginning
    assert await found(scene, name=text) == []
    assert await found(scene, parent=text) == []
    for path, params in (
        ("instances", {"cursor": text}),
        ("instances", {"where": text}),
        ("instances", {"where": f"input.{text}={text}"}),
        ("instances", {"where": f"input={text}"}),
        ("instances", {"status": text}),
        ("instances", {"createdFrom": text}),
        ("instances", {"tag": text}),
        ("instances", {"orderBy": text}),
        ("entities", {"name": text, "keyPrefix": text}),
        ("entities", {"cursor": text}),
        ("schedules", {"prefix": text}),
        ("parked", {"idPrefix": text}),
        ("counts", {"name": text}),
    ):
        answer = await http.get(f"{V1}/{path}", params=params, headers=key)
        assert answer.status_code in {200, 400}, (path, params, answer.text)
    for path in (
        f"entities/note/{segment(text)}",
        f"schedules/{segment(text)}",
        f"instances/x{segment(text)}/history",
    ):
        answer = await http.get(f"{V1}/{path}", headers=key)
        assert answer.status_code in {200, 400, 404}, (path, answer.text)
    called = await http.post(
        f"{V1}/entities/note/{segment(text)}/call", json={"operation": "keep", "input": text}, headers=key
    )
    assert called.status_code in {200, 400}, called.text
    if called.status_code == 200:
        state = await http.get(f"{BASE}/entities/note/{segment(text if text != '$' else '$$')}", headers=key)
        assert called.json()["result"] == text
        assert state.status_code == 200 or text == "$"


async def found(scene: Scene, **params: str) -> list[str]:
    """Ids of all instances that match."""
    answer = await scene.http.get(
        f"{V1}/instances", params={"limit": "1000"} | params, headers={"x-functions-key": scene.key}
    )
    assert answer.status_code in {200, 400}, answer.text
    return [one["instanceId"] for one in answer.json().get("instances", [])]


def all_round(folder: Path, texts: list[str]) -> None:
    async def whole() -> None:
        with statements() as seen:
            async with serving(flows(), folder) as scene:
                ids: list[str] = []
                for number in range(12):  # more than a page
                    await round_trip(scene, f"harmless-{number}", ids)
                await found(scene, name="waits", status="Running")
                await found(scene, limit="3")
                known = set(seen)
                for text in texts:
                    if text not in ids:
                        await round_trip(scene, text, ids)
                new = seen - known
                assert not [text for text in new if any(len(one) > 3 and one in text for one in texts)]
                assert not new, new
                assert await scene.host.client.count_instances() == len(ids)
                assert await scene.host.client.get_status("harmless-0") is not None

    asyncio.run(whole())


@pytest.mark.slow_once
def test_a_corpus_of_injections_stays_text(tmp_path: Path) -> None:
    all_round(tmp_path, CORPUS)


@pytest.mark.slow_once
def test_any_text_is_itself_in_every_field_and_changes_no_statement(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    @settings(max_examples=2)
    @given(st.lists(WORDS, min_size=5, max_size=8, unique=True))
    def check(texts: list[str]) -> None:
        all_round(tmp_path_factory.mktemp("any"), texts)

    check()


# --- logs ------------------------------------------------------------------------------------------------------------

FORGED = "x\r\n2026-01-01 00:00:00,000 INFO     durably: all is well\u2028\x1b[2J"


def test_no_text_makes_a_line_of_its_own_in_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def whole() -> None:
        async with serving(flows(), tmp_path) as scene:
            key = {"x-functions-key": scene.key}
            bad = segment(FORGED)
            for method, path, body in (
                ("POST", f"{BASE}/orchestrators/{bad}", 1),
                ("POST", f"{BASE}/orchestrators/complains/c", FORGED),
                ("POST", f"{BASE}/instances/{bad}/terminate?reason={bad}", None),
                ("POST", f"{BASE}/instances/c/raiseEvent/{bad}", 1),
                ("POST", f"{V1}/entities/note/k/signal", {"operation": FORGED}),
                ("POST", f"{V1}/entities/note/k/call", {"operation": FORGED}),
                ("POST", f"{V1}/instances", {"name": FORGED, "version": FORGED, "tags": {FORGED: FORGED}}),
                ("DELETE", f"{V1}/instances/{bad}", None),
                ("POST", f"{V1}/bulk/terminate", {"filter": {"name": FORGED}, "reason": FORGED}),
            ):
                more = {} if body is None else {"json": body}
                answer = await scene.http.request(method, path, headers=key, **more)
                assert answer.status_code < 500, (path, answer.text)
            await scene.http.post(
                f"{BASE}/orchestrators/waits", headers=[(b"x-functions-key", b"\xe4\x85 forged")]
            )
            await scene.host.client.wait_for_completion("c", 30)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(whole())
    log = tmp_path / "orders.db.audit"
    assert verify(log).problem is None
    lines = log.read_bytes().split(b"\n")
    assert len(lines) - 1 == len(list(lines_of(log))) == 10
    assert all(json.loads(line)["n"] == n for n, line in enumerate(lines[:-1], 1))
    said = [logging.Formatter("%(asctime)s %(message)s").format(one) for one in caplog.records]
    assert any("all is well" in one for one in said)  # else nothing is tried here
    for text in map(one_record, said):
        first, *rest = text.split("\n")
        assert all(line.startswith("  ") for line in rest)
        assert not [letter for letter in text if letter not in "\n\t" and not letter.isprintable()]
        assert "all is well" not in first or "\\r" in first or first.startswith("20")


def test_a_record_on_the_terminal_is_one() -> None:
    assert one_record("a\nb") == "a\n  b"
    assert one_record("a\x1b[2J\r\u2028\x9bä\t") == "a\\x1b[2J\\r\\u2028\\x9bä\t"


# --- schedules -------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(
    st.one_of(
        st.text(max_size=200),
        st.lists(st.text("0123456789*/-,?LW# MONJAN", max_size=40), min_size=4, max_size=8).map(" ".join),
    )
)
def test_garbage_is_no_schedule_or_one_in_bounded_time(text: str) -> None:
    said = refusal_of_schedule(text)
    assert said is None or len(said) < 2_000


@pytest.mark.parametrize(
    "text",
    [
        "*" * 1_000_000,
        "0 0 0 * * " + "," * 1_000_000,
        " " * 1_000_000,
        "0 0 0 1-" + "9" * 100_000 + " * *",
        "0 0 0 */" + "9" * 5_000 + " * *",
        ",".join(["1-59/1"] * 50_000) + " * * * * *",
        "0 0 0 31 2 *",
        "0 0 0 30 FEB MON",
    ],
)
def test_a_schedule_that_is_long_or_never_comes_takes_no_time(text: str) -> None:
    said = refusal_of_schedule(text)
    assert said is None or len(said) < 2_000


def refusal_of_schedule(text: str) -> str | None:
    """Why a schedule is none; None for one, which was asked when it comes due."""
    try:
        parse_cron(text).first_from(datetime(2026, 1, 1))  # noqa: DTZ001 - a clock on a wall
    except InvalidScheduleError as error:
        return str(error)
    return None
