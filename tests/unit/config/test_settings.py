"""Layers of settings: what counts, where it was set, and what is said of the rest."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from durably import RegistrationError, Settings, UsageError
from durably.cli.config.catalogue import known_variables
from durably.config.host_keys import HOST_KEYS, host_key
from durably.config.names import filled, setting
from durably.config.redaction import shown


class Files:
    """A folder with the files of an app."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def host(self, **keys: Any) -> Files:
        (self.folder / "host.json").write_text(json.dumps(keys, indent=1))
        return self

    def durable(self, **keys: Any) -> Files:
        return self.host(extensions={"durableTask": keys})

    def local(self, **values: Any) -> Files:
        (self.folder / "local.settings.json").write_text(json.dumps({"IsEncrypted": False, "Values": values}))
        return self

    def read(self, **environment: str) -> Settings:
        return Settings.read(self.folder, environment)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def texts(settings: Settings) -> list[str]:
    return [f"{problem.level}: {problem.text}" for problem in settings.problems]


# --- layers ----------------------------------------------------------------------------------------------------------

VARIABLE = "DURABLY_MAX_ACTIONS"
OVERRIDE = "AzureFunctionsJobHost__Extensions__durabletask__maxOrchestrationActions"


def test_each_layer_goes_before_those_below_it(files: Files) -> None:
    files.durable(maxOrchestrationActions=1)
    assert (files.read()[VARIABLE], files.read().origin(VARIABLE)) == (
        "1",
        "host.json:4 extensions.durableTask.maxOrchestrationActions",
    )
    files.local(**{OVERRIDE: "2"})
    assert (files.read()[VARIABLE], files.read().origin(VARIABLE)) == (
        "2",
        f"local.settings.json:1 {OVERRIDE}",
    )
    files.local(**{OVERRIDE: "2", VARIABLE: 3})
    assert (files.read()[VARIABLE], files.read().origin(VARIABLE)) == ("3", "local.settings.json:1")
    above = files.read(**{OVERRIDE: "4"})
    assert (above[VARIABLE], above.origin(VARIABLE)) == ("4", f"environment {OVERRIDE}")
    top = files.read(**{OVERRIDE: "4", VARIABLE: "5"})
    assert (top[VARIABLE], top.origin(VARIABLE), top.origin("OTHER")) == ("5", "environment", None)
    assert texts(top) == []


def test_without_files_there_is_the_environment(files: Files) -> None:
    assert dict(files.read(A="1")) == {"A": "1"}
    assert files.read().problems == []


def test_local_settings_add_to_the_environment_and_never_replace_it(files: Files) -> None:
    files.local(ORDERS="orders", AzureWebJobsStorage="UseDevelopmentStorage=true", COUNT=3, FLAG=True)
    found = files.read(ORDERS="of the environment")
    assert found["ORDERS"] == "of the environment"
    assert found.exports == {
        "AzureWebJobsStorage": "UseDevelopmentStorage=true",
        "COUNT": "3",
        "FLAG": "true",
    }
    assert texts(found) == []


def test_a_key_with_a_colon_and_an_index_of_windows_is_the_same_key(files: Files) -> None:
    assert (
        files.read(**{"AzureFunctionsJobHost:extensions:durableTask:maxOrchestrationActions": "7"})[VARIABLE]
        == "7"
    )


