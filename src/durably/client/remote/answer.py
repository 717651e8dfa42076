"""What a host answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from durably.errors import OperationError

T = TypeVar("T")


class Answer(NamedTuple):
    """What a host answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as plain data.

        Raises:
            OperationError: It is no JSON: something else than a host of durably answered.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise self._foreign() from None

    def of(self, type_: type[T]) -> T:
        """The body as a struct. Raises as `json`."""
        try:
            return msgspec.json.decode(self.body, type=type_)
        except msgspec.MsgspecError:
            raise self._foreign() from None

    def _foreign(self) -> OperationError:
        return OperationError(
            f"What answers is no host of durably: expected JSON, got {self.body[:60]!r}. Check the URL"
        )
