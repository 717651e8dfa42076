"""Lives: one process after the other serves a hub until its jobs have ended, or until it is made to die.

The program takes one line of orders (JSON) for each life, forks, and says with which code the life ended: to die costs a
fork then, and not the imports of a new interpreter. What its clients were told is in the journal.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.children import line_of, program, tell
from tests.faults.clients import live_through
from tests.faults.evidence import Evidence
from tests.faults.injectors.crash_points import DEAD, arm
from tests.faults.plan import Job


class Lives:
    """The program, from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def live(self, folder: Path, work: list[Job], point: str | None = None, k: int = 0) -> bool:
        """One life. False when it died at its point; anything but that and an orderly end is an error."""
        orders = {"folder": str(folder), "work": [job.number for job in work], "point": point, "k": k}
        tell(self._process, json.dumps(orders))
        code = line_of(self._process)
        assert code in ("0", str(DEAD)), f"the life ended with {code!r}"
        if code == "0":
            return True
        Evidence.of_journal(folder).note("death", 1)
        return False


@contextmanager
def lives() -> Iterator[Lives]:
    with program("tests.faults.lives") as process:
        yield Lives(process)


def _live(orders: dict[str, Any]) -> None:
    if orders["point"] is not None:
        arm(orders["point"], orders["k"])
    evidence = Evidence.of_journal(Path(orders["folder"]))
    assert asyncio.run(live_through(evidence, [Job(number) for number in orders["work"]]))


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                _live(json.loads(line))
            except BaseException:  # noqa: BLE001 - nothing of this process may run on in the fork
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
