"""The public names are a contract: a change here is a change for everybody."""

import inspect
import subprocess
import sys

import durably
from durably import testing

NAMES = [
    "AccessDeniedError",
    "ActivityContext",
    "App",
    "AppHost",
    "Blob",
    "BlobContainer",
    "BlobEntry",
    "BlobNotFoundError",
    "BlobOutput",
    "BrokerError",
    "BulkResult",
    "Client",
    "Converter",
    "DurableClient",
    "DurableHttpResponse",
    "DurablyError",
    "EncryptionKeyError",
    "EncryptionKeys",
    "EngineOptions",
    "EntityContext",
    "EntityCorruptError",
    "EntityId",
    "EntityInfo",
    "EntityOperationFailedError",
    "EntityPage",
    "FailureDetails",
    "FunctionTimeoutError",
    "Handle",
    "HistoryCorruptError",
    "HistoryEntry",
    "HostNotFoundError",
    "HostStatus",
    "HttpOptions",
    "HttpPolicy",
    "HttpRefusedError",
    "HttpRequestError",
    "HttpStatusError",
    "HubClosedError",
    "HubLoad",
    "HubLockedError",
    "HubNotFoundError",
    "HubSilentError",
    "HubVersionError",
    "InstanceAlreadyExistsError",
    "InstanceEvicted",
    "InstanceNotFoundError",
    "InstancePage",
    "InstanceStateError",
    "InstanceStatus",
    "InvalidIdError",
    "InvalidScheduleError",
    "InvalidTextError",
    "InvariantError",
    "JsonConverter",
    "LeaseLostError",
    "LockingRulesViolationError",
    "NonDeterminismError",
    "NonDeterministicCall",
    "NonRetryableError",
    "OperationError",
    "OrchestrationContext",
    "OrchestrationFailedError",
    "OrchestratorDeadlockError",
    "Out",
    "ParkedItem",
    "ParkedPage",
    "PayloadError",
    "ProcessDiedError",
    "QueueMessage",
    "QueueOutput",
    "RegistrationError",
    "RetryPolicy",
    "RuntimeStatus",
    "ScheduleAlreadyExistsError",
    "ScheduleDescription",
    "ScheduleNotFoundError",
    "SchedulePage",
    "ScheduleRun",
    "Schedules",
    "Settings",
    "StoreFailedError",
    "StoreRefusedError",
    "StoreUnavailableError",
    "TaskFailedError",
    "TaskTimeoutError",
    "TimerRequest",
    "TokenSource",
    "UnknownFunctionError",
    "UsageError",
    "VersionMismatchError",
    "client_of",
]

TESTING_NAMES = [
    "DurableEnvironment",
    "EntityMock",
    "Fault",
    "History",
    "HttpMock",
    "MockActivityContext",
    "MockOrchestrationContext",
    "MockedRequest",
    "RecordedCall",
    "RecordedOperation",
    "Stub",
    "StuckError",
    "VirtualClock",
    "replay",
]

_WHEN = [
    "cron",
    "interval",
    "time_zone",
    "start_at",
    "end_at",
    "jitter",
    "overlap",
    "catch_up",
    "catch_up_window",
]

