"""``python -m durably``: the same program as ``durably``."""

from __future__ import annotations

from durably.cli.main import main

if __name__ == "__main__":
    main()
