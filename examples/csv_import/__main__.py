"""Import a CSV file, by default one that is made up, and compare the balances with the bookings."""

import argparse
import os
import random
import sys
from pathlib import Path

from durably import Handle
from examples.command import at_least, command, count, run
from examples.csv_import.app import SCHEMA, Import, app, import_csv
from examples.effects import create, query, write_file


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Import, or go on where it was; the exit code says whether each record has been booked exactly once."""
    database = folder / "accounts.db"
    os.environ["CSV_IMPORT_DB"] = str(database)
    os.environ["CSV_IMPORT_RECORD_S"] = str(arguments.record_time)
    create(database, SCHEMA)
    file: Path = arguments.csv or folder / "payments.csv"
    if arguments.csv is None and not file.exists():
        write_file(file, made_up(arguments.records).encode())
    job = Import(str(file.resolve()), arguments.page_size, arguments.max_in_flight)

    async with app.host(f"sqlite:///{folder / 'hub.db'}") as host:
        found = await host.client.get_status("import")
        print(f"{file}: {'an import that is known goes on' if found else 'a new import'}")
        handle = await host.client.start(import_csv, job, instance_id="import", on_existing="attach")
        done = await follow(handle)

    print(f"{done.booked} records booked, {done.rejected} rejected")
    if done.found:
        print(f"{done.found} of them had been booked by a run that was killed: found by their keys")
    for line, reason in query(database, "SELECT line, reason FROM rejects ORDER BY line LIMIT 3"):
        print(f"  line {line}: {reason}")
    print(f"{database}:")
    for account, cents in query(database, "SELECT account, cents FROM accounts ORDER BY 1 LIMIT 3"):
        print(f"  {account}  {cents / 100:>12,.2f}")

    ((rows, lines, booked),) = query(
        database, "SELECT count(*), count(DISTINCT line), coalesce(sum(cents), 0) FROM bookings"
    )
    ((balances,),) = query(database, "SELECT coalesce(sum(cents), 0) FROM accounts")
    print(
        f"  {rows} bookings of {lines} lines; booked {booked / 100:,.2f}, all balances {balances / 100:,.2f}"
    )
    return rows == lines == done.booked and balances == booked


async def follow(handle: Handle[Import]) -> Import:
    """The result; until it is there, look at the custom status from time to time, as a dashboard does."""
    shown = None
    while True:
        try:
            return await handle.result(timeout=0.1)
        except TimeoutError:
            status = await handle.status()
            if status and status.custom_status not in (None, shown):
                shown = status.custom_status
                print(f"  {shown['done']:>6} done")


def made_up(records: int) -> str:
    """A file of payments; every hundredth amount is no number."""
    chance = random.Random(7)
    lines = ["account,amount"]
    for number in range(records):
        amount = "n/a" if number % 100 == 99 else f"{chance.randrange(1, 100_000) / 100:.2f}"
        lines.append(f"account-{chance.randrange(20):02},{amount}")
    return "\n".join(lines) + "\n"


parser = command("csv_import", "Batch with bounded fan-out: CSV records into a database, resumable.")
parser.add_argument("csv", type=Path, nargs="?", help="a file with the columns account and amount (made up)")
parser.add_argument("--records", type=count, default=1_000, help="length of the file that is made up (1000)")
parser.add_argument("--max-in-flight", type=count, default=10, help="records at the same time (10)")
parser.add_argument("--page-size", type=count, default=250, help="records in one execution (250)")
parser.add_argument("--record-time", type=at_least(0), default=0.01, help="seconds for each record (0.01)")

if __name__ == "__main__":
    sys.exit(run(parser, main))
