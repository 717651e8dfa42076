"""What senders are told, as bytes and back."""

from __future__ import annotations

import msgspec
import pytest

from durably.core.verdicts import ACCEPTED, decode_verdict, encode_verdict
from durably.errors import (
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceStateError,
    InvalidIdError,
    StoreRefusedError,
    UsageError,
)


def test_what_was_accepted_is_empty():
    assert encode_verdict(None) == ACCEPTED == b""
    assert decode_verdict(ACCEPTED) is None


@pytest.mark.parametrize(
    "error",
    [
        InstanceNotFoundError("a"),
        InstanceAlreadyExistsError("a", "Running"),
        InstanceStateError("a", "Failed", "suspend", "one that runs"),
        StoreRefusedError("too large"),
        UsageError(""),
    ],
)
def test_an_error_arrives_as_it_was(error: Exception):
    told = decode_verdict(encode_verdict(error))
    assert type(told) is type(error)
    assert str(told) == str(error)
    assert vars(told) == vars(error)


@pytest.mark.parametrize("error", [InvalidIdError("bad"), RuntimeError("a bug")])
def test_an_error_that_others_may_not_know_arrives_with_its_name(error: Exception):
    told = decode_verdict(encode_verdict(error))
    assert type(told) is UsageError
    assert str(told) == f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(
    "verdict",
    [
        b"\xff",
        msgspec.msgpack.encode(("system", ["ls"])),
        msgspec.msgpack.encode(("InstanceStateError", ["too few"])),
        msgspec.msgpack.encode(("UsageError", [1])),
    ],
)
def test_a_verdict_of_another_version_or_world_is_an_error_and_runs_nothing(verdict: bytes):
    told = decode_verdict(verdict)
    assert type(told) is UsageError
    assert "update it" in str(told)
