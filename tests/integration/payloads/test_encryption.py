"""Hosts and clients of an encrypted hub: which keys they need, and what becomes of rows that do not open."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from durably import (
    App,
    AppHost,
    Client,
    EncryptionKeyError,
    EncryptionKeys,
    EngineOptions,
    HistoryCorruptError,
    OrchestrationContext,
    ParkedItem,
    RuntimeStatus,
)
from durably.storage.open import examine_hub
from tests.support.waiting import eventually, has_event

ONE, TWO = bytes(range(32)), bytes(range(1, 33))
FIRST = EncryptionKeys({"k1": ONE})
ROTATED = EncryptionKeys({"k2": TWO, "k1": ONE})

app = App()


@app.activity
def double(text: str) -> str:
    return text * 2


@app.orchestrator
async def echo(ctx: OrchestrationContext, text: str) -> str:
    return await ctx.call_activity(double, text)


@app.orchestrator
async def waits(ctx: OrchestrationContext, text: str) -> str:
    ctx.set_custom_status(text)
    return text + await ctx.wait_for_external_event("Go", str)


@pytest.fixture
def hub(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'hub.db'}"


def host(hub: str, keys: EncryptionKeys | None = FIRST) -> AppHost:
    return app.host(hub, options=EngineOptions(encryption_keys=keys))


async def parked_in(served: AppHost) -> list[ParkedItem]:
    return (await served.client.query_parked()).items


def file_of(hub: str) -> str:
    return hub.removeprefix("sqlite:///")


def change(hub: str, statement: str) -> None:
    """What somebody does who can write the file and has no key."""
    with apsw.Connection(file_of(hub)) as connection:
        connection.execute(statement)
        assert connection.changes()
    connection.close()


async def begin(hub: str, keys: EncryptionKeys | None = FIRST) -> None:
    """One finished instance, and two that wait."""
    async with host(hub, keys) as served:
        assert await (await served.client.start(echo, "ab", instance_id="done")).result(timeout=20) == "abab"
        for name in ("one", "two"):
            await served.client.start(waits, name, instance_id=name)
        for name in ("one", "two"):
            await has_event(served, name, "EventAwaited")


async def finish(hub: str, keys: EncryptionKeys | None, name: str) -> None:
    async with host(hub, keys) as served:
        await served.client.raise_event(name, "Go", "!")
        status = await served.client.wait_for_completion(name, timeout=20)
        assert (status.output, status.custom_status, status.input) == (f"{name}!", name, name)


async def test_keys_are_rotated_and_old_rows_are_read_by_their_key(hub: str) -> None:
    await begin(hub)
    await finish(hub, ROTATED, "one")
    with pytest.raises(EncryptionKeyError, match="also encrypted with key 'k2', which was not given"):
        await host(hub).start()
    await finish(hub, ROTATED, "two")
    async with Client(hub, encryption_keys=lambda: ROTATED) as client:
        assert (await client.start(echo, "x", instance_id="done")).instance_id == "done"


async def test_a_missing_key_is_named_by_hosts_and_clients(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await begin(hub)
    monkeypatch.delenv("DURABLY_ENCRYPTION_KEYS", raising=False)
    with pytest.raises(EncryptionKeyError, match="encrypted with key 'k1'"):
        await host(hub, None).start()
    with pytest.raises(EncryptionKeyError, match="encrypted with key 'k1'"):
        await Client(hub).__aenter__()
    with pytest.raises(EncryptionKeyError, match="also encrypted with key 'k1'"):
        await host(hub, EncryptionKeys({"other": ONE})).start()
    await finish(hub, FIRST, "one")


async def test_another_key_under_the_same_id_is_found_out_at_once(hub: str) -> None:
    await begin(hub)
    with pytest.raises(EncryptionKeyError, match="'k1' is not the one that hub"):
        await host(hub, EncryptionKeys({"k1": TWO})).start()
    await finish(hub, FIRST, "one")


async def test_a_hub_in_use_gets_keys_only_when_plain_rows_are_allowed(hub: str) -> None:
    await begin(hub, None)
    with pytest.raises(EncryptionKeyError, match="add the entry 'plain'"):
        await host(hub, FIRST).start()
    await finish(hub, EncryptionKeys({"k1": ONE}, plain=True), "one")
    with pytest.raises(EncryptionKeyError, match="encrypted with key 'k1'"):
        await host(hub, None).start()


async def test_what_a_destroyed_key_encrypted_is_lost_and_nothing_else(hub: str) -> None:
    await begin(hub)
    async with host(hub, ROTATED) as served:
        await (await served.client.start(echo, "c", instance_id="new")).result(timeout=20)
    shredded = EncryptionKeys({"k2": TWO, "k1": None})
    async with host(hub, shredded) as served:
        client = served.client
        listed = {status.instance_id: status for status in (await client.query_instances()).instances}
        assert listed["new"].output == "cc"
        assert listed["done"].output == "(cannot be read: it is encrypted with key 'k1', which was destroyed)"
        with pytest.raises(HistoryCorruptError, match="key 'k1', which was destroyed"):
            await client.result_of("done", str, 20)
        with pytest.raises(HistoryCorruptError, match="key 'k1', which was destroyed"):
            await client.get_history("one")
        with pytest.raises(HistoryCorruptError, match="input of instance 'done'"):
            await client.restart("done", new_instance_id=False)
        await client.raise_event("one", "Go", "!")
        parked = await eventually(lambda: parked_in(served))
        assert "key 'k1', which was destroyed" in parked[0].cause
        assert "key 'k1', which was destroyed" in parked[0].payload
        assert await client.purge("done")
        await client.terminate("one")
        status = await client.wait_for_completion("one", timeout=20)
        assert status.runtime_status == RuntimeStatus.Terminated


_FLIP_LAST = "CAST(substr({0}, 1, length({0}) - 1) || (CASE substr({0}, -1) WHEN x'00' THEN x'01' ELSE x'00' END) AS BLOB)"
_FIRST_OF_TWO = (
    "SELECT data FROM history JOIN instances USING (execution) WHERE instance_id = 'two' AND seq = 0"
)


@pytest.mark.parametrize(
    "tampering",
    [
        # a bit
        f"UPDATE history SET data = {_FLIP_LAST.format('data')}",
        # a row in the place of another one
        f"UPDATE history SET data = ({_FIRST_OF_TWO})",
        # plain bytes in an encrypted hub
        "UPDATE history SET data = x'90'",
        # an older state: the newest rows are gone, but those after them are not
        "UPDATE history SET seq = -seq",
    ],
)
async def test_an_instance_whose_history_was_changed_is_parked_with_the_cause(
    hub: str, tampering: str
) -> None:
    await begin(hub)
    async with host(hub) as served:  # more than one row
        await served.client.suspend("one")
    change(hub, f"{tampering} WHERE execution = (SELECT execution FROM instances WHERE instance_id = 'one')")
    async with host(hub) as served:
        await served.client.raise_event("one", "Go", "!")
        (parked,) = await eventually(lambda: parked_in(served))
        assert parked.id == "one"
        assert "History of instance 'one'" in parked.cause
    await finish(hub, FIRST, "two")


@pytest.mark.parametrize(
    "value",
    [
        _FLIP_LAST.format("input"),
        "(SELECT input FROM instances WHERE instance_id = 'two')",
        "(SELECT custom_status FROM instances WHERE instance_id = 'one')",
        "CAST('\"forged\"' AS BLOB)",
    ],
)
async def test_a_changed_row_of_an_instance_says_so_and_its_history_goes_on(hub: str, value: str) -> None:
    await begin(hub)
    change(hub, f"UPDATE instances SET input = {value}, custom_status = {value} WHERE instance_id = 'one'")
    async with host(hub) as served:
        before = await served.client.get_status("one")
        assert before is not None
        assert before.input.startswith("(cannot be read: it ")
        await served.client.raise_event("one", "Go", "!")
        status = await served.client.wait_for_completion("one", timeout=20)
        assert (status.output, status.custom_status) == ("one!", "one"), "the history is the truth"


async def test_an_execution_under_the_id_of_another_instance_is_found_out(hub: str) -> None:
    """Everything of `two` is put under the id `one`: each row alone is sound."""
    await begin(hub)
    change(
        hub,
        "UPDATE instances SET execution = -execution, custom_status = NULL, input = NULL WHERE instance_id = 'two'",
    )
    change(
        hub,
        "UPDATE instances SET (execution, execution_id, input, custom_status) = (SELECT -execution, execution_id, NULL, NULL"
        " FROM instances WHERE instance_id = 'two') WHERE instance_id = 'one'",
    )
    async with host(hub) as served:
        with pytest.raises(HistoryCorruptError, match="is that of 'two'"):
            await served.client.get_history("one")
        await served.client.raise_event("one", "Go", "!")
        (parked,) = await eventually(lambda: parked_in(served))
        assert "is that of 'two'" in parked.cause


async def test_a_message_that_was_changed_is_set_aside(hub: str) -> None:
    await begin(hub)
    async with Client(hub, encryption_keys=FIRST) as client:
        await client.raise_event("one", "Go", "!")
    change(hub, f"UPDATE inbox SET body = {_FLIP_LAST.format('body')}")
    async with host(hub) as served:
        (parked,) = await eventually(lambda: parked_in(served))
        assert parked.kind == "message"
        assert "does not decrypt with key 'k1'" in parked.cause
    await finish(hub, FIRST, "one")


async def test_doctor_tells_what_each_key_has_encrypted(hub: str) -> None:
    await begin(hub, None)
    assert keys_found(hub) == ("OK", "payloads are not encrypted")
    await finish(hub, EncryptionKeys({"k1": ONE}, plain=True), "one")
    assert keys_found(hub) == ("OK", "payloads are encrypted: 'k1'")
    await finish(hub, EncryptionKeys({"k2": TWO, "k1": ONE}, plain=True), "two")
    level, text = keys_found(hub, deep=True)
    assert (level, text.endswith(" not encrypted")) == ("WARN", True)
    async with host(hub, EncryptionKeys({"k2": TWO, "k1": ONE}, plain=True)) as served:
        for name in ("one", "done"):
            await served.client.purge(name)
    level, text = keys_found(hub, deep=True)
    assert (level, "'k1' 0, 'k2' " in text) == ("WARN", True), "nothing is left that the old key encrypted"
    async with host(hub, EncryptionKeys({"k2": TWO, "k1": None}, plain=True)) as served:
        await served.client.purge("two")
        await (await served.client.start(echo, "x", instance_id="new")).result(timeout=20)
    level, text = keys_found(hub, deep=True)
    assert (level, text.startswith("values encrypted: 'k1' 0, 'k2' ")) == ("OK", True)


def keys_found(hub: str, *, deep: bool = False) -> tuple[str, str]:
    (found,) = [one for one in examine_hub(hub, 0, deep=deep) if one.subject == "keys"]
    return found.level, found.text
