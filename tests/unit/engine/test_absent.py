"""Messages to instances that are not in memory."""

from __future__ import annotations

from durably.core.messages import Cancel, StartInstance
from durably.engine.absent import Absent
from durably.engine.residents import Delivery, Resident


def message(target: str = "i") -> Delivery:
    return Delivery(target, Cancel("why"))


def test_one_read_serves_all_who_wait_for_it() -> None:
    absent, first, second = Absent(), message(), message()
    assert absent.take(first)
    assert absent.unread() == ["i"]
    assert absent.take(second)
    assert absent.unread() == []
    assert absent.waited_for
    assert absent.found("i") == [first, second]
    assert not absent.waited_for


def test_a_fresh_start_needs_no_read_unless_one_is_under_way() -> None:
    absent = Absent()
    start = Delivery("i", StartInstance("flow", None, "e1", fresh=True))
    assert not absent.take(start)
    absent.take(message())
    assert absent.take(start)


def test_what_vanishes_is_not_read_until_each_removal_is_durable() -> None:
    absent = Absent()
    absent.vanishes("i")
    absent.vanishes("i")
    absent.vanished(["i"])
    assert not absent.take(message())
    absent.vanished(["i"])
    assert absent.take(message())


def test_an_ended_instance_is_reread_when_nothing_of_it_is_on_its_way() -> None:
    absent, resident = Absent(), Resident("i", 1, 0, "e1", 0)
    behind, asks = message(), message()
    resident.queue.append(behind)
    resident.batches = 1
    absent.reread(resident, asks)
    assert not absent.settle()
    assert absent.unread() == []
    resident.batches = 0
    assert absent.settle()
    assert absent.unread() == ["i"]
    assert absent.found("i") == [asks, behind]
