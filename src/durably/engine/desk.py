"""What every part of a turn works with: the commit of a resident, and what becomes of a message."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence

import msgspec

from durably.clock import Clock
from durably.core.commit import Tombstone
from durably.core.events import (
    Action,
    Arrival,
    ExecutionFailed,
    ExecutionStarted,
    ParentRef,
    Payload,
    TaskScheduled,
)
from durably.core.messages import ActivityDone, ChildDone, Continue, EntityDone, RaiseEvent, StartInstance
from durably.core.notices import NoticeRules
from durably.core.orchestration import Commit
from durably.core.status import RuntimeStatus
from durably.core.verdicts import encode_verdict
from durably.engine.committer import INTERNAL, Committer, Staged
from durably.engine.executor import Executor, Run
from durably.engine.residents import Delivery, Resident
from durably.engine.surroundings import Surroundings
from durably.errors import (
    FailureDetails,
    HistoryCorruptError,
    NonDeterminismError,
    UnknownFunctionError,
    VersionMismatchError,
)

_FAILED = RuntimeStatus.Failed.value
_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Desk:
    """The shared part of all turns of a partition."""

    def __init__(
        self,
        executor: Executor,
        committer: Committer,
        clock: Clock,
        around: Surroundings,
        *,
        unknown_wait: bool,
        versions_wait: bool,
        notices: NoticeRules,
    ) -> None:
        self.unknown_wait = unknown_wait
        self._versions_wait = versions_wait
        self._notices = notices
        self.executor = executor
        self.committer = committer
        self.around = around
        self.clock = clock

    # --- commits -----------------------------------------------------------------------------------------------------

    def commit_of(self, resident: Resident) -> Commit:
        """The commit of the resident in the batch that is gathering."""
        commit = resident.commit
        if commit is None:
            commit = resident.commit = Commit(resident.state, self._notices)
            self.committer.gathering.staged.append(Staged(resident, commit, resident.execution))
        return commit

    def touch(self, resident: Resident, now: int) -> None:
        """Have the row of the instance written for something that no event says."""
        commit = self.commit_of(resident)
        if not commit.turns:
            commit.turn(now)
        for staged in self.committer.gathering.staged:
            if staged.commit is commit:
                staged.touched = True

    def abandon(self, resident: Resident) -> None:
        """Write nothing of what the gathering batch holds of this execution: it is being deleted."""
        for staged in self.committer.gathering.staged:
            if staged.resident is resident:
                staged.dropped = True
        resident.commit = None
        resident.close()

    def once_durable(self, callback: Callable[[], None]) -> None:
        """Call back when what has been gathered is durable; not at all when it never will be."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        told.add_done_callback(lambda _: callback())
        self.committer.gathering.replies.append((told, None, None))

    # --- messages ----------------------------------------------------------------------------------------------------

    def answer(self, delivery: Delivery, error: Exception | None = None) -> None:
        """Answer the sender, if one waits, once the batch is durable."""
        gathering = self.committer.gathering
        if delivery.reply is not None:
            gathering.replies.append((delivery.reply, error, None))
            delivery.reply = None
        row = delivery.row
        if row is not None and delivery.stored and row[0] != INTERNAL:
            gathering.tombstones.append(Tombstone(row, self.clock.now(), encode_verdict(error)))

    def consumed(self, delivery: Delivery, error: Exception | None = None, result: Payload = None) -> None:
        """The message has had its effect, or never will: answer its sender and drop its row with this commit."""
        gathering = self.committer.gathering
        if delivery.reply is not None:
            gathering.replies.append((delivery.reply, error, result))
            delivery.reply = None
        body = delivery.body
        if type(body) is ActivityDone:
            gathering.settled.append(((body.execution_id, body.seq), body.attempt))
            if body.result is not None:
                gathering.size += len(body.result)
        elif type(body) is RaiseEvent and body.input is not None:
            gathering.size += len(body.input)
        elif type(body) is ChildDone and body.result is not None:
            gathering.size += len(body.result)
        row = delivery.row
        if row is not None:
            if delivery.stored:
                gathering.consumed.append(row)
                if row[0] != INTERNAL:
                    verdict = encode_verdict(error, result)
                    gathering.tombstones.append(Tombstone(row, self.clock.now(), verdict))
            else:
                self.around.forget(delivery)

    def hold(self, resident: Resident, delivery: Delivery) -> None:
        """Keep the message, durably, until the instance goes on. Its sender is answered: it has been accepted."""
        self.answer(delivery)
        resident.held.append(delivery)
        self.around.keep(delivery)

    def discard_held(self, resident: Resident) -> None:
        """The instance will never go on."""
        for delivery in resident.held:
            if isinstance(delivery.body, EntityDone):
                self.keep_answer(resident, delivery.body)
            self.consumed(delivery)
        resident.held = []

    def keep_answer(self, resident: Resident, answer: EntityDone) -> None:
        """The instance has ended. If it can be rewound, its history gets the answer to a call that was under way."""
        if resident.state.status != _FAILED:
            return
        commit = self.commit_of(resident)
        stored = resident.stored
        if stored is not None:
            if stored.oversize is not None:
                return  # it cannot be rewound
            try:
                resident.read_history()
            except HistoryCorruptError:
                resident.stored = stored
                return  # nor can this one
            commit.state = resident.state
        commit.receive(answer)

    def go_on(self, resident: Resident) -> None:
        """What was held comes first, in its order; then timers that came due meanwhile."""
        resident.queue.extendleft(reversed(resident.held))
        resident.held = []
        self.around.rearm(resident)
        self.ask_workers(resident)

    def ask_workers(self, resident: Resident) -> None:
        """A worker has to be asked; whoever was asked before the code was torn down can answer nobody any more."""
        state = resident.state
        if state.untaken and not (resident.closed or state.ended or state.continuing):
            self.run_of(resident)

    def dispatch(self, resident: Resident, commit: Commit) -> None:
        """Put the messages of a commit on their way."""
        messages, commit.messages = commit.messages, []
        for target, body in messages:
            if type(body) is Continue:
                delivery = Delivery(target, body)
                resident.queue.appendleft(
                    delivery
                )  # before whatever else waits: that is for the next execution
                self.around.keep(delivery)
            else:
                self.around.send(target, body)

    # --- code --------------------------------------------------------------------------------------------------------

    def advance(self, resident: Resident, run: Run, commit: Commit, event: Arrival) -> None:
        """Let the code see an event and record what it decides."""
        self.decide(resident, commit, run.advance(event, resident.state.now))

    def decide(self, resident: Resident, commit: Commit, actions: Sequence[Action]) -> None:
        """Record what the code of an instance has decided."""
        decide = commit.decide
        for action in actions:
            decide(action)
            if type(action) is TaskScheduled and action.input is not None:
                self.committer.gathering.size += len(action.input)
        if commit.messages:
            self.dispatch(resident, commit)

    def run_of(self, resident: Resident) -> Run | None:
        """The live code, replayed when it is not in memory.

        None when there is no code for it, or code and history disagree: the instance is blocked now, or it has failed where
        hosts are told to fail instances of versions that they have no code for.
        """
        if resident.run is not None:
            return resident.run
        started = resident.state.begun
        try:
            if not self.executor.runs(started.name, started.version):
                if self._is_of_other_version(started.name) and not self._versions_wait:
                    self._fail(resident, started)
                    return None
                raise NonDeterminismError(resident.instance_id, self.no_code(started.name, started.version))
            resident.run = self.executor.replay(resident.history or [])
        except NonDeterminismError as error:
            resident.blocked = error.diff
            self.touch(resident, resident.state.now)
            commit = self.commit_of(resident)
            commit.tell("blocked", error.diff)
            self.dispatch(resident, commit)
            return None
        resident.history = None
        return resident.run

    def started_event(self, resident: Resident, start: StartInstance) -> ExecutionStarted:
        """The first event of the first execution of an instance."""
        return ExecutionStarted(
            instance_id=resident.instance_id,
            name=start.name,
            input=start.input,
            execution_id=start.execution_id,
            ordinal=resident.ordinal,
            created_at=resident.created_at,
            python=_PYTHON,
            version=start.version,
            parent=start.parent,
            tags=start.tags,
            reason=start.reason,
            remote=self.executor.elsewhere("orchestrator", start.name),
            trace=start.trace,
        )

    def rewound_event(
        self, before: ExecutionStarted, execution_id: str, parent: ParentRef | None
    ) -> ExecutionStarted:
        """The first event of the execution that goes on for `before`."""
        return msgspec.structs.replace(
            before,
            execution_id=execution_id,
            seed=before.origin,
            parent=before.parent if parent is None else parent,
        )

    def continued_event(
        self, resident: Resident, before: ExecutionStarted, body: Continue, version: str | None
    ) -> ExecutionStarted:
        """The first event of the execution that follows `before`."""
        return ExecutionStarted(
            instance_id=resident.instance_id,
            name=before.name,
            input=body.input,
            execution_id=body.execution_id,
            ordinal=resident.ordinal,
            created_at=resident.created_at,
            python=_PYTHON,
            version=version,
            parent=before.parent,
            tags=before.tags,
            custom_status=body.custom_status,
            began_as=before.life,
            remote=before.remote,
            trace=before.trace,
        )

    # --- functions and versions --------------------------------------------------------------------------------------

    def versioned(self, start: StartInstance) -> StartInstance:
        """The start with the version that the instance keeps."""
        version = start.version
        if version is None:
            version = self.executor.version_of_new(start.name)
        version = version or None
        return start if version == start.version else msgspec.structs.replace(start, version=version)

    def must_wait_for(self, name: str, version: str | None) -> bool:
        """True when an instance of this orchestrator and version has to wait for a host that has code for it."""
        if self.executor.runs(name, version):
            return False
        return self._versions_wait if self._is_of_other_version(name) else self.unknown_wait

    def no_code(self, name: str, version: str | None) -> str:
        """Why an instance waits for another host, or another deployment."""
        if self._is_of_other_version(name):
            cure = "Deploy code for it, or serve the hub with a host that has it"
            return f"{self._not_of_version(name, version)}. {cure}: the instance goes on by itself"
        return f"{not_registered(self.executor, name)}. Deploy a version that registers it: the instance goes on by itself"

    def no_code_failure(self, started: ExecutionStarted) -> FailureDetails:
        """Why an instance fails for which there is no code."""
        name = started.name
        if self._is_of_other_version(name):
            error: UnknownFunctionError = VersionMismatchError(
                f"{self._not_of_version(name, started.version)}. Start it with one of these, or register code for it"
            )
        else:
            error = UnknownFunctionError(
                f"{not_registered(self.executor, name)}. Register it with @app.orchestrator"
            )
        return FailureDetails.of(error)

    def _is_of_other_version(self, name: str) -> bool:
        """Of an orchestrator that has no code for an instance: True when it has some for others."""
        return self.executor.serves("orchestrator", name)

    def _not_of_version(self, name: str, version: str | None) -> str:
        wanted = "without a version" if version is None else f"of version '{version}'"
        return (
            f"Orchestrator '{name}' has no code for an instance {wanted} in this host; it has: "
            f"{self.executor.versions(name)}"
        )

    def _fail(self, resident: Resident, started: ExecutionStarted) -> None:
        """End an instance for which there is no code."""
        self.touch(resident, self.clock.now())
        resident.blocked = None
        commit = self.commit_of(resident)
        commit.decide(ExecutionFailed(self.no_code_failure(started)))
        self.dispatch(resident, commit)
        self.discard_held(resident)


def not_registered(executor: Executor, name: str) -> str:
    """What is wrong with an orchestrator that an executor does not know: the beginning of a message."""
    known = ", ".join(executor.names("orchestrator")) or "none"
    return f"Orchestrator '{name}' is not registered in this host; registered are: {known}"
