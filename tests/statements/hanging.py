"""What a worker process runs that has to be ended."""

from __future__ import annotations

import os
import time
from pathlib import Path


def hang(begun: str) -> str:
    """Say which process it is, and wait."""
    Path(begun).write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(600)
    return "late"
