"""What the machine does meanwhile: how fast it is right now, and what a repetition cost in CPU and memory."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import tempfile
import threading
from pathlib import Path
from time import perf_counter, process_time
from types import TracebackType
from typing import Self

from bench.figures import Record, percentile

SPINS = 1_000_000
SYNCS = 60
_SAMPLE_S = 0.25
_PATIENCE = 6
_PAUSE_S = 1.5

# macOS has no fdatasync, and no /proc.
_sync = getattr(os, "fdatasync", os.fsync)


def calibrate(directory: Path) -> Record:
    """One figure for the CPU, one for the disk, one for the neighbours."""
    began = perf_counter()
    total = 0
    for i in range(SPINS):
        total += i & 3
    spin = perf_counter() - began
    timings: list[float] = []
    descriptor, name = tempfile.mkstemp(dir=directory)
    try:
        for i in range(SYNCS):
            began = perf_counter()
            os.pwrite(descriptor, b"x" * 4096, i * 4096)
            _sync(descriptor)
            timings.append(perf_counter() - began)
    finally:
        os.close(descriptor)
        Path(name).unlink()
    return {
        "spin_ms": round(spin * 1000, 1),
        "fsync_p50_ms": round(percentile(timings, 0.5) * 1000, 3),
        "load1": round(os.getloadavg()[0], 2),
    }


async def calm(directory: Path, max_spin_ms: float, max_fsync_ms: float) -> Record:
    """Wait, up to nine seconds, while the machine is slower than that; the last reading."""
    reading = calibrate(directory)
    for _ in range(_PATIENCE - 1):
        if reading["spin_ms"] < max_spin_ms and reading["fsync_p50_ms"] < max_fsync_ms:
            break
        await asyncio.sleep(_PAUSE_S)
        reading = calibrate(directory)
    return reading


def resident_mb(pid: int) -> float:
    """Memory of a process now; 0 when it cannot be seen."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0.0
    return pages * resource.getpagesize() / 1e6


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far; 0 when it cannot be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Meter:
    """CPU seconds and peak memory of this process, in which client and engine both run, while entered."""

    def __init__(self) -> None:
        self._peak_mb = 0.0
        self._cpu_s = 0.0
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._sampler.start()
        self._cpu_s = process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cpu_s = process_time() - self._cpu_s
        self._over.set()
        self._sampler.join()
        self._look()

    def report(self) -> Record:
        """As the peers report it; their `client` is the process of the harness too."""
        cpu, peak = round(self._cpu_s, 3), round(self._peak_mb or _peak_mb_ever(), 1)
        return {
            "cpu_s": {"client": cpu},
            "cpu_total_s": cpu,
            "peak_rss_mb": {"client": peak},
            "peak_rss_total_mb": peak,
            "procs": 1,
        }

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            self._look()

    def _look(self) -> None:
        self._peak_mb = max(self._peak_mb, resident_mb(os.getpid()))


def _peak_mb_ever() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
