"""Records the histories of the corpus under this Python: ``python -m tests.golden.record_histories``.

They are kept, one set per minor version, and replayed under every supported version. Record anew only when a shape is
added: a history that no longer replays is a fault of the code, since users have histories like it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from durably.core.events import HistoryEvent
from tests.unit.program.corpus import CORPUS
from tests.unit.program.harness import PYTHON, Play

HISTORIES = Path(__file__).parent / "histories"


def load(path: Path) -> list[HistoryEvent]:
    return msgspec.json.decode(path.read_bytes(), type=list[HistoryEvent])


def main() -> None:
    for name, (fn, input, script) in CORPUS.items():
        path = HISTORIES / PYTHON / f"{name}.json"
        if path.exists():
            continue
        play = Play(fn, input, instance_id=f"golden-{name}")
        script(play)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [msgspec.json.encode(event).decode() for event in play.history]
        path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
