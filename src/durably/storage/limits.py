"""What a provider takes on at most."""

from __future__ import annotations

import os

from durably.errors import UsageError

HISTORY_MIB = "DURABLY_MAX_HISTORY_MIB"
"""Name of the environment variable: the largest history, in MiB of its rows, that a host brings into memory.

In memory it is two to four times as large. An instance with a larger one is parked when it is next read; nothing of it is
lost, and all others go on.
"""

HISTORY_MIB_DEFAULT = 256

READS_MAX = 1_000
"""Reads of anybody but the owner that are on their way at once; more wait in their callers, where they cost next to
nothing, and a cancelled one is never made. Far more than one thread needs to have something to do."""


def history_max() -> int:
    """The limit in bytes.

    Raises:
        UsageError: The variable holds no such number.
    """
    text = os.environ.get(HISTORY_MIB, str(HISTORY_MIB_DEFAULT))
    if not text.isdecimal() or not int(text):
        raise UsageError(f"Environment variable {HISTORY_MIB} is {text!r}: expected a whole number above 0")
    return int(text) << 20


def too_large(size: int, most: int) -> str:
    """What is wrong with a history of so many bytes; see `StoredInstance.oversize`."""
    return (
        f"Its history has {size / 2**20:.0f} MiB or more, and this host brings {most / 2**20:.0f} MiB into memory at most "
        f"({HISTORY_MIB}): start a host that has the memory with a higher limit and redrive the instance, or "
        "terminate it. Code that runs for long continues as new now and then"
    )
