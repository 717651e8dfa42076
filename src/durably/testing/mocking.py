"""What can be mocked for a whole hub and for a single orchestrator alike: entities and HTTP services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from durably.codec.convert import Converter
from durably.program.registry import Registry
from durably.testing.mock_entity import Entity, EntityMock, EntityMocks, entity_name_in
from durably.testing.mock_http import HttpMock, HttpMocks, MockedRequest
from durably.testing.stubs import NOTHING


class Mocking:
    """Part of `DurableEnvironment` and of `MockOrchestrationContext`."""

    def __init__(self, entities: EntityMocks, http: HttpMocks) -> None:
        self._entity_mocks = entities
        self._http_mocks = http

    @property
    def functions(self) -> tuple[Registry, Converter]:
        """What is registered, and how values become payloads."""
        raise NotImplementedError

    def mock_entity(
        self,
        entity: Entity,
        operation: str | None = None,
        *,
        returns: Any = NOTHING,
        raises: BaseException | type[BaseException] | None = None,
        runs: Callable[..., Any] | None = None,
        times: int | None = None,
    ) -> EntityMock:
        """Let something else answer in the place of an operation of all entities of a name, calls and signals alike.

        The states stay as they are, unless `runs` changes them. Locks, order and times are those of the engine; a
        `MockOrchestrationContext` has no states, and grants each lock at once.

        Args:
            entity: The class or function, or its name; it need not be registered.
            operation: Which one; each by default.
            returns: The result; None when nothing else is given.
            raises: The exception that the operation fails with.
            runs: Called in its place with the input, if it takes one, and with an `EntityContext` where a parameter is
                annotated with it: what it does with that counts.
            times: How often it answers; always by default. Behind it come later mocks of the operation, then the entity.

        Returns:
            The mock; its `calls` are those that it answered.

        Raises:
            InvalidIdError: No entity can have the name.
            UsageError: Several answers, or a value out of its range.
            PayloadError: The result cannot become JSON.
        """
        registry, converter = self.functions
        mock = EntityMock(
            entity_name_in(registry, entity),
            operation,
            registry,
            converter,
            returns=returns,
            raises=raises,
            runs=runs,
            times=times,
        )
        return self._entity_mocks.add(mock)

    def mock_http(
        self,
        url: str | Callable[[MockedRequest], bool],
        *,
        method: str | None = None,
        status: int = 200,
        json: Any = NOTHING,
        content: str | bytes = "",
        headers: Mapping[str, str] | None = None,
        raises: Exception | type[Exception] | None = None,
        times: int | None = None,
        delay: timedelta | float = 0,
    ) -> HttpMock:
        """Let something answer in the place of an HTTP service. What is not mocked fails: a test reaches no service.

        Redirects, polls of a 202, retries and what is sent along are those of `call_http`; needs ``durably[http]``.
        Addresses are not looked up, and token sources are not asked.

        Args:
            url: Of the request; ``*`` stands for any text, and without a query it matches with any. Or a function that
                looks at the request.
            method: Of the request; any by default.
            status: Of the answer.
            json: The body as JSON.
            content: The body; empty by default.
            headers: Of the answer.
            raises: Instead of an answer, such as `HttpRequestError`.
            times: How many requests it answers; all by default. Behind it come later mocks that match.
            delay: Virtual time (timedelta or seconds) that passes before the answer.

        Returns:
            The mock; its `calls` are the requests that it answered.

        Raises:
            UsageError: Both json and content, or a value out of its range.
        """
        mock = HttpMock(
            url,
            method=method,
            status=status,
            json=json,
            content=content,
            headers=headers,
            raises=raises,
            times=times,
            delay=delay,
        )
        return self._http_mocks.add(mock)
