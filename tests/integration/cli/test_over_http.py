"""Every command, asked of the hub file and of a host of it over HTTP: the same output, errors and exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

from durably.cli.main import call, commands
from durably.client import Client
from durably.errors import InstanceNotFoundError
from tests.http.scene import until
from tests.integration.cli.programs import Done, Folder
from tests.integration.cli.test_parked import spoil
from tests.integration.cli.test_run_http import announced, url_of

APP = """
from pathlib import Path
from durably import App, OrchestrationContext

app = App()

@app.activity
def read() -> str:
    return Path("later.txt").read_text()

@app.orchestrator
async def fragile(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(read)

@app.orchestrator
async def wait(ctx: OrchestrationContext, word: str = "") -> str:
    ctx.set_custom_status({"word": word})
    return word + await ctx.wait_for_external_event("Go", str)

@app.orchestrator
async def parent(ctx: OrchestrationContext, child: str) -> str:
    return await ctx.call_sub_orchestrator(wait, "of ", instance_id=child)

@app.entity
class Account:
    euros: int = 0

    def deposit(self, euros: int) -> int:
        self.euros += euros
        return self.euros

    def withdraw(self, euros: int) -> int:
        if euros > self.euros:
            raise ValueError(f"{self.euros} are not enough")
        self.euros -= euros
        return self.euros
"""

LOCAL = (
    ("exec", "wait"),
    ("run", "app.py"),
    ("keys", "create", "ann", "--role", "viewer"),
    ("keys", "list"),
    ("keys", "renew", "system"),
    ("keys", "delete", "system"),
    ("keys", "renew-links"),
    ("audit", "list"),
    ("audit", "verify"),
    ("doctor",),
    ("config", "show"),
    ("hub", "status"),
    ("scaler",),
    ("hub", "migrate"),
)
"""What works in this process, on the hub itself."""

NO_HUB = {("new",), ("version",), ("completion",), ("invoke",), ("config", "validate")}
NO_HUB |= {("hub", "export"), ("hub", "import"), ("hub", "copy")}
"""What has no hub, or is HTTP anyhow, or names hubs in its arguments."""


class Case(NamedTuple):
    """A command; ``{x}`` is another word over HTTP than on the file, so that each has instances of its own."""

    words: str
    code: int = 0
    says: str = ""
    more: tuple[str, ...] = ()
    waits: str = ""
    """An instance that is to wait for its event before the next command."""


CASES = [
    # start, look, wait
    Case('instances start wait --id {x}-1 --input "a" --tag kind={x} --tag "é=ü =" --version 2 -o json', waits="{x}-1"),
    Case("instances start wait --id {x}-1 --on-existing fail", 5, "already exists"),
    Case("instances start wait --id {x}-1 --on-existing attach -o json"),
    Case("instances start wait --id {x}-later --at 2h"),
    Case("instances start wait --id @x", 2, "@x"),
    Case("instances show {x}-later -o json", says="Pending"),
    Case("instances result {x}-1 --timeout 0.2", 6, "it goes on"),
    Case("instances show {x}-1 -o json", says='"word": "a"'),
    Case("instances show {x}-1 {x}-none -o jsonl", 4, "{x}-none"),
    Case("instances why {x}-1", says="Go"),
    Case("instances why {x}-none", 4),
    Case("instances history {x}-1 -o jsonl --payloads", says="ExecutionStarted"),
    Case("instances history {x}-none", 4),
    Case("instances list --tag kind={x} -o json", says="{x}-1"),
    Case('instances list --tag "é=ü =" --prefix {x} -o ids', says="{x}-1"),
    Case("instances list --prefix {x}- --status Pending,Running --name wait -o csv", says="{x}-later"),
    Case("instances list --prefix {x}- --updated-from 1h --updated-to 0s --created-from 1h -o ids", says="{x}-1"),
    Case("instances list --prefix {x}- --updated-from 2000-01-01 --updated-to 2001-01-01 -o ids"),
    Case("instances list --prefix {x}- --limit 1 -o ids", says="{x}-"),
    Case("instances list --stuck --prefix {x} -o ids"),
    Case("instances count --prefix {x}- -o json", says="wait"),
    # orders
    Case("instances suspend {x}-1 --reason audit"),
    Case("instances show {x}-1 -o json", says="Suspended"),
    Case("instances resume {x}-1 -o jsonl", says='"ok": true'),
    Case('instances raise {x}-1 Go --data "b" -o json'),
    Case("instances result {x}-1 -o json", says='"ab"'),
    Case("instances watch {x}-1", says="{x}-1"),
    Case("instances raise {x}-1 Go", 5),
    Case("instances raise {x}-none Go", 4),
    Case("instances rewind {x}-1", 5, "Failed"),
    Case("instances terminate {x}-1 {x}-none", 1),
    Case("instances restart {x}-1 --new-id -o json --reason again", says="new_instance_id"),
    Case("instances restart {x}-1 --reason again", waits="{x}-1"),
    Case("instances cancel {x}-1 --reason enough"),
    Case("instances result {x}-1 -o json", 7, "Canceled"),
    Case("instances start fragile --id {x}-f --wait", 7, "FileNotFoundError"),
    Case("instances show {x}-f -o json", says="later.txt"),
    Case("instances watch {x}-f", 7, "{x}-f"),
    Case("instances rewind {x}-f --reason mended"),
    Case("instances result {x}-f", 7),
    Case("instances start parent --id {x}-p", more=("--input", '"{x}-c"'), waits="{x}-c"),
    Case("instances watch {x}-p --timeout 0.3", 6, "it goes on"),
    Case("instances list --parent {x}-p -o ids", says="{x}-c"),
    Case("instances terminate {x}-p --recursive --reason twice"),
    Case("instances result {x}-c -o json", 7, "twice"),
    Case("instances purge {x}-p --recursive"),
    Case("instances show {x}-c", 4),
    Case("instances terminate {x}-later --no-compensate"),
    Case("instances purge {x}-none", 4),
    Case("instances cancel --tag kind={x} --dry-run -o ids"),
    Case("instances terminate --prefix {x}- --yes"),
    Case("instances purge --prefix {x}- --name fragile --yes", says="1 instance purged"),
    Case("instances purge --all", 2, "Nobody can be asked"),
    # entities
    Case("entities call @account@{x} deposit --input 5", says="5"),
    Case("entities call @account@{x} withdraw --input 7 -o json", 7, "5 are not enough"),
    Case("entities call @account@{x} withdraw --input 7", 7, "5 are not enough"),
    Case("entities call @account@{x} rob", 7, "rob"),
    Case("entities call account deposit", 2),
    Case("entities signal @account@{x} deposit --input 1 --at 2h"),
    Case("entities call @account@{x} deposit --input 2 -o json", says="7"),
    Case("entities show @account@{x} -o json", says="euros"),
    Case("entities show @account@{x}-none", 4),
    Case("entities list --name account --key-prefix {x} -o json", says="@account@{x}"),
    Case("entities list --name account --key-prefix {x} --locked -o ids"),
    Case("entities clean -o json", says='"released": 0'),
    # parked
    Case("parked list --prefix order-{x} --kind message -o json", says="cannot be read"),
    Case("parked list --prefix order-{x} -o ids", says="{x}one"),
    Case("parked discard {x}one {x}none -o jsonl", 4, "{x}none"),
    Case("parked discard --prefix order-{x} --dry-run -o ids", says="{x}two"),
    Case("parked redrive {x}none", 4),
    Case("parked discard --prefix order-{x} --yes", says="1 done, 0 failed"),
    # schedules
    Case(
        "schedules create {x}-s wait",
        more=("--cron", "0 30 2 * * *", "--time-zone", "Europe/Berlin", "--input", '{"a": [1.5, "é"]}', "--jitter", "30s",
              "--tag", "a=b", "--version", "2", "--overlap", "buffer_one", "--catch-up", "all", "--catch-up-window", "1d",
              "--start", "2020-01-01", "--end", "2099-01-01", "--note", "for tests"),
    ),
    Case("schedules create {x}-s wait --every 1h", 5, "{x}-s"),
    Case("schedules create {x}-t wait --every 1h --cron soon", 2),
    Case("schedules create {x}-t wait", more=("--cron", "soon"), code=2, says="soon"),
    Case("schedules create {x}-e --entity @account@{x} --operation deposit --input 3 --every 12h --paused"),
    Case("schedules describe {x}-s {x}-e {x}-none -o jsonl", 4, "Europe/Berlin"),
    Case("schedules list --prefix {x}- -o json", says="@account@{x}"),
    Case("schedules update {x}-s --every 2h --overlap skip --input 7"),
    Case("schedules update {x}-e parent --input 8 --tag c=d"),
    Case("schedules update {x}-s --jitter 0s --end 2098-01-01"),
    Case("schedules update {x}-none --every 2h", 4),
    Case("schedules update {x}-s", 2),
    Case("schedules describe {x}-s {x}-e -o json", says="7200"),
    Case("schedules pause {x}-s --note feast"),
    Case("schedules resume {x}-s {x}-none -o jsonl", 4),
    Case("schedules list --prefix {x}- -o csv"),
    Case("schedules trigger {x}-s --overlap allow -o jsonl", says="{x}-s@"),
    Case("schedules backfill {x}-e --from 1d --to 2d", 2),
    Case("schedules backfill {x}-s --from 5h --to 5h"),
    Case("schedules delete {x}-s {x}-e {x}-none", 4),
    Case("schedules describe {x}-s", 4),
    # the verbs of func
    Case('func-durable start-new --function-name wait --id {x}-g --input "z"'),
    Case("func-durable raise-event --id {x}-g --event-name Go --event-data y"),
    Case("instances result {x}-g", says='"zy"'),
    Case("func-durable get-runtime-status --id {x}-g", says="Completed"),
    Case("func-durable get-history --id {x}-g", says="EventRaised"),
    Case("func-durable terminate --id {x}-g", 5),
    Case("func-durable rewind --id {x}-g", 5),
    Case("func-durable get-instances --runtime-status Suspended --top 1000"),
    Case("func-durable purge-history --created-before 2000-01-01"),
    # hosts
    Case("hosts list -o csv", says="partitions"),
    Case("hub load", says="recommended"),
    Case("hosts drain nobody-{x}", 2, "nobody-{x}"),
]  # fmt: skip

VOLATILE = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?"), "<time>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<id>"),
    (re.compile(r"\b\d+(\.\d+)? ?(ms|s|min|h)\b"), "<span>"),
    (re.compile(r"line \d+"), "<line>"),
    (re.compile(r'("duration_s": |@<time>-)[0-9a-f.]+'), "<drawn>"),
    (re.compile(r"[0-9:.]{8,}(?= )"), "<clock>"),
    (
        re.compile(r'"\[""(activity|orchestrator).*\]"'),
        "[]",
    ),  # beside the file nobody knows what its host has
    (re.compile(r" of [0-9,]+ places"), ""),
)


class Sides(NamedTuple):
    """The program on the hub file, and over HTTP."""

    hub: str
    url: str
    key: str

    def ask(self, case: Case, side: str) -> Done:
        words = [
            word.strip('"') for word in re.findall(r'(?:[^\s"]|"[^"]*")+', case.words.replace("{x}", side))
        ]
        words = [*words, *(word.replace("{x}", side) for word in case.more)]
        words = [f'"{word}"' if before in {"--input", "--data"} and word.isalpha() else word
                 for before, word in zip(["", *words], words, strict=False)]  # fmt: skip
        where = ["--hub", self.hub] if side == "near" else ["--hub", self.url, "--key", self.key]
        done = said(*words, *where)
        if case.waits:
            asyncio.run(until_waits(self.hub, case.waits.replace("{x}", side)))
        return done


async def until_waits(hub: str, instance_id: str) -> None:
    """Return once it waits for its event."""

    async def is_waiting() -> bool:
        with contextlib.suppress(InstanceNotFoundError):
            return any(one.event_type == "EventAwaited" for one in await client.get_history(instance_id))
        return False

    async with Client(hub) as client:
        await until(is_waiting, True)


def said(*words: str) -> Done:
    """What the program says; it runs in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = call(words)
    return Done(code, out.getvalue(), err.getvalue())


def steady(done: Done, side: str) -> Any:
    """Without what differs from run to run."""
    text = f"{done.out}\0{done.err}"
    for pattern, instead in VOLATILE:
        text = pattern.sub(instead, text)
    # what is done at once ends in any order
    return done.code, *("\n".join(sorted(part.split("\n"))) for part in text.replace(side, "{x}").split("\0"))


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    folder = Folder(tmp_path_factory.mktemp("parity"))
    folder.write("app.py", APP)
    before = Path.cwd()
    os.chdir(folder.path)
    try:
        spoil(*(f"{side}{number}" for side in ("near", "away") for number in ("one", "two")))
        key = said("keys", "renew", "system").out.strip()
        with folder.started("run", "app.py", DURABLY_HTTP="on", DURABLY_HTTP_PORT="0") as process:
            yield Sides("sqlite:///durably.db", url_of(announced(process)), key)
    finally:
        os.chdir(before)


@pytest.mark.slow_once
def test_every_command_says_the_same_over_http(sides: Sides) -> None:
    differ: list[str] = []
    for case in CASES:
        on_file, over_http = sides.ask(case, "near"), sides.ask(case, "away")
        text = on_file.out + on_file.err
        if on_file.code != case.code or case.says.replace("{x}", "near") not in text:
            differ.append(f"{case}: {on_file}")
        if "--timeout 0.3" in case.words:  # how much of it is seen until then is a matter of luck
            on_file, over_http = (done._replace(err="") for done in (on_file, over_http))
        if steady(on_file, "near") != steady(over_http, "away"):
            differ.append(
                f"{case.words}\n  file {steady(on_file, 'file')}\n  http {steady(over_http, 'http')}"
            )
    assert not differ, "\n".join(differ)


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path


def test_every_command_is_in_the_table() -> None:
    told = {tuple(case.words.split()[:2]) for case in CASES} | {one[:2] for one in LOCAL} | NO_HUB
    local = {one[:1] for one in LOCAL}
    known = set(leaves(commands)) - {("func-durable", "delete-task-hub")}
    assert {one for one in known if one not in told and one not in local} == set()


@pytest.mark.parametrize("words", [*LOCAL, ("func-durable", "delete-task-hub")])
def test_what_is_local_says_so(words: tuple[str, ...]) -> None:
    done = said(*words, "--hub", "http://127.0.0.1:1")
    assert done.code == 2
    assert "over HTTP" in done.err
    assert "hub itself" in done.err
