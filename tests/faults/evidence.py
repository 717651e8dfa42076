"""What a run leaves behind for the checker: what clients were told, what pollers saw, and where the files are."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.plan import Job

ELSEWHERE = "hub.url"
"""A file with the URL of the hub, beside where its file would be: also processes of the same folder read it."""


@dataclass
class Evidence:
    """Recorded on the side of the clients, which outlive every host.

    Attributes:
        hub: The hub file.
        side: The file in which activities note what they did.
        deaths: Hosts that ended without an orderly stop; also the life of the next one.
        starting: Numbers of the jobs whose start was sent.
        started: Those whose start was acknowledged.
        results: What callers were told, by number of the job.
        raising: Tokens of events that were sent, in order.
        raised: Those that were acknowledged.
        calls: How many calls were answered, and how many ended in doubt.
        seen: The statuses that pollers saw of each instance, in order, without repeats.
        lost: Instances that an injector destroyed and that somebody was told of; the checker expects them parked.
        journal: Where all of it is written down too, for those who outlive this process; None for nowhere.
    """

    hub: Path
    side: Path
    deaths: int = 0
    starting: set[int] = field(default_factory=set[int])
    started: set[int] = field(default_factory=set[int])
    results: dict[int, Any] = field(default_factory=dict[int, Any])
    raising: list[str] = field(default_factory=list[str])
    raised: set[str] = field(default_factory=set[str])
    calls: Counter[str] = field(default_factory=Counter[str])
    seen: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    lost: set[str] = field(default_factory=set[str])

    journal: Path | None = None

    @classmethod
    def in_folder(cls, folder: Path) -> Evidence:
        return cls(folder / "hub.db", folder / "side.txt")

    @classmethod
    def of_journal(cls, folder: Path) -> Evidence:
        """What processes that are gone have written down, and where the next one goes on writing."""
        evidence = cls.in_folder(folder)
        journal = folder / "journal.txt"
        for line in journal.read_text().splitlines() if journal.exists() else ():
            evidence.note(*json.loads(line))
        evidence.journal = journal
        return evidence

    @property
    def url(self) -> str:
        """The hub file, unless the folder says that the hub is elsewhere."""
        elsewhere = self.hub.with_name(ELSEWHERE)
        return elsewhere.read_text() if elsewhere.exists() else f"sqlite:///{self.hub}"

    def beside(self, name: str) -> str:
        """The URL of another hub, in the same place."""
        return f"sqlite:///{self.hub.with_name(name)}.db" if self.is_file else f"{self.url}_{name}"

    @property
    def is_file(self) -> bool:
        return self.url.startswith("sqlite:")

    def note(self, what: str, value: Any) -> None:
        """Take something down: what a client sent or was told, what a poller saw, that a host died.

        Never may a caller be told two different results.
        """
        match what:
            case "death":
                self.deaths += value
            case "starting":
                self.starting.add(value)
            case "started":
                self.started.add(value)
            case "raising":
                self.raising.append(value)
            case "raised":
                self.raised.add(value)
            case "call":
                self.calls[value] += 1
            case "result":
                number, result = value
                before = self.results.setdefault(number, result)
                assert before == result, (
                    f"{Job(number).instance_id} had the result {before}, and then {result}"
                )
            case "seen":
                instance_id, status = value
                seen = self.seen.setdefault(instance_id, [])
                if seen and seen[-1] == status:
                    return
                seen.append(status)
            case _:
                raise ValueError(what)
        if self.journal is not None:
            with self.journal.open("a") as file:  # in one write, and not lost with the process
                file.write(json.dumps([what, value]) + "\n")
