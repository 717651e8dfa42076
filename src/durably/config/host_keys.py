"""The keys of ``host.json``, as a table: what each one is here.

A key sets a variable, as if it were in the environment; or it has no meaning here; or what it says is so anyway; or it is
not supported. Whatever is not in the table is unknown. Keys are compared without case, as Functions does.
"""

from __future__ import annotations

import difflib
import re
from typing import Any, Final, NamedTuple

from durably.config.values import (
    Conversion,
    Section,
    beside,
    choice,
    limit,
    milliseconds,
    span,
    text,
    texts,
    unbounded,
    whole,
)

_HUB_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{2,44}")


class HostKey(NamedTuple):
    """A key, and what it is here.

    Attributes:
        key: The path with dots; a ``*`` at the end stands for anything; the longest one that fits counts.
        variables: What it sets.
        convert: Makes the text of these of its value.
        idle: Why it has no meaning here.
        always: The only value that there is here; others are not supported.
        refused: Why it is not supported.
        names: The value is the name of a setting that has what counts.
    """

    key: str
    variables: tuple[str, ...] = ()
    convert: Conversion = text
    idle: str = ""
    always: Any = None
    refused: str = ""
    names: bool = False

    @property
    def about(self) -> str:
        """What it is here, in words."""
        if self.variables:
            return f"sets {' and '.join(self.variables)}"
        if self.always is not None:
            return f"is {str(self.always).lower()} here, whatever it says"
        return f"not supported: {self.refused}" if self.refused else f"no meaning here: {self.idle}"


def _hub_url(value: Any, section: Section) -> str:
    return f"sqlite:///{_hub_name(value, section)}.db"


def _hub_name(value: Any, section: Section) -> str:
    if type(value) is not str or not _HUB_NAME.fullmatch(value):
        raise ValueError("3 to 45 letters and digits, a letter first; or %NAME% of a setting")
    return value


