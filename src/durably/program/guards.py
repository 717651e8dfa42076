"""The guard that catches I/O, threads and blocking sleeps of orchestrator code: an audit hook, awake only in a turn.

It watches over the thread that runs a turn, and over nothing else. Imports, loggers, and what reads source lines or time
zones may open files: they do so in the middle of honest code, and their outcome does not depend on the moment. Finalizers
of anybody's objects run whenever the garbage collector does, so also in a turn.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
import zoneinfo
from _thread import get_ident
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Protocol

from durably.errors import NonDeterministicCall


class Turn(Protocol):
    """A turn that is running.

    Attributes:
        instance_id: Whose turn it is.
        guarded: False switches the guard off.
        turns: Counts the turns of the run; together with the run it names the turn.
    """

    instance_id: str
    guarded: bool
    turns: int


running: Final[dict[int, Turn]] = {}
"""The turn that each thread runs, by thread id. Written by runs, read by the guard and the watchdog."""

BOUNDARY: Final = "durably.program.run"
"""The module whose frames lie between the engine and user code: the guard looks no further up."""

_ALLOWED: Final = frozenset(
    (
        "_frozen_importlib",
        "_frozen_importlib_external",
        "importlib._bootstrap",
        "importlib._bootstrap_external",
        "zipimport",
        "linecache",
        "logging",
        "logging.handlers",
        "pdb",
        "warnings",
        "weakref",  # runs finalizers
        "zoneinfo._common",
        "zoneinfo._tzpath",
    )
)

_ACTIVITY: Final = "call it in an activity: await ctx.call_activity(...)"
_NETWORK: Final = ("use the network", _ACTIVITY)
_PROCESS: Final = ("start processes", _ACTIVITY)
_THREAD: Final = ("start threads", "await ctx.call_activity(...), since a plain def runs in a thread")
_FILES: Final = ("touch files", _ACTIVITY)

_FORBIDDEN: Final[dict[str, tuple[str, str]]] = {
    "open": ("open files", _ACTIVITY),
    "time.sleep": ("block in time.sleep", "await asyncio.sleep(...), which is a durable timer here"),
    "_thread.start_new_thread": _THREAD,
    "_thread.start_joinable_thread": _THREAD,
    "subprocess.Popen": _PROCESS,
    "os.system": _PROCESS,
    "os.exec": _PROCESS,
    "os.fork": _PROCESS,
    "os.forkpty": _PROCESS,
    "os.posix_spawn": _PROCESS,
    "os.spawn": _PROCESS,
    "os.startfile": _PROCESS,
    "os.kill": ("send signals", _ACTIVITY),
    "pty.spawn": _PROCESS,
    "webbrowser.open": _PROCESS,
    "urllib.Request": _NETWORK,
    "http.client.connect": _NETWORK,
    "ftplib.connect": _NETWORK,
    "smtplib.connect": _NETWORK,
    "imaplib.open": _NETWORK,
    "poplib.connect": _NETWORK,
    "socket.__new__": _NETWORK,
    "socket.bind": _NETWORK,
    "socket.connect": _NETWORK,
    "socket.getaddrinfo": _NETWORK,
    "socket.gethostbyaddr": _NETWORK,
    "socket.gethostbyname": _NETWORK,
    "socket.gethostname": ("ask for the name of the machine", _ACTIVITY),
    "socket.getnameinfo": _NETWORK,
    "socket.getservbyname": _NETWORK,
    "socket.getservbyport": _NETWORK,
    "socket.sendmsg": _NETWORK,
    "socket.sendto": _NETWORK,
    "sqlite3.connect": ("open databases", _ACTIVITY),
    "os.putenv": ("change the environment", _ACTIVITY),
    "os.unsetenv": ("change the environment", _ACTIVITY),
    "os.chmod": _FILES,
    "os.chown": _FILES,
    "os.link": _FILES,
    "os.listdir": ("read directories", _ACTIVITY),
    "os.mkdir": _FILES,
    "os.remove": _FILES,
    "os.rename": _FILES,
    "os.rmdir": _FILES,
    "os.scandir": ("read directories", _ACTIVITY),
    "os.symlink": _FILES,
    "os.truncate": _FILES,
    "os.utime": _FILES,
    "tempfile.mkdtemp": _FILES,
    "tempfile.mkstemp": _FILES,
}

_installed: list[bool] = []


def install() -> None:
    """Put the audit hook in place; idempotent. Python offers no way to take it out again."""
    if _installed:
        return
    _installed.append(True)
    sys.addaudithook(_audit)
    # What newer versions audit themselves. A `from time import sleep` that ran before is missed; the watchdog reports it.
    if sys.version_info < (3, 13):
        time.sleep = _audited(time.sleep, "time.sleep")
    if sys.version_info < (3, 12):
        bare: Any = threading
        bare._start_new_thread = _audited(bare._start_new_thread, "_thread.start_new_thread")


def _audited(fn: Callable[..., Any], event: str) -> Callable[..., Any]:
    @functools.wraps(fn)
    def audited(*args: Any, **kwargs: Any) -> Any:
        sys.audit(event, *args)
        return fn(*args, **kwargs)

    return audited


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if (
        event not in _FORBIDDEN
    ):  # nearly always: this is called for every audited event of the process, such as id()
        return
    turn = running.get(get_ident())
    if turn is None or not turn.guarded or _is_time_zone(event, args) or _is_allowed(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
        return
    what, cure = _FORBIDDEN[event]
    detail = f" ({args[0]!r})" if event in {"open", "time.sleep"} and args else ""
    raise NonDeterministicCall(
        f"Orchestrator of instance '{turn.instance_id}' tried to {what}{detail}: a replay could not repeat it; {cure}"
    )


def _is_time_zone(event: str, args: tuple[Any, ...]) -> bool:
    """True when `zoneinfo` reads a zone: it does so in C, where no frame tells."""
    return event == "open" and isinstance(args[0], str) and args[0].startswith(zoneinfo.TZPATH)


def _is_allowed(frame: FrameType | None) -> bool:
    while frame is not None:
        module = frame.f_globals.get("__name__")
        # A finalizer is the garbage collector's doing, and may belong to anybody.
        if module in _ALLOWED or frame.f_code.co_name == "__del__":
            return True
        if module == BOUNDARY:
            return False
        frame = frame.f_back
    return False
