"""The program of a worker process: performs one activity after the other, for as long as its host is there.

The main thread runs the code of users, so that signals can end it; another one reads what the host says, and so notices
when the host is gone. Nothing but that tells a worker to stop in the middle: a SIGTERM of somebody else (systemd sends
one to every process of a service that stops) lets the current call end first.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType
from typing import Any, Final

import msgspec

from durably.codec.convert import Converter, JsonConverter
from durably.errors import PayloadError, RegistrationError
from durably.executors.attempt import arguments_of, payload_of
from durably.executors.worker_channel import (
    BEAT,
    BEGUN,
    BODY_MAX,
    CALL,
    DONE,
    READY,
    Attempt,
    Channel,
    ChannelClosedError,
    Frame,
    Hello,
    Outcome,
    decode,
)
from durably.program.activity_context import ActivityContext
from durably.program.addresses import Address, resolve
from durably.program.failures import describe
from durably.program.registry import ActivityFunction

_PR_SET_PDEATHSIG: Final = 1

_UNWANTED: Final = 128 + signal.SIGTERM
"""Exit code of a worker whose call nobody wants any more."""

_BEAT_MAX: Final = 1 << 16
"""Bytes of the details of a heartbeat."""

_importing = False


def is_importing() -> bool:
    """True in a worker while it imports the code of users: nothing may be started now, least of all a host."""
    return _importing


def main(descriptor: int) -> None:
    """Serve the host at the other end of a socket until it closes."""
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - the name says it
    try:
        Worker(Channel(socket.socket(fileno=descriptor))).serve()
    except (ChannelClosedError, KeyboardInterrupt):
        pass


class LeavingError(SystemExit):
    """Raised in the code of users when nobody wants its result any more."""


class Worker:
    """One worker process."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        hello: Hello = decode(channel.receive().head, Hello)
        self._grace_s = hello.grace_s
        self._frames: SimpleQueue[Frame | None] = SimpleQueue()
        self._functions: dict[tuple[str, Address], ActivityFunction] = {}
        self._converters: dict[Address | None, Converter] = {None: JsonConverter()}
        self._context: ActivityContext | None = None
        self._sending = threading.Lock()
        self._busy = self._leaving = self._unwound = False
        sys.argv = [os.fsdecode(one) for one in hello.argv]
        _die_with(hello.host_pid)

    def serve(self) -> None:
        """Perform calls until the host closes, or somebody asks this process to end."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(
                    line_buffering=True
                )  # what a process that is killed has printed is not lost
        signal.signal(signal.SIGTERM, self._asked_to_end)
        threading.Thread(target=self._read, name="durably-channel", daemon=True).start()
        self._channel.send(READY)
        while not self._leaving and (frame := self._frames.get()) is not None:
            self._busy = True
            attempt: Attempt = decode(frame.head, Attempt)
            context = self._context = _context(attempt, self._beat)
            self._channel.send(BEGUN)
            outcome, body = self._perform(attempt, frame.body, context)
            with self._sending:  # a thread of users may be beating
                self._context = None
            outcome.leaving = self._leaving
            self._channel.send(DONE, outcome, body)
            self._busy = False

    def _beat(self, context: ActivityContext, details: Any) -> None:
        """Tell the host, from any thread. Never raises, but for the end of the call itself."""
        try:
            said = msgspec.json.encode(details)
        except Exception:  # noqa: BLE001 - whatever it is that users want to tell
            said = msgspec.json.encode(f"a {type(details).__name__}, which is no JSON")
        if len(said) > _BEAT_MAX:
            said = msgspec.json.encode(f"{len(said)} bytes, more than the {_BEAT_MAX} that are kept")
        with self._sending, contextlib.suppress(ChannelClosedError):
            if self._context is context:
                self._channel.send(BEAT, body=said)

    def _perform(self, attempt: Attempt, body: bytes, context: ActivityContext) -> tuple[Outcome, bytes]:
        try:
            function, converter = self._loaded(attempt)
            arguments = arguments_of(function, body if attempt.has_input else None, converter)
            result = function.call(arguments, context)
            payload = b"" if result is None else payload_of(function, result, converter)
            self._check_size(function, payload)
            return Outcome(has_result=result is not None), payload
        except LeavingError:
            raise
        except BaseException as error:  # noqa: BLE001 - user code; also SystemExit, which must not end the worker
            return Outcome(failure=describe(error)), b""
        finally:
            _flush()

    @staticmethod
    def _check_size(function: ActivityFunction, payload: bytes) -> None:
        if len(payload) > BODY_MAX:
            raise PayloadError(
                f"Result of activity '{function.name}' has {len(payload)} bytes: expected {BODY_MAX} at most; "
                "return a reference to the data instead"
            )

    # --- code of users -----------------------------------------------------------------------------------------------

    def _loaded(self, attempt: Attempt) -> tuple[ActivityFunction, Converter]:
        key = (attempt.name, attempt.function)
        function = self._functions.get(key)
        if function is None:
            fn = _imported(attempt.function, attempt.name)
            function = ActivityFunction(fn, attempt.name, "plain", None, None, in_process=True)
            self._functions[key] = function
        converter = self._converters.get(attempt.converter)
        if converter is None and attempt.converter is not None:
            converter = self._converters[attempt.converter] = _imported(attempt.converter, attempt.name)
        assert converter is not None  # noqa: S101 - None has one from the beginning
        return function, converter

    # --- the end -----------------------------------------------------------------------------------------------------

    def _asked_to_end(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM, in the main thread: between two steps of whatever runs there."""
        self._leaving = True
        if not self._busy:
            raise LeavingError(0)
        if self._channel.is_closed() and not self._unwound:
            self._unwound = True  # once: a second error would interrupt the clean-up after the first
            if self._context is not None:
                self._context.cancel()
            raise LeavingError(_UNWANTED)

    def _read(self) -> None:
        """In a thread: take what the host sends; when it closes, end."""
        try:
            while (frame := self._channel.receive()).kind == CALL:
                self._frames.put(frame)
        except ChannelClosedError:
            pass
        self._frames.put(None)
        if self._busy:
            # To the main thread itself, because that one may wait in the system for something.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        time.sleep(self._grace_s)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


