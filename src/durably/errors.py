"""Every exception the package raises, one tree, and how a failure travels.

`UsageError`: the call was wrong; the message says what to change. `OperationError`: the call was right, the surroundings
were not; try later. `InvariantError`: our bug; the partition that saw it is reloaded. `TaskFailedError` and its
neighbours carry the failure of user code. `InstanceEvicted` and `NonDeterministicCall` guard the deterministic loop.
"""

from __future__ import annotations

import traceback
from typing import Any

import msgspec

_STACK_CHARS_MAX = 16_384
"""A stack trace longer than this keeps its end: the frames nearest to the error."""

_INNER_DEPTH_MAX = 8
"""Causes beyond this depth are dropped; a chain this long is a retry loop that re-wraps its own error."""


class FailureDetails(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A failure as it is stored in a history and shown to callers.

    Attributes:
        type: The class name of the exception, for example ``"ValueError"``.
        message: ``str(exception)``.
        stack_trace: The formatted traceback of user code, or None.
        inner: The failure that caused this one (``__cause__``, or the context that was not suppressed), or None.
        bases: Qualified names of the exception's class and its base classes, most derived first.
        non_retryable: True when no retry policy may try again.
        retry_after_us: No retry policy tries again sooner than this after the failure; 0: it decides alone.
        properties: What a worker of a Durable Task SDK has added, as the text of a JSON object; or None.
    """

    type: str
    message: str
    stack_trace: str | None = None
    inner: FailureDetails | None = None
    bases: tuple[str, ...] = ()
    non_retryable: bool = False
    retry_after_us: int = 0
    properties: str | None = None

    def is_caused_by(self, error: type[BaseException] | str) -> bool:
        """Tell whether this failure, or one that caused it, is of a type.

        Args:
            error: An exception class (base classes match too) or a class name, qualified or not.
        """
        wanted = error if isinstance(error, str) else _qualified(error)
        failure: FailureDetails | None = self
        while failure is not None:
            if wanted == failure.type or wanted in failure.bases:
                return True
            if any(base.rpartition(".")[2] == wanted for base in failure.bases):
                return True
            failure = failure.inner
        return False

    @classmethod
    def of(cls, error: BaseException) -> FailureDetails:
        """Describe an exception, its causes included."""
        return _describe(error, 0)


def _qualified(error: type[BaseException]) -> str:
    return f"{error.__module__}.{error.__qualname__}"


def _describe(error: BaseException, depth: int) -> FailureDetails:
    inner: FailureDetails | None = None
    if isinstance(error, TaskFailedError):
        inner = error.details
    elif depth < _INNER_DEPTH_MAX:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        inner = _describe(cause, depth + 1) if cause is not None else None
    kind = type(error)
    return FailureDetails(
        type=kind.__name__,
        message=_message(error),
        stack_trace=_stack(error),
        inner=inner,
        bases=tuple(_qualified(base) for base in kind.__mro__ if issubclass(base, BaseException)),
        non_retryable=isinstance(error, NonRetryableError) or (inner is not None and inner.non_retryable),
        retry_after_us=error.retry_after_us if isinstance(error, HttpStatusError) else 0,
    )


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - a user's __str__ may raise; the failure must still travel
        text = f"<the message of {type(error).__name__} could not be read: {type(broken).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _stack(error: BaseException) -> str | None:
    if error.__traceback__ is None:
        return None
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__, chain=False))
    return text[-_STACK_CHARS_MAX:].encode("utf-8", "backslashreplace").decode("utf-8")


class DurablyError(Exception):
    """Root of everything the package raises."""


# --- wrong calls -------------------------------------------------------------------------------------------------


class UsageError(DurablyError):
    """The call cannot work as it stands; the message says what to change."""


class InvalidIdError(UsageError, ValueError):
    """An instance id that the hub cannot hold."""


class InvalidTextError(UsageError, ValueError):
    """A name, reason, version or tag that is no text which can be stored."""


class RegistrationError(UsageError, ValueError):
    """A function that cannot be registered: a bad signature, or a name that is taken."""


class UnknownFunctionError(UsageError, LookupError):
    """No orchestrator or activity of this name is registered in this host."""


class VersionMismatchError(UnknownFunctionError):
    """This host knows the orchestrator, and has no code for instances of this version."""


class PayloadError(UsageError, TypeError):
    """A value that cannot become JSON, or JSON that does not fit the declared type."""


class InstanceAlreadyExistsError(UsageError):
    """The id is taken by an instance that the policy of the start may not replace, or not attach to.

    Attributes:
        instance_id: The id.
        status: Of the instance that is there.
        name: Its orchestrator, when that is why it cannot be attached to; else None.
    """

    def __init__(self, instance_id: str, status: str, name: str | None = None) -> None:
        if name is None:
            text = (
                f"Instance '{instance_id}' already exists and is {status}; expected a free id. "
                "Start with another id, or with on_existing='attach' to follow the one that is there"
            )
        else:
            text = (
                f"Instance '{instance_id}' already exists, is {status} and runs '{name}'; expected one of the orchestrator "
                "that is started, to attach to. Start with another id, or follow the one that is there by its own name"
            )
        super().__init__(text)
        self.instance_id = instance_id
        self.status = status
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        known = (self.instance_id, self.status)
        return type(self), known if self.name is None else (*known, self.name)


class InstanceNotFoundError(UsageError, LookupError):
    """No instance of this id is in the hub."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(
            f"Instance '{instance_id}' is not in this hub; it was never started, or it was purged"
        )
        self.instance_id = instance_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.instance_id,)


