"""EngineOptions: defaults, the environment, and values that cannot be."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from durably import EngineOptions, UsageError


def test_an_empty_environment_gives_the_defaults() -> None:
    assert EngineOptions.from_environment({}) == EngineOptions()


NO_NUMBERS = {
    "unknown_functions": "wait",
    "code_version": "7",
    "default_version": "7",
    "version_match_strategy": "strict",
    "version_failure_strategy": "fail",
    "webhook_url": "https://example.com/hook",
    "event_grid_endpoint": "https://example.com/topic",
    "notify_events": "started, blocked",
}


@pytest.mark.parametrize(
    "name",
    [one.name for one in fields(EngineOptions) if one.name not in {*NO_NUMBERS, "encryption_keys"}],
)
def test_every_number_has_a_variable(name: str) -> None:
    options = EngineOptions.from_environment({f"DURABLY_{name.upper()}": "7"})
    assert getattr(options, name) == 7
    assert type(getattr(options, name)) is type(getattr(EngineOptions(), name))


@pytest.mark.parametrize(("name", "value"), NO_NUMBERS.items())
def test_every_other_option_has_a_variable(name: str, value: str) -> None:
    assert getattr(EngineOptions.from_environment({f"DURABLY_{name.upper()}": value}), name) == value


def test_the_call_wins_over_the_environment() -> None:
    environment = {"DURABLY_LEASE_S": "3", "DURABLY_BATCH_BYTES": "nonsense"}
    options = EngineOptions.from_environment(environment, batch_bytes=5)
    assert (options.lease_s, options.batch_bytes) == (3.0, 5)


def test_variables_of_others_are_ignored() -> None:
    assert EngineOptions.from_environment({"DURABLY_HUB": "x", "LEASE_S": "x"}) == EngineOptions()


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLY_MAX_COMMANDS", "12")
    assert EngineOptions.from_environment().max_commands == 12


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MAX_COMMANDS", "many"),
        ("MAX_COMMANDS", "1.5"),
        ("MAX_COMMANDS", ""),
        ("MAX_COMMANDS", "0"),
        ("MAX_COMMANDS", "-1"),
        ("LEASE_S", "soon"),
        ("LEASE_S", "0"),
        ("LEASE_S", "nan"),
        ("DRAIN_TIMEOUT_S", "inf"),
        ("UNKNOWN_FUNCTIONS", "maybe"),
    ],
)
def test_a_variable_that_makes_no_sense_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"(?i){name}"):
        EngineOptions.from_environment({f"DURABLY_{name}": text})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_concurrent_activities", 0),
        ("turns_per_batch", -1),
        ("timer_horizon_s", 0),
        ("batch_bytes", "1000"),
        ("max_commands", True),
        ("inbox_poll_s", None),
        ("commit_retry_s", float("nan")),
        ("drain_timeout_s", float("inf")),
        ("max_commands", 2.5),
        ("drain_timeout_s", -0.5),
        ("unknown_functions", "Fail"),
        ("version_match_strategy", "CurrentOrOlder"),
        ("version_failure_strategy", None),
        ("code_version", 2.0),
        ("default_version", "\ud800"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name):
        EngineOptions(**{name: value})


@pytest.mark.parametrize("name", ["drain_timeout_s", "slow_turn_s"])
def test_some_times_may_be_nought(name: str) -> None:
    assert getattr(EngineOptions(**{name: 0}), name) == 0