def _in_flight(value: Any, section: Section) -> str:
    """Messages at once: a batch, and the next one that is fetched when no more than the threshold are left of it."""
    batch = int(whole(beside(section, "batchSize", 16), section))
    threshold = beside(section, "newBatchThreshold", batch // 2)
    return str(batch + (0 if threshold == 0 else int(whole(threshold, section))))


def _levels(value: Any, section: Section) -> str:
    """``logger=level`` for each category, separated by commas."""
    levels: dict[str, str] = {}
    for category, name in section.items():
        first = category.lower().split(".")[0]
        if first in {"host", "durabletask"}:
            levels["durably"] = _LEVEL(name, section)
        elif first not in {"default", "function", "microsoft", "azure", "system", "worker"}:
            levels[category] = _LEVEL(name, section)
    return ",".join(f"{logger}={level}" for logger, level in levels.items())


_LEVEL: Final = choice(
    trace="debug",
    debug="debug",
    information="info",
    warning="warning",
    error="error",
    critical="critical",
    none="critical",
)


def _sets(key: str, variable: str, convert: Conversion) -> HostKey:
    return HostKey(key, (f"DURABLY_{variable}",), convert)


def _idle(key: str, why: str) -> HostKey:
    return HostKey(key, idle=why)


def _refused(key: str, why: str) -> HostKey:
    return HostKey(key, refused=why)


_DURABLE: Final = "extensions.durableTask"
_HTTP: Final = "extensions.http"
_QUEUES: Final = "extensions.queues"
_BLOBS: Final = "extensions.blobs"

_STORE = "where the hub is, and what it can do, says its URL (--hub, DURABLY_HUB)"
_TURNS = "turns take microseconds and come one after the other; those that wait cost memory only"
_MEMORY = "instances stay in memory as long as there is room (DURABLY_MAX_RESIDENT_INSTANCES)"
_ONE_HOST = "the hub sees to it that each thing happens once"
_NO_TRACES = "traces are not there yet"
_NO_TRIGGER = "there is no such trigger"
_INSIGHTS = "logs go to stderr; what collects them decides the rest"

HOST_KEYS: Final = (
    HostKey("version", always="2.0"),
    HostKey("functionTimeout", ("DURABLY_FUNCTION_TIMEOUT_S",), limit),
    # --- orchestrations, activities, entities
    HostKey(f"{_DURABLE}.hubName", ("DURABLY_HUB",), _hub_url),
    _sets(f"{_DURABLE}.defaultVersion", "DEFAULT_VERSION", text),
    _sets(
        f"{_DURABLE}.versionMatchStrategy",
        "VERSION_MATCH_STRATEGY",
        choice(none="none", strict="strict", currentOrOlder="current_or_older"),
    ),
    _sets(
        f"{_DURABLE}.versionFailureStrategy",
        "VERSION_FAILURE_STRATEGY",
        choice(reject="reject", fail="fail"),
    ),
    _sets(f"{_DURABLE}.maxConcurrentActivityFunctions", "MAX_CONCURRENT_ACTIVITIES", whole),
    _idle(f"{_DURABLE}.maxConcurrentOrchestratorFunctions", _TURNS),
    _idle(f"{_DURABLE}.maxConcurrentEntityFunctions", _TURNS),
    _sets(f"{_DURABLE}.maxEntityOperationBatchSize", "ENTITY_OPERATIONS_PER_BATCH", whole),
    _sets(f"{_DURABLE}.maxOrchestrationActions", "MAX_ACTIONS", whole),
    _sets(
        f"{_DURABLE}.overridableExistingInstanceStates",
        "HTTP_REPLACE_RUNNING",
        choice(nonRunningStates="false", anyState="true"),
    ),
    _idle(f"{_DURABLE}.extendedSessionsEnabled", _MEMORY),
    _idle(f"{_DURABLE}.extendedSessionIdleTimeoutInSeconds", _MEMORY),
    _idle(f"{_DURABLE}.entityMessageReorderWindowInMinutes", "messages come once and in order without it"),
    HostKey(f"{_DURABLE}.rollbackEntityOperationsOnExceptions", always=True),
    HostKey(f"{_DURABLE}.throwStatusExceptionsOnRaiseEvent", always=True),
    HostKey(f"{_DURABLE}.storeInputsInOrchestrationHistory", always=True),
    HostKey(f"{_DURABLE}.useGracefulShutdown", always=True),
    _idle(f"{_DURABLE}.useAppLease", _ONE_HOST),
    _sets(
        f"{_DURABLE}.httpSettings.defaultAsyncRequestSleepTimeMilliseconds",
        "HTTP_POLL_INTERVAL_S",
        milliseconds,
    ),
    _sets(f"{_DURABLE}.notifications.eventGrid.topicEndpoint", "EVENT_GRID_ENDPOINT", text),
    HostKey(f"{_DURABLE}.notifications.eventGrid.keySettingName", ("DURABLY_EVENT_GRID_KEY",), names=True),
    _sets(
        f"{_DURABLE}.notifications.eventGrid.publishEventTypes",
        "NOTIFY_EVENTS",
        texts("Started", "Completed", "Failed", "Terminated"),
    ),
    _idle(f"{_DURABLE}.notifications.eventGrid.*", "what is told is told again for a day"),
    _refused(f"{_DURABLE}.tracing.*", _NO_TRACES),
    _refused(f"{_DURABLE}.traceInputsAndOutputs", _NO_TRACES),
    _refused(f"{_DURABLE}.traceReplayEvents", _NO_TRACES),
    _idle(f"{_DURABLE}.storageProvider.*", _STORE),
    # --- HTTP
    _sets(f"{_HTTP}.routePrefix", "HTTP_ROUTE_PREFIX", text),
    _sets(f"{_HTTP}.maxOutstandingRequests", "HTTP_MAX_OUTSTANDING_REQUESTS", whole),
    _sets(f"{_HTTP}.maxConcurrentRequests", "HTTP_MAX_CONCURRENT_REQUESTS", unbounded),
    HostKey(f"{_HTTP}.dynamicThrottlesEnabled", always=False),
    _refused(f"{_HTTP}.hsts.*", "a proxy in front of the host adds headers"),
    _refused(f"{_HTTP}.customHeaders.*", "a proxy in front of the host adds headers"),
    # --- other triggers
    _sets(f"{_QUEUES}.maxDequeueCount", "QUEUE_MAX_DEQUEUE_COUNT", whole),
    _sets(f"{_QUEUES}.visibilityTimeout", "QUEUE_VISIBILITY_TIMEOUT_S", span),
    _sets(f"{_QUEUES}.batchSize", "QUEUE_MAX_CONCURRENT", _in_flight),
    _sets(f"{_QUEUES}.newBatchThreshold", "QUEUE_MAX_CONCURRENT", _in_flight),
    _idle(f"{_QUEUES}.maxPollingInterval", "queues of the hub are not polled"),
    _idle(f"{_QUEUES}.messageEncoding", "messages of the hub's queues are JSON"),
    _sets(f"{_BLOBS}.maxDegreeOfParallelism", "BLOB_MAX_CONCURRENT", whole),
    _sets(f"{_BLOBS}.poisonBlobThreshold", "BLOB_MAX_TRIES", whole),
    *(
        _refused(f"extensions.{name}.*", _NO_TRIGGER)
        for name in [
            "cosmosDB",
            "eventHubs",
            "eventGrid",
            "kafka",
            "mySql",
            "openAI",
            "rabbitMQ",
            "redis",
            "sendGrid",
            "serviceBus",
            "signalR",
            "sql",
            "tables",
            "warmup",
        ]
    ),
    # --- the host of Functions
    _sets("logging.logLevel.default", "LOG_LEVEL", _LEVEL),
    _refused("logging.logLevel.Function*", "give the name of a logger of Python instead"),
    *(
        _idle(f"logging.logLevel.{name}*", "it is about code in .NET")
        for name in ("Microsoft", "Azure", "System", "Worker")
    ),
    _sets("logging.logLevel.*", "LOG_LEVELS", _levels),
    _idle("logging.applicationInsights.*", _INSIGHTS),
    _idle("logging.console.*", _INSIGHTS),
    _idle("logging.fileLoggingMode", _INSIGHTS),
    _idle("telemetryMode", _INSIGHTS),
    _idle("aggregator.*", _INSIGHTS),
    _idle("healthMonitor.*", "it is about machines of Azure"),
    _idle("extensionBundle.*", "extensions of .NET have no part in it"),
    _idle("managedDependency.*", "it is about PowerShell"),
    _idle("concurrency.*", "limits stay as they are set"),
    _idle("singleton.*", _ONE_HOST),
    _idle("watchDirectories", "durably run --dev watches the folders of all code that the app imports"),
    _idle("watchFiles", "durably run --dev watches Python files, host.json and local.settings.json"),
    _refused("functions", "all functions of the app are served"),
    _refused("retry.*", "a call says how it is tried again: retry=RetryPolicy(...)"),
    _refused("customHandler.*", "functions are written in Python"),
    _refused("sendGrid.*", _NO_TRIGGER),
)
"""In the order in which people read it."""


_EXACT: Final = {one.key.lower(): one for one in HOST_KEYS if not one.key.endswith("*")}
_BELOW: Final = sorted(
    ((one.key[:-1].lower(), one) for one in HOST_KEYS if one.key.endswith("*")),
    key=lambda pair: -len(pair[0]),
)


def host_key(key: str) -> HostKey | None:
    """What a key is here, or None: it is unknown."""
    lower = key.lower()
    found = _EXACT.get(lower)
    if found is not None:
        return found
    for prefix, one in _BELOW:
        if lower.startswith(prefix) or (prefix.endswith(".") and lower == prefix[:-1]):
            return one
    return None


def alike(key: str) -> str | None:
    """A key that may have been meant, or None."""
    known = {one.key.removesuffix(".*").lower(): one.key.removesuffix(".*") for one in HOST_KEYS}
    close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.75)
    if close:
        return known[close[0]]
    last = key.lower().rpartition(".")[2]  # in the wrong place
    return next((name for lower, name in known.items() if lower.rpartition(".")[2] == last), None)