PARAMETERS = {
    durably.App.activity: ["fn", "name", "executor", "max_concurrent", "version"],
    durably.App.orchestrator: ["fn", "name", "version"],
    durably.App.host: ["hub", "options", "clock", "random", "settings"],
    durably.App: ["converter", "http"],
    durably.App.include: ["other"],
    durably.App.token_source: ["name"],
    durably.App.schedule: ["schedule_id", "fn", "input", *_WHEN, "version", "tags", "entity", "operation"],
    durably.Schedules.create: [
        "schedule_id",
        "fn",
        "input",
        *_WHEN,
        "version",
        "tags",
        "entity",
        "operation",
        "paused",
        "note",
    ],
    durably.Schedules.update: [
        "schedule_id",
        "fn",
        "input",
        *_WHEN,
        "version",
        "tags",
        "entity",
        "operation",
    ],
    durably.Schedules.pause: ["schedule_id", "note"],
    durably.Schedules.resume: ["schedule_id", "note"],
    durably.Schedules.trigger: ["schedule_id", "overlap"],
    durably.Schedules.backfill: ["schedule_id", "start", "end", "at_once"],
    durably.Schedules.delete: ["schedule_id"],
    durably.Schedules.describe: ["schedule_id"],
    durably.Schedules.list: ["prefix", "page_size", "continuation_token"],
    durably.Client.start: ["fn", "input", "instance_id", "start_at", "version", "tags", "on_existing"],
    durably.Client.get_status: ["instance_id", "fetch_payloads"],
    durably.Client.wait_for_completion: ["instance_id", "timeout"],
    durably.Client.raise_event: ["instance_id", "name", "data"],
    durably.Client.cancel: ["instance_id", "reason"],
    durably.Client.terminate: ["instance_id", "reason", "recursive"],
    durably.Client.suspend: ["instance_id", "reason"],
    durably.Client.resume: ["instance_id", "reason"],
    durably.Client.rewind: ["instance_id", "reason"],
    durably.Client.restart: ["instance_id", "new_instance_id", "reason"],
    durably.Client.purge: ["instance_id", "recursive"],
    durably.Client.query_instances: [
        "name",
        "runtime_status",
        "created_from",
        "created_to",
        "updated_from",
        "updated_to",
        "instance_id_prefix",
        "tags",
        "stuck",
        "page_size",
        "continuation_token",
        "parent_instance_id",
        "fetch_payloads",
    ],
    durably.Client: ["hub", "app", "converter", "encryption_keys"],
    durably.Client.bulk: ["operation", "reason", "dry_run", "max_in_flight", "share", "progress", "filters"],
    durably.Client.purge_instances: ["dry_run", "progress", "filters"],
    durably.Client.get_history: ["instance_id"],
    durably.Client.query_parked: ["kind", "instance_id_prefix", "page_size", "continuation_token"],
    durably.Client.redrive: ["item_id"],
    durably.Client.discard: ["item_id"],
    durably.Client.redrive_all: ["kind", "instance_id_prefix"],
    durably.Client.discard_all: ["kind", "instance_id_prefix"],
    durably.Handle.result: ["timeout"],
    durably.Handle.terminate: ["reason", "recursive", "compensate"],
    durably.Handle.rewind: ["reason"],
    durably.Handle.restart: ["new_instance_id", "reason"],
    durably.Handle.purge: ["recursive"],
    durably.OrchestrationContext.call_activity: ["fn", "input", "retry", "timeout", "returns", "tags"],
    durably.OrchestrationContext.call_sub_orchestrator: [
        "fn",
        "input",
        "instance_id",
        "retry",
        "version",
        "returns",
        "tags",
    ],
    durably.OrchestrationContext.start_orchestration: [
        "fn",
        "input",
        "instance_id",
        "version",
        "tags",
        "start_at",
    ],
    durably.OrchestrationContext.wait_for_external_event: ["name", "type", "timeout", "default"],
    durably.OrchestrationContext.send_event: ["instance_id", "name", "data"],
    durably.OrchestrationContext.create_timer: ["at_or_delay"],
    durably.OrchestrationContext.call_http: [
        "method",
        "uri",
        "content",
        "headers",
        "token_source",
        "retry",
        "retry_status_codes",
        "timeout",
        "asynchronous_pattern_enabled",
        "poll_interval",
    ],
    durably.OrchestrationContext.when_all: ["tasks"],
    durably.OrchestrationContext.when_any: ["tasks"],
    durably.OrchestrationContext.as_completed: ["tasks"],
    durably.OrchestrationContext.map: ["fn", "items", "max_in_flight"],
    durably.OrchestrationContext.continue_as_new: ["input", "preserve_events"],
    durably.OrchestrationContext.set_custom_status: ["value"],
    testing.DurableEnvironment: [
        "app",
        "hub",
        "seed",
        "start",
        "auto_skip",
        "check_replay",
        "stuck_after_s",
        "options",
    ],
    testing.DurableEnvironment.run: ["fn", "input", "timeout"],
    testing.DurableEnvironment.start: ["fn", "input"],
    testing.DurableEnvironment.advance: ["delta"],
    testing.DurableEnvironment.history: ["instance_id"],
    testing.DurableEnvironment.restart: ["app"],
    testing.DurableEnvironment.mock_activity: ["fn", "returns", "raises", "runs", "times", "delay"],
    testing.DurableEnvironment.calls: ["fn"],
    testing.DurableEnvironment.kill_after: ["step", "when", "times"],
    testing.DurableEnvironment.duplicate: ["fn", "operation", "times"],
    testing.DurableEnvironment.mock_entity: ["entity", "operation", "returns", "raises", "runs", "times"],
    testing.DurableEnvironment.mock_http: [
        "url",
        "method",
        "status",
        "json",
        "content",
        "headers",
        "raises",
        "times",
        "delay",
    ],
    testing.DurableEnvironment.operations: ["entity", "operation"],
    testing.DurableEnvironment.delay: ["fn", "by", "times"],
    testing.DurableEnvironment.reorder: ["fn", "within"],
    testing.MockOrchestrationContext.run: ["fn", "input"],
    testing.MockOrchestrationContext.raise_event: ["name", "data", "after"],
    testing.replay: ["app", "history"],
}


def test_the_public_names_are_frozen() -> None:
    assert durably.__all__ == NAMES
    assert dir(durably) == NAMES
    assert all(getattr(durably, name).__name__ == name for name in NAMES)


def test_the_public_names_of_the_test_kit_are_frozen() -> None:
    assert testing.__all__ == dir(testing) == TESTING_NAMES
    assert all(getattr(testing, name).__name__ == name for name in TESTING_NAMES)
    assert all((getattr(testing, name).__doc__ or "").strip() for name in TESTING_NAMES)


def test_the_parameters_of_public_methods_are_frozen() -> None:
    for method, names in PARAMETERS.items():
        found = [name for name in inspect.signature(method).parameters if name != "self"]
        # What comes later may add keyword arguments at the end, and nothing else.
        assert found[: len(names)] == names, method.__qualname__


def test_verbs_of_a_handle_take_what_those_of_a_client_take() -> None:
    verbs = [
        name for name in vars(durably.Handle) if not name.startswith("_") and hasattr(durably.Client, name)
    ]
    assert len(verbs) == 10
    for verb in verbs:
        of_handle, of_client = (
            list(inspect.signature(getattr(owner, verb)).parameters)
            for owner in (durably.Handle, durably.Client)
        )
        assert of_handle[1:] == of_client[2:], verb


def test_every_public_name_is_documented() -> None:
    undocumented = [name for name in NAMES if not (getattr(durably, name).__doc__ or "").strip()]
    assert undocumented == []


def test_all_errors_form_one_tree() -> None:
    errors = [getattr(durably, name) for name in NAMES if isinstance(getattr(durably, name), type)]
    raised = [error for error in errors if issubclass(error, Exception)]
    assert len(raised) > 20
    assert all(issubclass(error, durably.DurablyError) for error in raised)
    assert not issubclass(durably.InstanceEvicted, Exception)


def test_importing_the_package_loads_nothing_else_of_it() -> None:
    code = "import durably, sys; print([name for name in sys.modules if name.startswith('durably.')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
