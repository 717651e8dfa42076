"""What an examination of a hub finds, for people; each provider looks for what can be wrong with it."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Level: TypeAlias = Literal["OK", "WARN", "FAIL"]


class Finding(NamedTuple):
    """One line of an examination.

    Attributes:
        level: ``"FAIL"``: the hub cannot be used as it is. ``"WARN"``: somebody should look.
        subject: What was looked at, in a word; the same in every examination.
        text: What was found.
        advice: What to do, or "".
    """

    level: Level
    subject: str
    text: str
    advice: str = ""


def size_text(octets: int) -> str:
    """``512 B``, ``1.5 MB``, ``20 GB``."""
    amount = float(octets)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1_000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1_000
    return f"{amount:.1f} TB"
