"""The reference model of entities: what they hold, who has them locked, and what waits for its turn or its time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.model.words import OK, Answer, Ask, AskLock, Failure, GiveBack, Granted, Operate, Outcome, Signal

Send = Callable[[str, Any], None]
Operation = Callable[[list[str], str, bool], tuple[Any, list[str], list[tuple[str, Any]]]]
"""Of what is held, the input, and whether things are broken: the result, what is held then, and what is sent."""

READS = ("look",)
"""Operations that change nothing, and wait for nobody."""


@dataclass(eq=False)
class Entity:
    held: list[str] | None = None
    holder: AskLock | None = None
    waiting: list[Any] = field(default_factory=list)
    delayed: list[Operate] = field(default_factory=list)

    @property
    def exists(self) -> bool:
        """It has a row."""
        return self.held is not None or self.holder is not None or bool(self.delayed)


class Entities:
    """All entities of a hub.

    Args:
        operations: What they can do.
        send: Puts a message on its way.
    """

    def __init__(self, operations: dict[str, Operation], send: Send) -> None:
        self.all: dict[str, Entity] = {}
        self._operations = operations
        self._send = send

    def of(self, entity_id: str) -> Entity:
        return self.all.setdefault(entity_id, Entity())

    def give(self, entity_id: str, message: Any, now: float, *, broken: bool) -> Outcome:
        """Hand over one message."""
        entity = self.of(entity_id)
        match message:
            case Signal():
                due_at = None if message.delay_s is None else now + message.delay_s
                signal = Operate(message.operation, message.input, due_at=due_at)
                return self.give(entity_id, signal, now, broken=broken)
            case Ask():
                return self._perform(entity, Operate(message.operation, message.input), broken=broken)
            case Operate():
                if message.due_at is not None and message.due_at > now:
                    entity.delayed.append(message)
                elif self._is_its_turn(entity, message):
                    self._perform(entity, message, broken=broken)
                else:
                    entity.waiting.append(message)
            case AskLock():
                self._lock(entity, message)
            case GiveBack():
                entity.waiting = [one for one in entity.waiting if not _asks_for(one, message.section)]
                if entity.holder is not None and entity.holder.section == message.section:
                    entity.holder = None
                    waiting, entity.waiting = entity.waiting, []
                    for other in waiting:
                        self.give(entity_id, other, now, broken=broken)
            case _:
                raise AssertionError(f"{message} is not for entities")
        return OK

    def ring(self, now: float, *, broken: bool) -> bool:
        """Deal with what has become due; True when there was something."""
        rang = False
        for entity_id, entity in list(self.all.items()):
            due = [one for one in entity.delayed if one.due_at is not None and one.due_at <= now]
            entity.delayed = [one for one in entity.delayed if one not in due]
            for message in due:
                rang = True
                self.give(entity_id, message, now, broken=broken)
        return rang

    def is_open(self, entity_id: str) -> bool:
        """A client that calls it is answered at once."""
        entity = self.of(entity_id)
        return entity.holder is None and not entity.waiting

    def _is_its_turn(self, entity: Entity, message: Operate) -> bool:
        if entity.holder is None:
            return not entity.waiting
        return entity.holder.section == message.section

    def _lock(self, entity: Entity, request: AskLock) -> None:
        if entity.holder is not None or entity.waiting:
            entity.waiting.append(request)
            return
        entity.holder = request
        self._send(request.instance_id, Granted(*request.section))

    def _perform(self, entity: Entity, message: Operate, *, broken: bool) -> Outcome:
        """It is done as a whole, or nothing of it."""
        value: Any = None
        failure: Failure | None = None
        if message.operation == "delete":
            entity.held = None
        else:
            try:
                operation = self._operations[message.operation]
                value, held, sent = operation(list(entity.held or []), message.input, broken)
            except ValueError as error:
                failure = Failure("ValueError", str(error))
            else:
                if message.operation not in READS:
                    entity.held = held
                for target, body in sent:
                    self._send(target, body)
        if message.caller is not None:
            instance_id, execution, seq = message.caller
            self._send(instance_id, Answer(execution, seq, value, failure))
        return ("ok", value) if failure is None else ("EntityOperationFailedError", failure.message)


def _asks_for(message: Any, section: Any) -> bool:
    return isinstance(message, AskLock) and message.section == section