def test_load_raises_what_is_wrong_and_logs_the_rest(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    files.durable(tracing={"version": "V2"})
    with caplog.at_level(logging.WARNING, "durably.config"):
        Settings.load(files.folder, {})
    assert [record.getMessage() for record in caplog.records] == [
        "host.json:5: extensions.durableTask.tracing.version is not supported: traces are not there yet"
    ]
    files.durable(maxOrchestrationActions="many")
    with pytest.raises(
        UsageError, match="maxOrchestrationActions is 'many': expected a whole number above 0"
    ):
        Settings.load(files.folder, {})


# --- host.json -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "variable", "text"),
    [
        ("functionTimeout", "00:05:00", "DURABLY_FUNCTION_TIMEOUT_S", "300"),
        ("functionTimeout", "1.00:00:00.5", "DURABLY_FUNCTION_TIMEOUT_S", "86400.5"),
        ("functionTimeout", -1, "DURABLY_FUNCTION_TIMEOUT_S", "0"),
        ("extensions.durableTask.hubName", "Shop1", "DURABLY_HUB", "sqlite:///Shop1.db"),
        ("extensions.durableTask.hubName", "%SITE%Hub", "DURABLY_HUB", "sqlite:///ShopHub.db"),
        ("extensions.durableTask.defaultVersion", "1.2", "DURABLY_DEFAULT_VERSION", "1.2"),
        (
            "extensions.durableTask.versionMatchStrategy",
            "CurrentOrOlder",
            "DURABLY_VERSION_MATCH_STRATEGY",
            "current_or_older",
        ),
        ("extensions.durableTask.versionFailureStrategy", "Fail", "DURABLY_VERSION_FAILURE_STRATEGY", "fail"),
        (
            "extensions.durableTask.maxConcurrentActivityFunctions",
            7,
            "DURABLY_MAX_CONCURRENT_ACTIVITIES",
            "7",
        ),
        ("extensions.durableTask.maxEntityOperationBatchSize", 1, "DURABLY_ENTITY_OPERATIONS_PER_BATCH", "1"),
        (
            "extensions.durableTask.httpSettings.defaultAsyncRequestSleepTimeMilliseconds",
            1500,
            "DURABLY_HTTP_POLL_INTERVAL_S",
            "1.5",
        ),
        (
            "extensions.durableTask.overridableExistingInstanceStates",
            "AnyState",
            "DURABLY_HTTP_REPLACE_RUNNING",
            "true",
        ),
        (
            "extensions.durableTask.notifications.eventGrid.publishEventTypes",
            ["Started", "Failed"],
            "DURABLY_NOTIFY_EVENTS",
            "started,failed",
        ),
        (
            "extensions.durableTask.notifications.eventGrid.keySettingName",
            "TOPIC_KEY",
            "DURABLY_EVENT_GRID_KEY",
            "k3y",
        ),
        (
            "extensions.durableTask.notifications.eventGrid.topicEndpoint",
            "%TOPIC%",
            "DURABLY_EVENT_GRID_ENDPOINT",
            "https://x/%C3%A9",
        ),
        ("extensions.http.routePrefix", "", "DURABLY_HTTP_ROUTE_PREFIX", ""),
        ("extensions.http.maxOutstandingRequests", 3, "DURABLY_HTTP_MAX_OUTSTANDING_REQUESTS", "3"),
        ("extensions.http.maxConcurrentRequests", -1, "DURABLY_HTTP_MAX_CONCURRENT_REQUESTS", "0"),
        ("extensions.queues.maxDequeueCount", 2, "DURABLY_QUEUE_MAX_DEQUEUE_COUNT", "2"),
        ("extensions.queues.visibilityTimeout", "00:00:30", "DURABLY_QUEUE_VISIBILITY_TIMEOUT_S", "30"),
        ("extensions.queues.batchSize", 16, "DURABLY_QUEUE_MAX_CONCURRENT", "24"),
        ("extensions.blobs.poisonBlobThreshold", 3, "DURABLY_BLOB_MAX_TRIES", "3"),
        ("extensions.blobs.maxDegreeOfParallelism", 4, "DURABLY_BLOB_MAX_CONCURRENT", "4"),
        ("extensions.queues.newBatchThreshold", 0, "DURABLY_QUEUE_MAX_CONCURRENT", "16"),
        ("logging.logLevel.default", "Information", "DURABLY_LOG_LEVEL", "info"),
    ],
)
def test_keys_that_apply_set_a_variable(files: Files, key: str, value: Any, variable: str, text: str) -> None:
    nested: Any = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    found = files.host(**nested).read(SITE="Shop", TOPIC_KEY="k3y", TOPIC="https://x/%C3%A9")
    assert texts(found) == []
    assert found[variable] == text
    assert str(found.origin(variable)).endswith(key)


