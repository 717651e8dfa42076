"""Packages from npm, installed once: by a lock file, where `make` keeps what it made."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.support.servers import ROOT, program


def installed(source: Path) -> Path:
    """The `node_modules` that the package.json and the lock file of a folder ask for; once, whoever else asks meanwhile."""
    lock_file = source / "package-lock.json"
    digest = hashlib.sha256(lock_file.read_bytes()).hexdigest()[:12]
    folder = ROOT / ".venvs" / f"npm-{source.name}-{digest}"
    npm = program("npm", "npm")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        if not done.exists():
            for file in (source / "package.json", lock_file):
                shutil.copy(file, folder)
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert run.returncode == 0, f"npm cannot install {lock_file}:\n{run.stdout}{run.stderr}"
            done.touch()
    return folder / "node_modules"


def node() -> str:
    """Where node.js is."""
    return program("node", "nodejs")


def place(sources: Path, folder: Path) -> None:
    """Put programs, and the packages that they import, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "node_modules").symlink_to(installed(sources))
    shutil.copy(sources / "package.json", folder)
    for program_file in sources.glob("*.js"):
        shutil.copy(program_file, folder)
