"""How many processes, what they print, and what goes wrong around them."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import msgspec
import pytest

from durably.cli.processes import printer, run, team, voice
from durably.cli.processes.child import Child, Lifeline, Plan
from durably.cli.processes.count import Count, CountType, cpus
from durably.cli.processes.lines import Lines, marked
from durably.cli.processes.post import Ready
from durably.cli.processes.printer import Printer, printers
from durably.cli.processes.scaling import Scaling, scale_down_s
from durably.cli.processes.team import Team
from durably.errors import UsageError
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", Count(4, 4)),
        ("auto", Count(cpus(), cpus())),
        ("0:1", Count(0, 1)),
        ("2:16", Count(2, 16)),
        ("1:auto", Count(1, cpus())),
    ],
)
def test_how_many(text: str, expected: Count) -> None:
    assert CountType().convert(text, None, None) == expected


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 999),
        ({"cpu.max": "rubbish\n"}, 999),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 999),
        ({}, 999),
    ],
)
def test_a_container_may_have_less_time_than_its_machine(
    files: dict[str, str], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(999)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpus(tmp_path) == most


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "x", "3:2", "0:0", ":4", "4:", "1:2:3", "1.5", "257", "9" * 5_000, "٣"]
)
def test_what_is_no_number_of_processes_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        CountType().convert(text, None, None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"hello", b"[7] hello"),
        (b"", b"[7] "),
        (b"{not json}", b"[7] {not json}"),
        (b"{}", b"[7] {}"),
        (b'{"a": 1} {"b": 2}', b'[7] {"a": 1} {"b": 2}'),
    ],
)
def test_text_gets_the_number_of_its_process(line: bytes, expected: bytes) -> None:
    assert marked(line, 7) == expected


def test_json_gets_one_field_more() -> None:
    assert json.loads(marked(b'{"level": "info", "text": "a } b"}', 7)) == {
        "process": 7,
        "level": "info",
        "text": "a } b",
    }


# --- who reads what is printed stands still --------------------------------------------------------------------------

PIECE = 10_000
BOUND = 20 * PIECE  # twice that has room for what a pipe holds


class Outlet:
    """A pipe that is printed to, and read when a test wants it."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe()
        self.printer = Printer(self.writes, BOUND)
        self.read = bytearray()

    def look(self) -> bytes:
        """All that is there by now."""
        os.set_blocking(self.reads, False)
        with suppress(BlockingIOError):
            while data := os.read(self.reads, 1_000_000):
                self.read += data
        return bytes(self.read)

    def fill(self) -> int:
        """Until it is full; says how many pieces that took, each with its number."""
        for number in range(1_000):
            # What the pipe itself takes is no longer waiting, sooner or later.
            if self.printer.is_full and not room_comes(self.printer):
                return number
            self.printer.put(piece(number))
        raise AssertionError("it is never full")


def piece(number: int) -> bytes:
    return b"%d" % number + b"." * (PIECE - 1 - len(str(number))) + b"\n"


def room_comes(one: Printer) -> bool:
    """Whether a printer that is full does not stay so."""
    ends = time.monotonic() + 0.1
    while one.is_full and time.monotonic() < ends:
        time.sleep(0.001)
    return not one.is_full


@pytest.fixture
def outlet() -> Iterator[Outlet]:
    outlet = Outlet()
    yield outlet
    os.close(outlet.reads)
    asyncio.run(outlet.printer.close())
    ended(outlet.printer)
    os.close(outlet.writes)


def ended(one: Printer) -> None:
    """Nothing is written any more: the number of the file may soon be that of another one."""
    if one._thread is not None:  # pyright: ignore[reportPrivateUsage]
        one._thread.join(30)  # pyright: ignore[reportPrivateUsage]
        assert not one._thread.is_alive()  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printer, "_PATIENCE_S", 0.05)


async def test_what_waits_has_a_bound_and_is_printed_in_order_when_somebody_reads(outlet: Outlet) -> None:
    number = outlet.fill()
    told = asyncio.Event()
    outlet.printer.when_room(told.set)
    await asyncio.sleep(0.05)
    assert not told.is_set()
    expected = b"".join(map(piece, range(number)))
    await eventually(lambda: outlet.look() == expected)
    await asyncio.wait_for(told.wait(), 30)
    assert not outlet.printer.is_full


