"""Open the services, hand in applications, play the underwriter, and show who decided what."""

import argparse
import asyncio
import logging
import os
import sys
from datetime import timedelta
from pathlib import Path

from durably import Handle, InstanceStateError
from examples.command import at_least, command, run
from examples.effects import query
from examples.loan_processing.app import Application, Opinion, Verdict, app, process_loan
from examples.loan_processing.services import KNOWN, open_services

OPINIONS = {"bob": Opinion(approves=True, by="Uma"), "eva": Opinion(approves=False, by="Uma")}
"""What the underwriter says, if asked. She does not get round to Dan."""


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """All applications at once; run it again after a crash and it goes on."""
    log_into(folder / "loans.log")
    applicants = [arguments.applicant] if arguments.applicant else list(KNOWN)
    with open_services(folder, arguments.bank_time) as services:
        os.environ["LOANS_URL"] = services.url
        async with app.host(f"sqlite:///{folder / 'hub.db'}") as host:
            loans: list[Handle[Verdict]] = []
            for applicant in applicants:
                application = Application(applicant, 12_000, timedelta(seconds=arguments.patience))
                loans.append(
                    await host.client.start(
                        process_loan, application, instance_id=f"loan-{applicant}", on_existing="attach"
                    )
                )
            await asyncio.gather(
                *(underwrite(one, loan) for one, loan in zip(applicants, loans, strict=True))
            )
            verdicts = [await loan.result() for loan in loans]

    print()
    for verdict in verdicts:
        paid = f", transfer {verdict.payout}" if verdict.payout else ""
        print(f"{verdict.applicant:5} {'approved' if verdict.approved else 'declined'} by {verdict.by}{paid}")
    (count, euros) = query(folder / "bank.db", "SELECT count(*), sum(euros) FROM payouts")[0]
    print(f"\n{folder}/bank.db: {count} transfers, {euros or 0} euros; requests: {folder}/access.log")
    return True


def log_into(file: Path) -> None:
    """What orchestrators log goes to the screen, as everything does, and into a file."""
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(instance_id)s %(levelname)s %(message)s"))
    logging.getLogger("durably.orchestrator").addHandler(handler)


async def underwrite(applicant: str, loan: Handle[Verdict]) -> None:
    """Look at the applications that wait, from time to time, as people do."""
    while applicant in OPINIONS:
        status = await loan.status()
        if status is None or status.runtime_status.is_terminal:
            return
        if status.custom_status == "underwriter":
            try:
                await loan.raise_event("Opinion", OPINIONS[applicant])
            except InstanceStateError as error:
                print(f"too late: {error}")
            return
        await asyncio.sleep(0.02)


parser = command("loan_processing", "Parallel checks, routing by risk, an underwriter with a time-out.")
parser.add_argument("--applicant", choices=list(KNOWN), help="only this one")
parser.add_argument(
    "--patience", type=at_least(0), default=1, help="seconds an underwriter has (1; really 3 days)"
)
parser.add_argument(
    "--bank-time", type=at_least(0), default=0, help="seconds between the transfer and its answer"
)

if __name__ == "__main__":
    sys.exit(run(parser, main))