def test_levels_of_logs_by_category(files: Files) -> None:
    levels = {"Host.Triggers.DurableTask": "Warning", "shop.orders": "Trace", "Microsoft.Azure": "Error"}
    found = files.host(logging={"logLevel": levels}).read()
    assert found["DURABLY_LOG_LEVELS"] == "durably=warning,shop.orders=debug"
    assert texts(found) == []


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"functionTimeout": "5 minutes"}, "expected a span of time such as 00:05:00"),
        ({"functionTimeout": "00:00:00"}, "expected a span of time such as 00:05:00, or -1 for no limit"),
        ({"extensions": {"durableTask": {"hubName": "x"}}}, "expected 3 to 45 letters and digits"),
        ({"extensions": {"durableTask": {"hubName": "%GONE%"}}}, "needs the setting GONE, which is not set"),
        ({"extensions": {"durableTask": {"maxOrchestrationActions": 0}}}, "expected a whole number above 0"),
        (
            {"extensions": {"durableTask": {"maxOrchestrationActions": True}}},
            "expected a whole number above 0",
        ),
        (
            {"extensions": {"durableTask": {"versionMatchStrategy": "Newest"}}},
            "expected 'none' or 'strict' or 'currentOrOlder'",
        ),
        ({"logging": {"logLevel": {"default": "loud"}}}, "is 'loud': expected 'trace' or 'debug'"),
    ],
)
def test_a_value_that_is_none_stops_the_start(files: Files, keys: Any, text: str) -> None:
    found = files.host(**keys).read()
    assert text in texts(found)[0]
    with pytest.raises(UsageError):
        found.check()


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            {"extensions": {"durableTask": {"maxConcurentActivityFunctions": 1}}},
            "is unknown: did you mean extensions.durableTask.maxConcurrentActivityFunctions?",
        ),
        ({"maxDequeueCount": 1}, "is unknown: did you mean extensions.queues.maxDequeueCount?"),
        ({"colour": "red"}, "host.json:3: colour is unknown, and ignored"),
        ({"extensions": {"serviceBus": {"prefetchCount": 1}}}, "is not supported: there is no such trigger"),
        ({"version": "1.0"}, "is '1.0', which is not supported: it is 2.0 here"),
        (
            {"extensions": {"durableTask": {"rollbackEntityOperationsOnExceptions": False}}},
            "is False, which is not supported: it is true here",
        ),
        ({"logging": {"logLevel": {"Function.hello": "Debug"}}}, "give the name of a logger of Python"),
    ],
)
def test_what_is_unknown_or_not_supported_is_named_and_the_rest_counts(
    files: Files, keys: Any, text: str
) -> None:
    found = files.host(functionTimeout="00:01:00", **keys).read()
    (problem,) = found.problems
    assert problem.level == "warning"
    assert text in problem.text
    assert found["DURABLY_FUNCTION_TIMEOUT_S"] == "60"
    found.check()


def test_what_has_no_meaning_here_is_accepted(files: Files) -> None:
    found = files.host(
        version="2.0",
        extensionBundle={"id": "Microsoft.Azure.Functions.ExtensionBundle", "version": "[4.*, 5.0.0)"},
        extensions={"durableTask": {"storageProvider": {"type": "mssql"}, "useGracefulShutdown": True}},
        logging={"applicationInsights": {"samplingSettings": {"isEnabled": True}}},
        singleton={},
    ).read()
    assert texts(found) == []
    assert [name for name in found if name.startswith("DURABLY_")] == []


def test_the_table_names_each_key_once_and_says_what_becomes_of_it() -> None:
    keys = [one.key.lower() for one in HOST_KEYS]
    assert len(keys) == len(set(keys))
    for one in HOST_KEYS:
        says = [bool(one.variables), one.always is not None, bool(one.idle), bool(one.refused)]
        assert says.count(True) == 1, one
        assert one.about
        assert host_key(one.key.removesuffix(".*").upper()) is not None


# --- local.settings.json ---------------------------------------------------------------------------------------------


