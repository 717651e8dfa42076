"""What worker processes run in tests. They speak through named pipes: opening one waits for the other side, and its end
is the end of all processes that had it open."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from durably import ActivityContext, App, JsonConverter, NonRetryableError
from durably.program.registry import Registry


class Loud(JsonConverter):
    """A converter that shows where it was at work."""

    def encode(self, value: object) -> bytes:
        return super().encode([f"{type(self).__name__} in {os.getpid()}", value])


loud_app = App(converter=Loud())


def pid() -> int:
    return os.getpid()


def echo(value: Any) -> Any:
    return value


def length(text: str) -> int:
    return len(text)


def tell(ctx: ActivityContext, word: str) -> list[Any]:
    ctx.heartbeat({"progress": 5})
    return [
        word,
        ctx.instance_id,
        ctx.task_id,
        ctx.attempt,
        ctx.delivery,
        ctx.idempotency_key,
        ctx.tags,
        ctx.cancelled,
        ctx.last_heartbeat,
    ]


def write_to(pipe: str) -> str:
    Path(pipe).write_text("met")
    return "wrote"


def read_from(pipe: str) -> str:
    return Path(pipe).read_text()


def announce(pipe: str) -> int:
    """Say who we are; the pipe stays open until this process ends."""
    end = os.open(pipe, os.O_WRONLY)
    os.write(end, f"{os.getpid()}\n".encode())
    return end


def busy(pipe: str) -> NoReturn:
    announce(pipe)
    while True:
        pass


def busy_without_death_signal(pipe: str) -> NoReturn:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, 0)
    busy(pipe)


def stubborn(pipe: str) -> NoReturn:
    announced = False
    while True:
        try:
            if not announced:
                announced = True
                announce(pipe)
            while True:
                pass
        except BaseException:  # noqa: BLE001
            continue


def cleans_up(pipe: str, ctx: ActivityContext) -> None:
    end = os.open(pipe, os.O_WRONLY)
    try:
        os.write(end, f"{os.getpid()}\n".encode())
        while True:
            pass
    finally:
        os.write(end, f"cancelled: {ctx.cancelled}\n".encode())


def starts_another(pipe: str) -> NoReturn:
    """The one started keeps the pipe open."""
    end = announce(pipe)
    subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], pass_fds=(end,))
    os.write(end, b"started\n")
    while True:
        pass


def leaves_a_fork(pipe: str) -> NoReturn:
    alone, is_alone = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.write(is_alone, b"!")
        read_from(pipe)
        os._exit(0)
    os.read(alone, 1)  # the group is ended with its worker
    os._exit(7)


def until_told(pipes: tuple[str, str]) -> int:
    announce(pipes[0])
    read_from(pipes[1])
    return os.getpid()


def busy_at_first(pipe: str, ctx: ActivityContext) -> int:
    if ctx.attempt == 1:
        busy(pipe)
    return ctx.attempt


def exits(code: int) -> NoReturn:
    os._exit(code)


def is_killed(number: int) -> NoReturn:
    os.kill(os.getpid(), number)
    signal.pause()
    raise AssertionError


def fails() -> NoReturn:
    try:
        raise KeyError("cause")
    except KeyError as error:
        raise NonRetryableError("enough") from error


def quits() -> NoReturn:
    sys.exit("bye")


def returns_odd() -> object:
    return object()


def prints(word: str) -> None:
    print("out", word)
    print("err", word, file=sys.stderr)


def alone(path: str) -> None:
    """Fails when it runs twice at once."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    Path(path).unlink()


def _twice(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return 2 * fn(*args)

    return wrapper


@_twice
def doubled(n: int) -> int:
    return n


registry = Registry()


def _registered(fn: Callable[..., Any]) -> Callable[..., Any]:
    registry.add_activity(fn, name="inner", executor="process")
    return fn


@_twice
@_registered
def inner(n: int) -> int:
    return n


class Shop:
    @staticmethod
    def price(n: int) -> int:
        return n + 1


def beats_and_dies(ctx: ActivityContext, what: str) -> None:
    beats: dict[str, list[Any]] = {
        "steps": [{"progress": n} for n in range(1_000)],
        "no JSON": [object()],
        "large": ["x" * 100_000],
    }
    for beat in beats[what]:
        ctx.heartbeat(beat)
    os._exit(3)


def beats_from_threads(ctx: ActivityContext) -> int:
    """Threads that beat while the result is on its way, and one that goes on afterwards."""
    threads = [threading.Thread(target=lambda: [ctx.heartbeat(n) for n in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    return len(threads)


def beats_and_waits(ctx: ActivityContext, pipe: str) -> str:
    ctx.heartbeat({"progress": 5})
    return Path(pipe).read_text()