class BlobNotFoundError(UsageError, LookupError):
    """There is no such blob, or not of this version any more."""

    def __init__(self, container: str, name: str, version: str | None = None) -> None:
        self.container = container
        self.name = name
        self.version = version
        found = "does not exist" if version is None else "was written anew, or deleted"
        super().__init__(f"Blob '{container}/{name}' {found}: expected one that is there")

    def __reduce__(self) -> Any:
        return type(self), (self.container, self.name, self.version)


class HostNotFoundError(UsageError, LookupError):
    """No live host of this id serves the hub, or none that could be asked."""

    def __init__(self, host_id: str, *, shared: bool = True) -> None:
        how = (
            "it has ended, or has been silent for as long as a lease lasts; see `durably hosts list`"
            if shared
            else "a hub in a file has one host, and nobody to take its work; stop that process to end it"
        )
        super().__init__(f"Host '{host_id}' cannot be asked: {how}")
        self.host_id = host_id
        self.shared = shared

    def __reduce__(self) -> Any:
        return _host_not_found, (self.host_id, self.shared)


def _host_not_found(host_id: str, shared: bool) -> HostNotFoundError:  # noqa: FBT001 - of a pickle
    return HostNotFoundError(host_id, shared=shared)


class InstanceStateError(UsageError):
    """The instance is in a state that refuses the operation."""

    def __init__(self, instance_id: str, status: str, operation: str, expected: str) -> None:
        super().__init__(f"Cannot {operation} instance '{instance_id}': it is {status}, expected {expected}")
        self.instance_id = instance_id
        self.status = status
        self.operation = operation
        self.expected = expected

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.instance_id, self.status, self.operation, self.expected)


class NonDeterministicCall(UsageError):
    """Orchestrator code asked for something that a replay could not repeat; the message names the durable way."""


class InvalidScheduleError(UsageError, ValueError):
    """A schedule that cannot be: its expression, time zone, interval or policy is wrong, or it never comes due."""


class ScheduleNotFoundError(UsageError, LookupError):
    """No schedule of this id is in the hub."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(
            f"Schedule '{schedule_id}' is not in this hub; it was never created, or it was deleted"
        )
        self.schedule_id = schedule_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.schedule_id,)


class ScheduleAlreadyExistsError(UsageError):
    """The hub has a schedule of this id."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(
            f"Schedule '{schedule_id}' already exists; expected a free id. Update it, or delete it first"
        )
        self.schedule_id = schedule_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.schedule_id,)


class LockingRulesViolationError(UsageError):
    """A critical section may not do that: it could wait for itself, or see what it is to be shielded from."""


class NonDeterminismError(UsageError):
    """Code and history of an instance disagree; `diff` shows both sides.

    The instance is blocked, keeps its messages, and goes on by itself after a deployment that agrees with its history.
    """

    def __init__(self, instance_id: str, diff: str) -> None:
        super().__init__(diff)
        self.instance_id = instance_id
        self.diff = diff

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.instance_id, self.diff)


# --- failures of user code ---------------------------------------------------------------------------------------


class TaskFailedError(DurablyError):
    """An activity or a sub-orchestration failed; raised where its result was awaited.

    Attributes:
        details: The failure of the last attempt.
        task_name: Name of the activity or orchestrator, "" when unknown.
        task_id: The sequence number of the call in its execution, -1 when unknown.
    """

    def __init__(self, details: FailureDetails, task_name: str = "", task_id: int = -1) -> None:
        super().__init__(f"Task '{task_name}' (#{task_id}) failed: {details.type}: {details.message}")
        self.details = details
        self.task_name = task_name
        self.task_id = task_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.details, self.task_name, self.task_id)


class TaskTimeoutError(TaskFailedError, TimeoutError):
    """The last attempt of a task did not end within its `timeout`. Also a `TimeoutError`."""


class EntityOperationFailedError(TaskFailedError):
    """An operation of an entity failed, or the entity has no such operation; its state is as it was before.

    Attributes:
        entity_id: The entity, as text.
        operation: The operation.
    """

    def __init__(
        self, details: FailureDetails, entity_id: str = "", operation: str = "", task_id: int = -1
    ) -> None:
        super().__init__(details, f"{entity_id}.{operation}", task_id)
        self.entity_id = entity_id
        self.operation = operation
        self.args = (
            f"Operation '{operation}' of entity '{entity_id}' failed: {details.type}: {details.message}",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.details, self.entity_id, self.operation, self.task_id)