def test_what_is_special_in_local_settings(files: Files) -> None:
    path = files.folder / "local.settings.json"
    path.write_text('{"IsEncrypted": true}')
    assert texts(files.read()) == [
        "error: local.settings.json:1: it is encrypted; decrypt it with 'func settings decrypt'"
    ]
    path.write_text(
        '{"Values": {"A": null},\n"Host": {"LocalHttpPort": 8080, "CORS": "*"},\n"ConnectionStrings": {"x": "y"},\n"Valus": {}}'
    )
    found = files.read()
    assert found["DURABLY_HTTP_PORT"] == "8080"
    assert texts(found) == [
        "error: local.settings.json:1: A is no text: expected one in quotes",
        "warning: local.settings.json:2: Host.CORS is not supported: a proxy in front of the host adds headers",
        "warning: local.settings.json:3: ConnectionStrings.x is not supported: put it under Values",
        "warning: local.settings.json:4: Valus is unknown: expected IsEncrypted, Values or Host.LocalHttpPort",
    ]
    path.write_text("{")
    assert "line 1: expected a key in quotes, the file ends" in texts(files.read())[0]


# --- names and secrets -----------------------------------------------------------------------------------------------


def test_in_a_url_two_hexadecimal_digits_are_a_letter() -> None:
    settings = {"DB_SECRET": "s3cret", "C3": "set"}
    url = "postgresql://ann:%E9%A9%DB_SECRET%@host/shop"
    assert filled(url, "Hub", settings) == "postgresql://ann:%E9%A9s3cret@host/shop"
    assert filled("postgresql://%C3%@host/shop", "Hub", settings) == "postgresql://set@host/shop"
    with pytest.raises(RegistrationError, match="the setting E9"):
        filled("%E9%", "Queue", settings)


def test_names_of_settings_in_texts() -> None:
    settings = {"A": "x", "B_1": "y"}
    assert filled("%A%-%B_1%/%20", "T", settings) == "x-y/%20"
    assert setting("A", "T", settings) == "x"
    with pytest.raises(RegistrationError, match="T needs the setting C, which is not set"):
        filled("%C%", "T", settings)


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("DURABLY_ENCRYPTION_KEYS", "k1=AAAA", "***"),
        ("DURABLY_ENCRYPTION_KEYS", "file:/run/keys", "file:/run/keys"),
        ("DURABLY_WEBHOOK_SECRET", "whsec_x", "***"),
        ("DURABLY_EVENT_GRID_KEY", "x", "***"),
        ("DURABLY_HUB", "postgresql://me:pass@db/shop?hub=a&password=x", "postgresql://***@db/shop?***"),
        ("DURABLY_HUB", "postgresql://me:pa/ss@db/shop", "postgresql://***@db/shop"),
        ("DURABLY_HUB", "sqlite:///hub.db", "sqlite:///hub.db"),
        ("DURABLY_WEBHOOK_URL", "https://hooks.example/services/T0/B0/s3cret", "https://hooks.example/***"),
        ("DURABLY_BLOBS", "file:///data/blobs", "file:///data/blobs"),
        ("DURABLY_BLOBS", "s3://bucket?secret_access_key=x", "s3://bucket?***"),
        ("DURABLY_BLOBS", "AccountKey=x;BlobEndpoint=https://x", "***"),
        ("DURABLY_MAX_ACTIONS", "5", "5"),
        ("AzureWebJobsStorage", "AccountKey=x", "***"),
    ],
)
def test_secrets_are_not_shown(variable: str, value: str, text: str) -> None:
    assert shown(variable, value) == text


def test_of_all_options_none_that_holds_a_secret_is_shown() -> None:
    alike = re.compile("PASS|SECRET|KEY|TOKEN")
    paths = {"DURABLY_HTTP_KEY_FILE", "DURABLY_HTTP_TLS_KEY"}  # files, not what is in them
    found = {one.variable for one in known_variables() if alike.search(one.variable)} - paths
    assert {"DURABLY_HTTP_TLS_PASSPHRASE", "DURABLY_ENCRYPTION_KEYS", "DURABLY_EVENT_GRID_KEY"} <= found
    values = {one.variable: shown(one.variable, "s3cret", secret=one.secret) for one in known_variables()}
    assert {name for name in found if values[name] != "***"} == set()
