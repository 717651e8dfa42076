"""The workload: which instance runs which program, what it must result in, and the messages it is sent."""

from __future__ import annotations

from typing import Any, NamedTuple

PROGRAMS = ("chain", "fan", "collector", "retried", "ring", "parent", "tally", "naps")

EVENTS = ("collector", "ring")
"""Programs that wait for events; what they are sent is posted under an id and may be posted any number of times."""


class Job(NamedTuple):
    """One instance of the plan. All of it follows from its number."""

    number: int

    @property
    def program(self) -> str:
        return PROGRAMS[self.number % len(PROGRAMS)]

    @property
    def size(self) -> int:
        return 1 + self.number // len(PROGRAMS) % 5

    @property
    def instance_id(self) -> str:
        return f"{self.program}-{self.number}"

    @property
    def input(self) -> Any:
        return {"n": self.size, "got": []} if self.program == "ring" else self.size

    def token(self, life: int) -> str:
        """What a tally is sent in one life by way of the client: once, whether or not it is answered."""
        return f"{self.instance_id}/{life}"

    def closes_in(self, life: int) -> bool:
        """True when the tally is told in this life that nothing more will come."""
        return (self.number + life) % 3 == 0

    @property
    def result(self) -> Any:
        """What it ends with; of a tally only its caller can say."""
        n = self.size
        results: dict[str, Any] = {
            "chain": n,
            "fan": 4 * n * (4 * n + 1) // 2,
            "collector": list(range(n)),
            "retried": n,
            "ring": list(range(n)),
            "parent": n * (n + 1) // 2,
            "naps": n,
        }
        return results[self.program]

    @property
    def activities(self) -> int:
        """Activities in the history of its last execution."""
        n = self.size
        return {"chain": n, "fan": 4 * n, "retried": 1, "ring": int(n % 3 == 0)}.get(self.program, 0)

    @property
    def children(self) -> int:
        return self.size if self.program == "parent" else 0


def job_of(instance_id: str) -> Job | None:
    """The job of an instance of the plan; None for a child of one."""
    _, _, number = instance_id.rpartition("-")
    return Job(int(number)) if number.isdigit() else None
