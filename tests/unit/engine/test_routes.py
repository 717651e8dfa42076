"""Messages between partitions of one host: what is handed over in memory, and when the inbox has to be read instead."""

from __future__ import annotations

from typing import Any

import pytest

from durably.engine.residents import Delivery
from durably.engine.routes import Routes, Sent

HERE, THERE = 0, 1


class Receiver:
    """Stands for a partition object that reads its inbox at once when it is told to look."""

    def __init__(self, routes: Routes) -> None:
        self.routes = routes
        self.born = self.complete = routes.birth()
        self.got: list[str] = []

    def hand_in(self, delivery: Delivery) -> None:
        self.got.append(delivery.target)

    def look(self) -> None:
        self.complete = self.routes.moment
        self.got.append("look")


class Host:
    def __init__(self) -> None:
        self.routes = Routes(lambda target: THERE if target.startswith("there") else HERE, self.objects_get)
        self.objects: dict[int, Receiver] = {}

    def objects_get(self, number: int) -> Receiver | None:
        return self.objects.get(number)

    def load(self, number: int) -> Receiver:
        made = self.objects[number] = Receiver(self.routes)
        return made

    def sent(self, sender: Receiver, *targets: str) -> Sent:
        body: Any = None
        return Sent([Delivery(target, body) for target in targets], self.routes.moment, sender.born)


@pytest.fixture
def host() -> Host:
    return Host()


def test_what_is_durable_is_handed_over(host: Host) -> None:
    sender, receiver = host.load(HERE), host.load(THERE)
    host.routes.hand_over(host.sent(sender, "there 1", "there 2"), doubtful=False)
    assert receiver.got == ["there 1", "there 2"]


def test_what_is_nobodys_here_is_left_to_its_owner(host: Host) -> None:
    host.routes.hand_over(host.sent(host.load(HERE), "there 1"), doubtful=False)


@pytest.mark.parametrize("case", ["doubtful", "loaded later"])
def test_what_may_have_been_dealt_with_is_looked_for(host: Host, case: str) -> None:
    sender, receiver = host.load(HERE), host.load(THERE)
    sent = host.sent(sender, "there 1", "there 2")
    if case == "loaded later":
        receiver = host.load(THERE)
    host.routes.hand_over(sent, doubtful=case == "doubtful")
    assert receiver.got == ["look"]


def test_the_first_message_of_a_new_owner_does_not_overtake_those_of_the_owner_before(host: Host) -> None:
    receiver, sender = host.load(THERE), host.load(HERE)
    host.routes.hand_over(host.sent(sender, "there 1"), doubtful=False)
    host.routes.hand_over(host.sent(sender, "there 2"), doubtful=False)
    assert receiver.got == ["look", "there 2"]


def test_a_message_does_not_overtake_one_that_came_while_the_partition_was_being_loaded(host: Host) -> None:
    sender = host.load(HERE)
    receiver = Receiver(host.routes)  # it has read its inbox, and is not ready yet
    host.routes.hand_over(host.sent(sender, "there 1"), doubtful=False)
    host.objects[THERE] = receiver
    host.routes.hand_over(host.sent(sender, "there 2"), doubtful=False)
    host.routes.hand_over(host.sent(sender, "there 3"), doubtful=False)
    assert receiver.got == ["look", "there 3"]