async def test_who_waits_for_room_that_is_there_is_told(outlet: Outlet) -> None:
    told = asyncio.Event()
    outlet.printer.when_room(told.set)
    await asyncio.wait_for(told.wait(), 30)


async def test_what_is_far_too_much_is_dropped_and_that_is_said(outlet: Outlet) -> None:
    number = outlet.fill()
    for _ in range(50):
        outlet.printer.put(piece(999))
    await eventually(lambda: bool(outlet.look()) and not outlet.printer.is_full)
    outlet.printer.put(b"again\n")
    await eventually(lambda: outlet.look().endswith(b"again\n"))
    lines = outlet.look().splitlines(keepends=True)
    kept = lines.count(piece(999))
    assert BOUND < (kept + 1) * PIECE <= 2 * BOUND
    missing = b"Warning: nobody was reading: %d bytes are missing here\n" % ((50 - kept) * PIECE)
    assert lines == [*map(piece, range(number)), *[piece(999)] * kept, missing, b"again\n"]


@pytest.mark.usefixtures("impatient")
async def test_at_the_end_nobody_waits_for_who_does_not_read(outlet: Outlet) -> None:
    outlet.fill()
    await asyncio.wait_for(outlet.printer.close(), 5)


async def test_at_the_end_all_is_printed_when_somebody_reads_slowly(
    outlet: Outlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printer, "_PATIENCE_S", 0.5)
    number = outlet.fill()

    def read() -> None:
        while len(outlet.read) < number * PIECE:
            outlet.read += os.read(outlet.reads, 24_000)
            time.sleep(0.08)

    reader = threading.Thread(target=read)
    began = time.monotonic()
    reader.start()
    await outlet.printer.close()
    assert time.monotonic() - began > 0.5, "it does not end the wait"
    await asyncio.to_thread(reader.join)
    assert bytes(outlet.read) == b"".join(map(piece, range(number)))


async def test_a_reader_that_is_gone_harms_nobody() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    gone = Printer(writes, BOUND)
    for _ in range(100):
        gone.put(piece(0))
        await asyncio.sleep(0)
    await eventually(lambda: not gone.is_full)
    await asyncio.wait_for(gone.close(), 30)
    ended(gone)
    os.close(writes)


async def test_a_file_that_does_not_block_loses_nothing(outlet: Outlet) -> None:
    os.set_blocking(outlet.writes, False)
    number = outlet.fill()
    await eventually(lambda: outlet.look() == b"".join(map(piece, range(number))))


def test_stdout_and_stderr_that_are_the_same_have_one_printer(tmp_path: Path) -> None:
    program = "from durably.cli.processes.printer import printers; out, err = printers(); print(out is err)"
    for err, same in ((subprocess.STDOUT, b"True\n"), (subprocess.DEVNULL, b"False\n")):
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=err, timeout=60, check=True
        )
        assert done.stdout == same


class Talker:
    """A worker, as far as it prints numbered lines."""

    def __init__(self, number: int, outlet: Outlet) -> None:
        self.number = number
        reads, self.writes = os.pipe()
        os.set_blocking(self.writes, False)
        self.lines = Lines(reads, outlet.printer, number)
        self.said = 0

    def talk(self) -> bool:
        """Print one line more; False: the pipe is full."""
        try:
            os.write(self.writes, self.line(self.said) + b"\n")
        except BlockingIOError:
            return False
        self.said += 1
        return True

    def line(self, number: int) -> bytes:
        return b"line %d " % number + b"x" * 1_000

    async def until_stopped(self) -> None:
        stopped = 0
        while stopped < 20:
            stopped = 0 if self.talk() else stopped + 1
            await asyncio.sleep(0.005 if stopped else 0)

    def expected(self) -> list[bytes]:
        return [marked(self.line(number), self.number) for number in range(self.said)]

    def close(self) -> None:
        os.close(self.writes)
        self.lines.close()


