"""Histories as bytes: what was written comes back, and whatever was changed is noticed."""

from __future__ import annotations

import pytest

from durably.core.commit import HistoryRow
from durably.core.events import CustomStatusSet, HistoryEvent, TaskCompleted, TurnStarted
from durably.core.history import (
    chain,
    chain_start,
    decode_body,
    decode_failure,
    decode_rows,
    encode_body,
    encode_events,
    encode_failure,
)
from durably.core.messages import Continue, Purge, RaiseEvent, StartInstance
from durably.errors import FailureDetails, HistoryCorruptError


def rows_of(count: int, execution_id: str = "e") -> list[HistoryRow]:
    rows: list[HistoryRow] = []
    checksum = chain_start(execution_id)
    for seq in range(count):
        data = encode_events(events_of(seq))
        checksum = chain(checksum, data)
        rows.append(HistoryRow(1, seq, seq, data, checksum))
    return rows


def events_of(seq: int) -> list[HistoryEvent]:
    return [TurnStarted(seq), CustomStatusSet(b"%d" % seq)]


def test_what_was_written_comes_back() -> None:
    rows = rows_of(4)
    events, checksum = decode_rows("i", "e", rows)
    assert events == [event for seq in range(4) for event in events_of(seq)]
    assert checksum == rows[-1].checksum


def test_no_rows_are_no_events() -> None:
    assert decode_rows("i", "e", []) == ([], chain_start("e"))


def test_a_history_may_end_anywhere() -> None:
    assert len(decode_rows("i", "e", rows_of(4)[:2])[0]) == 4


@pytest.mark.parametrize("seq", range(3))
def test_a_flipped_bit_is_noticed_wherever_it_is(seq: int) -> None:
    rows = rows_of(3)
    data = rows[seq].data
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        damaged = [*rows[:seq], rows[seq]._replace(data=changed), *rows[seq + 1 :]]
        with pytest.raises(HistoryCorruptError, match=f"row {seq}.*restore a backup"):
            decode_rows("i", "e", damaged)


def test_a_flipped_bit_of_a_checksum_is_noticed() -> None:
    rows = rows_of(3)
    wrong = bytes([rows[1].checksum[0] ^ 1]) + rows[1].checksum[1:]
    with pytest.raises(HistoryCorruptError, match="row 1"):
        decode_rows("i", "e", [rows[0], rows[1]._replace(checksum=wrong), rows[2]])


@pytest.mark.parametrize("order", [(1, 2), (0, 2), (0, 0, 1, 2), (0, 1, 1, 2), (1, 0, 2), (0, 2, 1)])
def test_missing_doubled_and_swapped_rows_are_noticed(order: tuple[int, ...]) -> None:
    rows = rows_of(3)
    with pytest.raises(HistoryCorruptError, match=r"row \d where row \d was expected"):
        decode_rows("i", "e", [rows[seq] for seq in order])


@pytest.mark.parametrize("order", [(1, 2), (0, 2), (0, 0, 1), (1, 0, 2), (0, 2, 1)])
def test_rows_with_changed_numbers_are_noticed_too(order: tuple[int, ...]) -> None:
    rows = rows_of(3)
    renumbered = [rows[seq]._replace(seq=place) for place, seq in enumerate(order)]
    with pytest.raises(HistoryCorruptError, match="checksum"):
        decode_rows("i", "e", renumbered)


def test_the_history_of_another_execution_is_noticed() -> None:
    with pytest.raises(HistoryCorruptError, match="row 0"):
        decode_rows("i", "f", rows_of(2, "e"))


def test_a_row_of_another_execution_in_the_same_place_is_noticed() -> None:
    rows, others = rows_of(3, "e"), rows_of(3, "f")
    with pytest.raises(HistoryCorruptError, match="row 1"):
        decode_rows("i", "e", [rows[0], others[1], rows[2]])


@pytest.mark.parametrize("data", [b"\xc1", b"", b"\x91\x92\xcc\xc8\x01", encode_events([1, 2])])
def test_events_that_this_version_does_not_know_are_told_apart_from_damage(data: bytes) -> None:
    row = HistoryRow(1, 0, 0, data, chain(chain_start("e"), data))
    with pytest.raises(HistoryCorruptError, match="newer version"):
        decode_rows("i", "e", [row])


def test_an_event_with_more_fields_than_this_version_knows_is_read() -> None:
    """FORMAT: new fields go to the end; an older host in a rolling deployment ignores them."""
    data = encode_events([[3, 7, b"1", "a field of the future"]])
    row = HistoryRow(1, 0, 0, data, chain(chain_start("e"), data))
    assert decode_rows("i", "e", [row])[0] == [TaskCompleted(7, b"1")]


@pytest.mark.parametrize(
    "body",
    [
        StartInstance("flow", b"1", "e", tags={"a": "b"}),
        RaiseEvent("go", None),
        Purge(),
        Continue(b"1", "e", carried=()),
    ],
)
def test_bodies_come_back(body: object) -> None:
    assert decode_body(encode_body(body)) == body  # type: ignore[arg-type]


def test_failures_come_back_with_their_causes() -> None:
    failure = FailureDetails("ValueError", "no", "trace", FailureDetails("KeyError", "'x'"), ("a.B",), True)
    assert decode_failure(encode_failure(failure)) == failure
    assert decode_failure(encode_failure(None)) is None


def test_the_chain_never_changes() -> None:
    """FORMAT: hubs hold these sums."""
    assert chain_start("execution").hex() == "d09e06b9e5301742"
    assert chain(chain_start("execution"), b"data").hex() == "2391f77f224aa710"
