"""What a control process tells a worker when it starts it, and what a worker tells back."""

from __future__ import annotations

import msgspec


class Post(msgspec.Struct, frozen=True, kw_only=True):
    """The place of a worker. Numbers are file descriptors that it inherits.

    Attributes:
        number: Of the worker, for people.
        listening: The port, which all share; None: no HTTP.
        lifeline: A pipe that ends with the control process.
        report: A pipe for one `Ready`, and a newline behind it: what the app has started may keep the pipe open.
        pipes: Where what is printed is read: for stdout and stderr. They are the worker's, too, so that no write ever fails.
        behind: Where the control process prints, as above.
        stop_s: When the control process is gone, nobody else ends a worker that has not stopped by then.
    """

    number: int
    listening: int | None
    lifeline: int
    report: int
    pipes: tuple[int, int]
    behind: tuple[int, int]
    stop_s: float


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A worker serves, and the others know of it.

    Attributes:
        host: Its name in the hub.
        lines: What it serves, for people.
    """

    host: str
    lines: list[str]