def of(number: int, text: bytes) -> list[bytes]:
    return [line for line in text.splitlines() if line.startswith(b"[%d] " % number)]


async def test_pipes_of_workers_are_not_read_while_nobody_reads_and_read_on_when_somebody_does(
    outlet: Outlet,
) -> None:
    talkers = [Talker(1, outlet), Talker(2, outlet)]
    await asyncio.gather(*(one.until_stopped() for one in talkers))
    assert sum(one.said for one in talkers) * 1_010 < 700_000, "three pipes, the bound, and what was cut"
    for _ in range(3):
        before = [one.said for one in talkers]
        for _ in range(4):  # each time as much as a pipe holds: there is to be more room than a bit
            outlet.look()
            await asyncio.sleep(0.01)
        await asyncio.gather(*(one.until_stopped() for one in talkers))
        assert all(one.said > number for one, number in zip(talkers, before, strict=True))
    expected = [one.expected() for one in talkers]
    await eventually(lambda: [of(one.number, outlet.look()) for one in talkers] == expected)
    for one in talkers:
        one.close()
    assert len(outlet.look().splitlines()) == sum(one.said for one in talkers)


async def test_what_a_worker_leaves_is_printed_also_when_its_end_came_while_nobody_read(
    outlet: Outlet,
) -> None:
    talker = Talker(1, outlet)
    await talker.until_stopped()
    talker.close()
    await eventually(lambda: of(1, outlet.look()) == talker.expected())


@pytest.mark.usefixtures("impatient")
async def test_workers_that_are_to_stop_may_print_also_when_nobody_reads(outlet: Outlet) -> None:
    talker = Talker(1, outlet)
    await talker.until_stopped()
    said = talker.said
    relief = asyncio.create_task(outlet.printer.relieve())
    while talker.said < said + 1_000:
        talker.talk()
        await asyncio.sleep(0)
    relief.cancel()
    talker.close()


async def test_what_the_control_process_says_goes_the_same_way_and_blocks_nobody(outlet: Outlet) -> None:
    number = outlet.fill()
    with voice.through(outlet.printer, outlet.printer):
        voice.tell("out")
        voice.say("err")
        voice.warn("careful")
        logging.lastResort.handle(logging.makeLogRecord({"msg": "a log", "levelno": 40}))  # type: ignore[union-attr]
    expected = b"".join(map(piece, range(number))) + b"out\nerr\nWarning: careful\na log\n"
    await eventually(lambda: outlet.look() == expected)


# --- what goes wrong around workers ----------------------------------------------------------------------------------

ORPHAN = """
import os, signal, sys, time
from durably.cli.processes.post import Post
from durably.cli.processes.worker import Attached

def unread():
    reads, writes = os.pipe()
    os.close(reads)
    return writes

if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
lifeline, kept = os.pipe()
os.close(kept)
pipes = os.pipe()[0], os.pipe()[0]
Attached(Post(number=1, listening=None, lifeline=lifeline, report=0, pipes=pipes, behind=(unread(), unread()), stop_s=0.1)).hold()
time.sleep(20)
"""


@pytest.mark.parametrize(("kind", "code"), [("ordinary", -signal.SIGTERM), ("deaf", 130)])
def test_a_worker_without_control_stops_also_when_nothing_can_be_printed(kind: str, code: int) -> None:
    assert subprocess.run([sys.executable, "-c", ORPHAN, kind], timeout=60, check=False).returncode == code


def plan(listening: socket.socket | None = None) -> Plan:
    return Plan((), "postgresql://nowhere/hub", listening, 60.0, 60.0)


async def child_of(*command: str, the: Plan) -> Child:
    process = await asyncio.create_subprocess_exec(*command, process_group=0)
    return Child(1, process, [], the)


async def test_a_worker_is_ready_when_it_says_so_also_when_the_pipe_stays_open() -> None:
    child = await child_of("sleep", "60", the=plan())
    reads, writes = os.pipe()
    child.listen(reads)
    try:
        said = msgspec.json.encode(Ready(host="h", lines=["a line"])) + b"\n"
        os.write(writes, said[:9])
        await asyncio.sleep(0.01)
        os.write(writes, said[9:])
        assert (await asyncio.wait_for(child.ready, 30)).host == "h"
    finally:
        child.kill()
        await child.over
        os.close(writes)