class NonRetryableError(DurablyError):
    """Raise it, or a subclass, in an activity or orchestrator: no retry policy tries again."""


class HttpRefusedError(NonRetryableError):
    """The `HttpPolicy` of the host does not let a request of `call_http` pass, or its answer; the message says why."""


class WorkDiscardedError(NonRetryableError):
    """An operator gave up a parked activity call: `details.type` of the `TaskFailedError` that the orchestrator sees."""


class WorkParkedError(NonRetryableError):
    """An operation of an entity was set aside, since its process died each time it ran. It may be performed later."""


class OrchestrationFailedError(DurablyError):
    """The instance whose result was asked for did not complete.

    Attributes:
        instance_id: The instance.
        status: ``"Failed"``, ``"Canceled"`` or ``"Terminated"``.
        details: Why.
    """

    def __init__(self, instance_id: str, status: str, details: FailureDetails) -> None:
        super().__init__(f"Instance '{instance_id}' ended as {status}: {details.type}: {details.message}")
        self.instance_id = instance_id
        self.status = status
        self.details = details

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.instance_id, self.status, self.details)


class OrchestratorDeadlockError(DurablyError):
    """The orchestrator waits for something that nothing durable will ever complete."""


# --- the surroundings --------------------------------------------------------------------------------------------


class OperationError(DurablyError):
    """The call was right and may be tried again when its surroundings are."""


class ProcessDiedError(OperationError):
    """The process in which an activity ran ended before the activity did; the message names its exit code or signal."""


class FunctionTimeoutError(OperationError, TimeoutError):
    """A function has run for longer than its host lets functions run (`EngineOptions.function_timeout_s`)."""


class HttpRequestError(OperationError):
    """A request of `call_http` got no response: the host is unknown, the connection failed, or what came is no HTTP."""


class HttpStatusError(HttpRequestError):
    """The answer to a request of `call_http` has a status that `retry_status_codes` names.

    Attributes:
        retry_after_us: How long the service wants to be left alone (``Retry-After``), in microseconds; 0: it does not say.
    """

    def __init__(self, message: str = "", retry_after_us: int = 0) -> None:
        super().__init__(message)
        self.retry_after_us = retry_after_us

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.retry_after_us)


class BrokerError(OperationError):
    """A broker, or a store of blobs, cannot be reached or refuses; nothing was lost, and the host tries again."""


class HubNotFoundError(OperationError):
    """The hub does not exist where the URL points."""


class HubVersionError(OperationError):
    """The hub was written by a newer version of durably; or by an older one, and may not be brought up to date from here."""


class HubNotEmptyError(OperationError):
    """A hub was to be imported where there is one; it was left alone."""


class ExportFileError(OperationError):
    """What was to be imported is no export of a hub, or not as it was written: cut off, altered, or of a newer version."""


class HubLockedError(OperationError):
    """Another live host serves this hub."""


class EncryptionKeyError(OperationError):
    """A key of the hub is missing, is another one than it was, or the hub is not encrypted; the message names the key."""


class AccessDeniedError(OperationError):
    """A host, or the server of a hub, lets nobody do this without a credential that opens it."""


class HubClosedError(OperationError):
    """The host is stopping or stopped and takes no more work."""


class HubSilentError(OperationError):
    """The host of the hub is alive, but has not answered in time; what was sent is durable and will be dealt with."""


class StoreUnavailableError(OperationError):
    """The store could not do it now; nothing was changed. The same batch may be sent again."""


class StoreRefusedError(OperationError):
    """The store will never take this data (size, encoding, key); sending it again is useless."""


class StoreFailedError(OperationError):
    """The store failed in a way after which its state in memory must not be trusted; the host stops."""


class NotServedHereError(OperationError):
    """Another host serves the partition of the instance now. Clients never see it: they ask that host through the hub.

    Attributes:
        in_doubt: What was asked for may have been done.
    """

    def __init__(self, message: str, *, in_doubt: bool = False) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt


class LeaseLostError(OperationError):
    """Another owner holds the partition; nothing of the batch was applied."""


class EntityCorruptError(OperationError):
    """The stored row of an entity does not match its checksum."""


class HistoryCorruptError(OperationError):
    """What is stored of an instance does not match its checksums, or cannot be decrypted."""


# --- our own bugs, and control flow ------------------------------------------------------------------------------


class InvariantError(DurablyError):
    """An invariant of the engine is broken. Never expected; the partition that saw it is reloaded from its rows."""

    def __init__(self, rule: str, instance_id: str, what: str) -> None:
        super().__init__(f"Invariant {rule} broken for instance '{instance_id}': {what}")
        self.rule = rule
        self.instance_id = instance_id
        self.what = what

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.rule, self.instance_id, self.what)


class InstanceEvicted(BaseException):
    """The live coroutine of an instance is being taken out of memory; the instance itself goes on.

    A `BaseException`, so that the `except Exception` of user code cannot swallow it. Let it pass.
    """
