"""A thread with a connection, which does what it is told, in order, and answers on the loop that asked."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import apsw

from durably.errors import DurablyError, HubClosedError, StoreFailedError
from durably.storage.sqlite.failures import as_store_error

T = TypeVar("T")
R = TypeVar("R", bound="HasConnection")
_Job: TypeAlias = "tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]"


class HasConnection(Protocol):
    """What a lane works on: a `Writer` or a `Reader`."""

    @property
    def connection(self) -> apsw.Connection:
        """Used by the thread of the lane only."""
        ...


class Health:
    """Shared by the lanes of a store: once one has failed, all have."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.failure: str | None = None

    def judge(self, error: Exception, connection: apsw.Connection | None) -> DurablyError:
        """What the caller gets for an error; remembers one after which nothing may go on."""
        judged = as_store_error(error, self.path, connection)
        if judged is not error:
            judged.__cause__ = error
        if isinstance(judged, StoreFailedError) and self.failure is None:
            self.failure = str(judged)
        return judged

    def check(self) -> None:
        """Refuse to go on after a failure.

        Raises:
            StoreFailedError: A lane has failed before.
        """
        if self.failure is not None:
            raise StoreFailedError(self.failure)


class Lane(Generic[R]):
    """Takes jobs from loops, for its thread.

    The caller's thread does as little as possible: a future, and a put that needs no lock.
    """

    def __init__(
        self,
        name: str,
        health: Health,
        connect: Callable[[], R],
        *,
        between: Callable[[R], None] | None = None,
    ) -> None:
        """Start the thread; it connects before its first job.

        Args:
            name: Of the thread.
            health: Of the store.
            connect: Makes what the jobs work on, on the thread.
            between: Called on the thread after each job, when its caller has the answer already.
        """
        self._health = health
        self._connect = connect
        self._between = between
        self._subject: R | None = None
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closing = threading.Lock()
        self._before: Callable[[R], None] | None = None
        self._after: Callable[[], None] | None = None
        # A daemon: a program that forgot to close its store still ends.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Do `work(subject, *arguments)` on the thread, after all that was submitted before."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((future, work, arguments))
        return future

    def end(self, before: Callable[[R], None] | None = None, after: Callable[[], None] | None = None) -> None:
        """End the thread once all jobs are done; nothing may be submitted any more. Does not wait.

        Args:
            before: Called on the thread when its connection is about to be closed, also after a failure.
            after: Called on the thread as the last thing it does.
        """
        self._before, self._after = before, after
        self._jobs.put(None)

    def join(self) -> None:
        """Wait for the thread. A read that is running is aborted."""
        while self._thread.is_alive():
            with self._closing:  # a connection that is being closed must not be touched
                if self._subject is not None:
                    self._subject.connection.interrupt()
            self._thread.join(0.01)

    # --- on the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._do(*job)
            del job  # a batch is not kept alive until the next one comes
        try:
            if self._subject is not None:
                if self._before is not None:
                    self._before(self._subject)
                with self._closing:
                    subject, self._subject = self._subject, None
                    _close(subject.connection, self._health)
        finally:
            if self._after is not None:
                self._after()

    def _do(self, future: asyncio.Future[Any], work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            self._health.check()
            if self._subject is None:
                self._subject = self._connect()
            result, error = work(self._subject, *arguments), None
        except apsw.InterruptError:
            result, error = None, HubClosedError("The store was closed while it was reading")
        except Exception as raised:  # noqa: BLE001 - whatever it is, the caller has to know
            result, error = None, self._judge(raised)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            future.get_loop().call_soon_threadsafe(_settle, future, result, error)
        if self._between is not None and self._subject is not None and self._health.failure is None:
            try:
                self._between(self._subject)
            except Exception as raised:  # noqa: BLE001 - the next job fails with it
                self._judge(raised)

    def _judge(self, error: Exception) -> DurablyError:
        return self._health.judge(error, None if self._subject is None else self._subject.connection)


def _settle(future: asyncio.Future[Any], result: Any, error: DurablyError | None) -> None:
    if future.done():  # cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def answer(ended: asyncio.Future[None]) -> None:
    """Tell the loop of a future that it is done, from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        ended.get_loop().call_soon_threadsafe(_settle, ended, None, None)


def _close(connection: apsw.Connection, health: Health) -> None:
    """Close a connection; nothing is raised, for nothing depends on it.

    The last connection to be closed moves the log into the file and deletes it. Not so after a failure: then the log on
    the disk may differ from what this process believes, and the next one has to read it anew.
    """
    with contextlib.suppress(apsw.Error):
        if health.failure is not None:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    with contextlib.suppress(apsw.Error):
        connection.close()
