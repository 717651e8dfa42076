"""Register patients and play them: one signs at once, one has to be reminded, one has no insurance, one never signs."""

import argparse
import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path

from durably import Handle, InstanceStateError
from examples.command import at_least, command, run
from examples.effects import create, query
from examples.patient_onboarding.app import SCHEMA, ConsentForm, File, Patient, app, onboard_patient

PATIENTS = {"ann": ("P-100", 1), "bob": ("P-200", 2), "cleo": ("P-999", 1), "dora": ("P-300", None)}
"""The policy of each, and the letter which they answer."""


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Onboard them, or go on where it was."""
    database = folder / "clinic.db"
    os.environ["CLINIC_DB"] = str(database)
    create(database, SCHEMA)
    names = [arguments.patient] if arguments.patient else list(PATIENTS)
    waits = (timedelta(seconds=arguments.remind_after), timedelta(seconds=arguments.close_after))

    async with app.host(f"sqlite:///{folder / 'hub.db'}") as host:
        handles: list[Handle[File]] = []
        for name in names:
            patient = Patient(name, name.title(), PATIENTS[name][0], *waits)
            handles.append(
                await host.client.start(
                    onboard_patient, patient, instance_id=f"patient-{name}", on_existing="attach"
                )
            )
            print(f"{name}: registered")
        await asyncio.gather(
            *(sign(name, handle, database) for name, handle in zip(names, handles, strict=True))
        )
        files = [await handle.result() for handle in handles]

    for file in files:
        print(f"\n{file.patient_id}: {file.state}")
        sql = "SELECT subject FROM letters WHERE patient_id = ? ORDER BY rowid"
        for (subject,) in query(database, sql, file.patient_id):
            print(f"  {subject}")
    return True


async def sign(name: str, onboarding: Handle[File], database: Path) -> None:
    """Sign the form once there are as many letters as this patient needs, unless it is too late."""
    _, letters = PATIENTS[name]
    sql = "SELECT count(*) FROM letters WHERE patient_id = ?"
    while letters is not None and query(database, sql, name)[0][0] < letters:
        status = await onboarding.status()
        if status is None or status.runtime_status.is_terminal:
            return
        await asyncio.sleep(0.02)
    if letters is not None:
        try:
            await onboarding.raise_event("ConsentForm", ConsentForm(agrees=True, signed_by=name.title()))
        except InstanceStateError as error:
            print(f"too late: {error}")


parser = command("patient_onboarding", "Long waits: a consent form, a reminder, and a file that is closed.")
parser.add_argument("--patient", choices=list(PATIENTS), help="only this one; dora never signs by herself")
parser.add_argument(
    "--remind-after", type=at_least(0), default=0.3, help="seconds until the reminder (0.3; really 48 h)"
)
parser.add_argument(
    "--close-after", type=at_least(0), default=1, help="seconds until the file is closed (1; really 7 d)"
)

if __name__ == "__main__":
    sys.exit(run(parser, main))
