"""Results of claimed attempts: each takes the place of its row in the queue, in one transaction with its message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from durably.clock import Clock
from durably.core.commit import InboxRow
from durably.core.history import decode_body, encode_body
from durably.core.messages import ActivityDone, AttemptLost
from durably.core.shared_tasks import SharedCall, result_id
from durably.engine.committer import RETRY_DELAY_MAX_US
from durably.engine.options import EngineOptions
from durably.engine.residents import Delivery
from durably.engine.routes import Routes, Sent
from durably.errors import DurablyError, FailureDetails, StoreRefusedError, StoreUnavailableError
from durably.storage.shared_tasks import Claim, SharedTasks, TaskResult

_log = logging.getLogger("durably.engine")


class Held(msgspec.Struct, eq=False):
    """A claim, until its result is durable."""

    claim: Claim
    call: SharedCall
    at: int = 0
    key: tuple[str, int] = ("", 0)
    begun: bool = False
    suspect: bool = False


class Finisher:
    """Stores what has ended, one statement at a time.

    Args:
        tasks: The queue.
        routes: Hands results over to partitions of this host.
        clock: Time.
        options: Limits.
        spawn: Runs something to its end, or to that of the host.
        stored: Takes a claim whose result is durable, or is somebody else's by now.
        given_up: Takes claims whose results are lost: others run them again.
    """

    def __init__(
        self,
        tasks: SharedTasks,
        routes: Routes,
        clock: Clock,
        options: EngineOptions,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        stored: Callable[[Held], None],
        given_up: Callable[[list[Held]], Coroutine[Any, Any, None]],
    ) -> None:
        self._tasks = tasks
        self._routes = routes
        self._clock = clock
        self._options = options
        self._spawn = spawn
        self._stored = stored
        self._given_up = given_up
        self._results: list[tuple[Held, ActivityDone | AttemptLost]] = []
        self._finishing: asyncio.Future[None] | None = None
        """Done when what has ended until then is stored."""

    @property
    def backlog(self) -> int:
        """How many results are not on their way yet."""
        return len(self._results)

    @property
    def waiting(self) -> list[Held]:
        """Their claims."""
        return [held for held, _ in self._results]

    def take(self, held: Held, result: ActivityDone | AttemptLost) -> None:
        """Store a result, together with others that end meanwhile."""
        self._results.append((held, result))
        if self._finishing is None:
            self._finishing = asyncio.get_running_loop().create_future()
            self._spawn(self._send_results(self._finishing))

    async def idle(self) -> None:
        """Return when all that has ended until now is stored."""
        if self._finishing is not None:
            await asyncio.shield(self._finishing)

    async def _send_results(self, finishing: asyncio.Future[None]) -> None:
        """One statement at a time; what ends meanwhile is in the next one."""
        try:
            while self._results:
                await asyncio.sleep(0)
                results, self._results = self._results, []
                try:
                    await self._send([(held, self._result_of(held, result)) for held, result in results])
                except Exception:  # noqa: BLE001 - a task that nobody awaits must not end unseen
                    _log.exception("results of activities are lost inside the engine: they run again")
                    await self._given_up([held for held, _ in results])
        finally:
            self._finishing = None
            finishing.set_result(None)

    async def _send(self, results: list[tuple[Held, TaskResult]], *, refused: bool = False) -> None:
        """Store results; `refused`: in the place of one that the store did not take."""
        sealed, doubtful = self._routes.moment, False
        delay_us = int(self._options.commit_retry_s * 1_000_000)
        done: list[bool] = []
        while not done:
            try:
                done = await self._tasks.finish([result for _, result in results])
            except StoreUnavailableError as error:
                _log.warning("results of activities cannot be stored, trying again: %s", error)
                doubtful = True
                await self._pause(delay_us)
                delay_us = min(2 * delay_us, RETRY_DELAY_MAX_US)
            except StoreRefusedError as error:
                if refused:
                    self._keep_unfinished(results, error)
                else:
                    await self._send_one_by_one(results, error)
                return
            except DurablyError as error:  # the host ends with its store, and others run them again
                _log.warning("results of activities cannot be stored: %s", error)
                return
        for held, _ in results:
            self._stored(held)
        durable = [
            held for (held, _), is_durable in zip(results, done, strict=True) if is_durable or doubtful
        ]
        told = {id(held) for held in durable}
        deliveries = [_delivery(result) for held, result in results if id(held) in told]
        # Results are in no order: there is nothing of the same sender that one of them could overtake.
        self._routes.hand_over(Sent(deliveries, sealed, 0), doubtful=doubtful)

    async def _send_one_by_one(
        self, results: list[tuple[Held, TaskResult]], error: StoreRefusedError
    ) -> None:
        """The store takes one of them never: that one has failed."""
        if len(results) > 1:
            for one in results:
                await self._send([one])
            return
        ((held, _),) = results
        call = held.call
        failed = ActivityDone(call.execution_id, call.seq, call.attempt, None, FailureDetails.of(error))
        await self._send([(held, self._result_of(held, failed))], refused=True)

    def _keep_unfinished(self, results: list[tuple[Held, TaskResult]], error: StoreRefusedError) -> None:
        """It has run, and nothing can be said of it: it stays claimed while this host lives, or it would run in vain."""
        for held, _ in results:
            row = held.claim.row
            _log.error(
                "neither the result of activity '%s' of instance '%s' nor its failure is taken by the store (%s): it runs "
                "again when this host has stopped. Terminate the instance, or repair the store",
                row.name,
                row.instance_id,
                error,
            )
            held.suspect = False  # the next company need not wait for it

    def _result_of(self, held: Held, result: ActivityDone | AttemptLost) -> TaskResult:
        row = held.claim.row
        try:
            body = encode_body(result)
        except (UnicodeError, TypeError, ValueError, OverflowError) as error:
            refused = StoreRefusedError(f"its result cannot be stored: {error}")
            call = held.call
            failed = ActivityDone(call.execution_id, call.seq, call.attempt, None, FailureDetails.of(refused))
            body = encode_body(failed)
        message = InboxRow(result_id(row.task_id), row.instance_id, self._clock.now(), body)
        return TaskResult(held.claim, message)

    async def _pause(self, delay_us: int) -> None:
        over = asyncio.Event()
        self._clock.call_later(delay_us, over.set)
        await over.wait()


def _delivery(result: TaskResult) -> Delivery:
    message = result.message
    body = decode_body(message.body)
    return Delivery(message.instance_id, body, row=message.message_id, stored=True, at=message.at)
