"""The published JavaScript SDK of Durable Task: a worker, and its client driven by lines."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.npm import node, place

SOURCES = Path(__file__).with_name("js")

State = dict[str, Any]
"""Of an instance, as the SDK shows it, with the name of its status."""


def worker(folder: Path) -> list[str]:
    """The program of a worker, in a folder of its own, for `Fleet.start_worker`."""
    place(SOURCES, folder)
    return [node(), str(folder / "worker.js")]


class ClientError(Exception):
    """What the client of JavaScript has thrown.

    Attributes:
        name: Of the error.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Client:
    """The client of JavaScript.

    Args:
        folder: Has the program.
        address: Of the host.
    """

    def __init__(self, folder: Path, address: str) -> None:
        self._process = subprocess.Popen(
            [node(), str(folder / "client.js"), address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It stops when there are no more lines."""
        try:
            self._process.communicate(timeout=10)
        finally:
            self._process.kill()
        assert self._process.returncode == 0

    def __getattr__(self, call: str) -> Callable[..., Any]:
        """One of the `calls` of client.js."""

        def ask(*arguments: Any) -> Any:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps({"call": call, "with": arguments}) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
            if "error" in answer:
                raise ClientError(**answer["error"])
            return answer["value"]

        return ask

    def run(self, name: str, input: Any = None, options: Any = None) -> Any:
        """The result of a new instance."""
        state = self.ended(self.start(name, input, options))
        assert state["runtimeStatus"] == "COMPLETED", state
        return json.loads(state["serializedOutput"]) if state.get("serializedOutput") else None