class _Context(ActivityContext):
    """One whose heartbeats reach the host."""

    __slots__ = ("_beat",)

    def __init__(self, beat: Callable[[ActivityContext, Any], None], **known: Any) -> None:
        super().__init__(**known)
        self._beat = beat

    def heartbeat(self, details: Any = None) -> None:
        super().heartbeat(details)
        self._beat(self, details)


def _context(attempt: Attempt, beat: Callable[[ActivityContext, Any], None]) -> ActivityContext:
    return _Context(
        beat,
        instance_id=attempt.instance_id,
        task_id=attempt.task_id,
        attempt=attempt.attempt,
        delivery=attempt.delivery,
        idempotency_key=attempt.idempotency_key,
        tags=attempt.tags,
    )


def _imported(address: Address, activity: str) -> Any:
    global _importing  # noqa: PLW0603 - one import at a time, in the main thread
    _importing = True
    try:
        return resolve(address)
    except LeavingError:
        raise
    except BaseException as error:
        place = f"'{address.path}' of module '{address.module}'"
        raise RegistrationError(
            f"Activity '{activity}' cannot be imported in a worker process: {place} raised {type(error).__name__}: "
            f"{error}; expected a module that can be imported at any time; put what is to run only once under "
            "if __name__ == '__main__'"
        ) from error
    finally:
        _importing = False


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S110 - nobody reads it, or user code has put something else there
            pass


def _die_with(host_pid: int) -> None:
    """Have the system kill this process when its host dies: also when user code lets no thread of Python run."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _offer_to_oom_killer()
    if os.getppid() != host_pid:  # it has died before
        raise ChannelClosedError


def _offer_to_oom_killer() -> None:
    """When memory runs out, an attempt that fails is better than a host that dies."""
    try:
        with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:  # noqa: PTH123 - pathlib is slow to import
            score = min(1000, int(file.read()) + 300)
            file.seek(0)
            file.write(str(score))
    except (OSError, ValueError):  # not on this system
        pass
