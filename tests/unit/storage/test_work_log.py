"""The file of what runs: damage and lack of room are survived."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from durably.engine.suspicion import Suspicion
from durably.errors import StoreUnavailableError
from durably.storage.work_log import FileWorkLog


def opened(path: Path, epoch: int) -> FileWorkLog:
    log = FileWorkLog(path)
    log.open(epoch)
    return log


def test_a_file_that_cannot_be_used_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match=str(tmp_path)):
        opened(tmp_path, 1)


def test_rubbish_in_the_file_accuses_nobody(tmp_path: Path) -> None:
    path = tmp_path / "hub.db.running"
    path.write_bytes(random.Random(7).randbytes(200_000))
    log = opened(path, 5)
    suspicion = Suspicion(log)
    assert not suspicion.attempts
    assert not suspicion.turns
    suspicion.counted()
    place = log.put(b"entry")
    log.close()
    assert opened(path, 6).left == [b"entry"]
    assert place >= 0


def test_what_was_noted_reads_back_after_a_short_write_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "hub.db.running"
    log = opened(path, 1)
    log.put(b"first")
    log.close()
    os.truncate(path, 4_096)
    assert opened(path, 2).left == [b"first"]


def test_a_closed_log_takes_nothing_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hub.db.running"
    log = opened(path, 1)
    place = log.put(b"first")
    log.close()
    log.close()
    log.drop(place)
    log.settle()
    assert log.put(b"late") == -1
    assert opened(path, 2).left == [b"first"]
    log.delete()
    assert not path.exists()
    log.delete()
