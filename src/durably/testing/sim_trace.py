"""What happened in a simulated world, line by line: the last lines for people, a digest of all for comparisons."""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Final

from durably.testing.sim_loop import SimLoop

_LINES_KEPT: Final = 400


class Trace:
    """Lines with their time.

    Args:
        loop: Whose time that is.

    Attributes:
        lines: The last ones.
    """

    def __init__(self, loop: SimLoop) -> None:
        self.lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._loop = loop
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, who: str, what: str, detail: object = "") -> None:
        """Something has happened.

        Args:
            who: To whom.
            what: For people.
            detail: Counts for the digest only.
        """
        line = f"{self._loop.elapsed_s:10.4f} {who:8} {what}"
        self.lines.append(line)
        self._digest.update(f"{line}{detail!r}\n".encode("utf-8", "surrogatepass"))

    @property
    def digest(self) -> str:
        """Equal when all lines and details were."""
        return self._digest.hexdigest()

    def last(self, count: int = 60) -> str:
        """The end of it, for people."""
        return "\n".join(list(self.lines)[-count:])
