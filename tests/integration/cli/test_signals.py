"""The signals that end a host on the command line, in a process of its own."""

import subprocess
import sys

from tests.integration.cli.programs import PATIENCE_S

TWICE = """
import asyncio, os, signal
from durably.cli.hosting import Signals

async def main():
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        await signals.asked.wait()
        print("asked")

asyncio.run(main())
"""


def test_a_signal_that_comes_twice_at_once_is_one():
    done = subprocess.run(
        [sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "asked\n", "")


CONTROLLED = """
import asyncio, os, signal
from durably.cli.hosting import Signals

async def main():
    with Signals(controlled=True) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.asked.wait()
        await asyncio.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)
        print("drained")

asyncio.run(main())
"""


def test_each_sigterm_is_the_first_for_a_worker_of_a_control_process():
    done = subprocess.run(
        [sys.executable, "-c", CONTROLLED], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stdout) == (0, "drained\n")
