"""Open the exchange office, ask it for some rates, and show what each attempt met with."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from durably import HistoryEntry
from examples.command import command, run
from examples.flaky_service.app import app, quote
from examples.flaky_service.service import open_office


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """All currencies at once; each is an instance of its own."""
    log = folder / "access.log"
    log.touch()
    with open_office(log) as office:
        os.environ["RATES_URL"] = office.url
        print(f"the exchange office listens at {office.url}\n")
        async with app.host(f"sqlite:///{folder / 'hub.db'}") as host:
            handles = [
                await host.client.start(
                    quote, currency, instance_id=f"quote-{currency}", on_existing="attach"
                )
                for currency in arguments.currencies
            ]
            quotes = await asyncio.gather(*(handle.result() for handle in handles))
            for found, handle in zip(quotes, handles, strict=True):
                print(f"{found.currency}: {found.rate or '-'} ({found.source}) {found.note}".rstrip())
                print(*attempts(await handle.history()), sep="\n")
    print(f"\n{log}:", log.read_text(), sep="\n", end="")
    return True


def attempts(history: list[HistoryEntry]) -> list[str]:
    """One line for each attempt: when it began, in seconds since the start, and what it met with."""
    lines: list[str] = []
    for entry in history:
        if entry.event_type in ("TaskScheduled", "TaskAttemptStarted"):
            at = (entry.timestamp - history[0].timestamp).total_seconds()
            lines.append(f"  {at:5.2f} s  {entry.name}, attempt {entry.details.get('attempt', 1)}")
        elif entry.event_type in ("TaskAttemptFailed", "TaskFailed"):
            failure = entry.details["failure"]
            lines[-1] += f": {failure['type']}: {failure['message']}"
    return lines


parser = command("flaky_service", "Retries with backoff, errors that are final, and a fallback.")
parser.add_argument(
    "currencies",
    nargs="*",
    default=["CHF", "EUR", "GBP", "XXX"],
    help="CHF works, NOK and EUR work after one and two failures, GBP never does, any other is unknown",
)

if __name__ == "__main__":
    sys.exit(run(parser, main))