async def test_nobody_listens_to_a_worker_that_has_ended() -> None:
    child = await child_of("true", the=plan())
    reads, writes = os.pipe()
    child.listen(reads)
    assert await child.over == 0
    with pytest.raises(BrokenPipeError):
        os.write(writes, b"x")
    os.close(writes)


class Refused:
    """Starts nobody."""

    def __init__(self) -> None:
        self.times = 0
        self.team = Team(self.start, 1, lambda _: None)

    async def start(self, number: int) -> Child:
        self.times = number
        raise BlockingIOError(11, "no room")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "_DELAY_S", 0.0)


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever has read stdout and stderr is gone."""
    reads, writes = os.pipe()
    os.close(reads)
    with suppress(BrokenPipeError), os.fdopen(writes, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        monkeypatch.setattr(sys, "stderr", broken)
        yield
        monkeypatch.undo()


@pytest.mark.usefixtures("at_once", "unheard")
async def test_when_nobody_can_be_started_it_is_tried_five_times_also_unheard() -> None:
    refused = Refused()
    await asyncio.wait_for(refused.team.work(), 30)
    assert refused.times == 5
    assert refused.team.failure == (
        "No process can be started ([Errno 11] no room), the 5th in a row, and no other one serves"
    )


@pytest.mark.usefixtures("at_once")
async def test_who_leaves_starts_nobody() -> None:
    refused = Refused()

    async def start(number: int) -> Child:
        refused.team.leave()
        return await refused.start(number)

    refused.team = Team(start, 3, lambda _: None)
    await asyncio.wait_for(refused.team.work(), 30)
    assert (refused.times, refused.team.failure) == (1, None)


def test_the_pause_after_a_death_has_a_bound() -> None:
    crew = Refused().team
    for _ in range(1_100):
        crew._died_quickly()  # pyright: ignore[reportPrivateUsage]
    assert crew._not_before < time.monotonic() + 60  # pyright: ignore[reportPrivateUsage]


def descriptors() -> list[Path]:
    return sorted(Path("/dev/fd").iterdir())


async def test_a_start_that_fails_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> int:
        raise OSError(24, f"no room for {number}")

    lifeline = Lifeline()
    before = descriptors()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        await Child.start(1, plan(), lifeline, printers())
    monkeypatch.setattr(os, "dup", full)
    with pytest.raises(OSError, match="no room"):
        await Child.start(1, plan(), lifeline, printers())
    assert descriptors() == before
    lifeline.close()


async def test_the_port_is_closed_while_workers_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        the = plan(listening)

        async def start(number: int, the: Plan, lifeline: Lifeline, _: tuple[Printer, Printer]) -> Child:
            return await child_of("sh", "-c", "trap '' TERM; echo; sleep 60", the=the)

        monkeypatch.setattr(Child, "start", start)
        control = run._Control(the, Count(1, 1), 60.0)  # pyright: ignore[reportPrivateUsage]
        running = asyncio.create_task(control.run())
        await eventually(lambda: bool(control.team.children))
        control.team.leave()
        await eventually(lambda: listening.fileno() < 0)
        (child,) = control.team.children
        assert not child.over.done()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 30)
        child.kill()
        assert await asyncio.wait_for(running, 30) == 0


@pytest.mark.parametrize("text", ["0", "0.9", "-1", "nan", "inf", "x"])
def test_how_long_there_has_to_be_less_to_do_is_a_second_at_least(text: str) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        scale_down_s({"DURABLY_SCALE_DOWN_S": text})


async def test_a_worker_that_is_wanted_and_not_there_yet_is_waited_for() -> None:
    crew = Refused().team
    scaling = Scaling(crew, plan(), Count(0, 1), 0.01)
    scaling._visited()  # pyright: ignore[reportPrivateUsage]
    await asyncio.sleep(0.1)
    assert crew.wanted == 1
    scaling.close()
