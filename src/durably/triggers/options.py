"""What holds for functions of triggers that do not say it themselves."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from durably.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TriggerOptions:
    """Defaults of functions of one kind. Each has an environment variable: the prefix, and its name in capitals.

    Attributes:
        prefix: How the variables begin.
    """

    prefix: ClassVar[str]

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name.endswith("_s") else 1
            if not least <= value < math.inf:
                raise UsageError(f"{self.prefix}{field.name.upper()} is {value!r}: expected {least} or more")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Options from environment variables.

        Raises:
            UsageError: A variable does not hold what the option needs; the message names it.
        """
        source = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for field in fields(cls):
            variable = f"{cls.prefix}{field.name.upper()}"
            text = source.get(variable)
            if text is not None:
                try:
                    values[field.name] = type(field.default)(text)
                except ValueError:
                    raise UsageError(
                        f"Environment variable {variable} is {text!r}: expected {type(field.default).__name__}"
                    ) from None
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class QueueOptions(TriggerOptions):
    """Defaults of queue functions.

    Attributes:
        max_dequeue_count: How often a message is tried.
        visibility_timeout_s: How long one that failed waits.
        max_concurrent: Messages that may be in a function at once, on a host. As Azure Functions: a batch of 16, and the
            next one when half of it is done.
    """

    prefix: ClassVar[str] = "DURABLY_QUEUE_"
    max_dequeue_count: int = 5
    visibility_timeout_s: float = 0.0
    max_concurrent: int = 24


@dataclass(frozen=True, kw_only=True)
class BlobOptions(TriggerOptions):
    """Defaults of blob functions.

    Attributes:
        max_tries: How often a version of a blob is tried.
        retry_delay_s: How long one that failed waits.
        max_concurrent: Blobs that may be in a function at once, on a host.
    """

    prefix: ClassVar[str] = "DURABLY_BLOB_"
    max_tries: int = 5
    retry_delay_s: float = 0.0
    max_concurrent: int = 24
