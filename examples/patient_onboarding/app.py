"""Patient onboarding: register, get a consent form signed, check the insurance, make an appointment.

The form may take days: the clinic reminds after 48 hours and closes the file after 7 days. Until then the patient is a row
in the hub and a timer.
"""

import asyncio
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from durably import (
    ActivityContext,
    App,
    NonRetryableError,
    OrchestrationContext,
    RetryPolicy,
    TaskFailedError,
)
from examples.effects import transaction

app = App()

SCHEMA = """
CREATE TABLE IF NOT EXISTS patients (patient_id TEXT PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS letters (
    idempotency_key TEXT PRIMARY KEY, patient_id TEXT NOT NULL, subject TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS policies (number TEXT PRIMARY KEY, insurer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS slots (slot TEXT PRIMARY KEY, patient_id TEXT UNIQUE);
INSERT OR IGNORE INTO policies VALUES ('P-100', 'Fjord Mutual'), ('P-200', 'Fjord Mutual'), ('P-300', 'Glacier Life');
INSERT OR IGNORE INTO slots (slot) VALUES ('Mon 09:00'), ('Mon 09:30'), ('Mon 10:00'), ('Mon 10:30');
"""


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Patient:
    """Who wants to be treated, and how long the clinic waits for the form."""

    patient_id: str
    name: str
    policy: str
    remind_after: timedelta = timedelta(hours=48)
    close_after: timedelta = timedelta(days=7)


@dataclass(frozen=True)
class ConsentForm:
    """The payload of the event `ConsentForm`."""

    agrees: bool
    signed_by: str


@dataclass(frozen=True)
class Letter:
    """A few words to a patient."""

    patient_id: str
    subject: str


@dataclass(frozen=True)
class File:
    """How far a patient is: `state` is "registered", "booked for …" or "closed: …"."""

    patient_id: str
    state: str


# --- activities -------------------------------------------------------------------------------------------------------


class NotInsuredError(NonRetryableError):
    """No insurer knows the policy, and none will tomorrow."""


class NoSlotError(Exception):
    """All appointments are taken. Somebody may cancel, so this may be tried again."""


def database() -> Path:
    """Configuration comes from the environment, as in any service."""
    return Path(os.environ.get("CLINIC_DB", "clinic.db"))


@app.activity
def register(patient: Patient) -> None:
    """Enter the patient. The id makes that harmless when it runs again."""
    with transaction(database()) as db:
        db.execute(
            "INSERT INTO patients VALUES (?, ?, 'registered') ON CONFLICT DO NOTHING",
            (patient.patient_id, patient.name),
        )


@app.activity
def send_letter(letter: Letter, ctx: ActivityContext) -> None:
    """Send a letter, once per call: the key is unique."""
    with transaction(database()) as db:
        db.execute(
            "INSERT INTO letters VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (ctx.idempotency_key, letter.patient_id, letter.subject),
        )


@app.activity
def check_insurance(policy: str) -> str:
    """The insurer who pays."""
    with transaction(database()) as db:
        found = db.execute("SELECT insurer FROM policies WHERE number = ?", (policy,)).fetchone()
    if found is None:
        raise NotInsuredError(f"no insurer knows the policy {policy}")
    return found[0]


@app.activity
def book_appointment(patient_id: str) -> str:
    """Take the first free slot. A patient has one at most, so a second run finds the one that the first run took."""
    with transaction(database()) as db:
        db.execute(
            "UPDATE slots SET patient_id = :patient WHERE slot = (SELECT min(slot) FROM slots WHERE patient_id IS NULL)"
            " AND NOT EXISTS (SELECT 1 FROM slots WHERE patient_id = :patient)",
            {"patient": patient_id},
        )
        found = db.execute("SELECT slot FROM slots WHERE patient_id = ?", (patient_id,)).fetchone()
    if found is None:
        raise NoSlotError("no appointment is free")
    return found[0]


@app.activity
def set_state(file: File) -> None:
    """Enter how far the patient is. Setting a value twice is setting it once."""
    with transaction(database()) as db:
        db.execute("UPDATE patients SET state = ? WHERE patient_id = ?", (file.state, file.patient_id))


# --- the orchestrator -------------------------------------------------------------------------------------------------

PATIENT = RetryPolicy(first_retry_interval=1, max_number_of_attempts=10, backoff_coefficient=2)


@app.orchestrator
async def onboard_patient(ctx: OrchestrationContext, patient: Patient) -> File:
    """Four steps, one of which is somebody else's."""
    await ctx.call_activity(register, patient, retry=PATIENT)
    form = await consent_of(ctx, patient)
    if form is None:
        return await close(ctx, patient, "no consent in time")
    if not form.agrees:
        return await close(ctx, patient, f"{form.signed_by} does not consent")
    try:
        insurer = await ctx.call_activity(check_insurance, patient.policy, retry=PATIENT)
    except TaskFailedError as error:
        return await close(ctx, patient, error.details.message)
    slot = await ctx.call_activity(book_appointment, patient.patient_id, retry=PATIENT)
    await write(ctx, patient, f"your appointment: {slot}, paid by {insurer}")
    return await enter(ctx, patient, f"booked for {slot}")


async def consent_of(ctx: OrchestrationContext, patient: Patient) -> ConsentForm | None:
    """The form that was signed, or None when there is none in time."""
    try:
        # Both waits are durable timers: the first is given up for the reminder, the outer one for good. A form that comes
        # while the reminder is written is kept for the next wait.
        async with asyncio.timeout(patient.close_after.total_seconds()):
            await write(ctx, patient, "please sign the consent form")
            ctx.set_custom_status("waits for the consent form")
            form = await ctx.wait_for_external_event(
                "ConsentForm", ConsentForm, timeout=patient.remind_after, default=None
            )
            if form is None:
                await write(ctx, patient, "reminder: please sign the consent form")
                ctx.set_custom_status("waits for the consent form, has reminded")
                form = await ctx.wait_for_external_event("ConsentForm", ConsentForm)
            return form
    except TimeoutError:
        return None


async def close(ctx: OrchestrationContext, patient: Patient, why: str) -> File:
    """Tell the patient, and close the file."""
    await write(ctx, patient, f"we have closed your file: {why}")
    return await enter(ctx, patient, f"closed: {why}")


async def write(ctx: OrchestrationContext, patient: Patient, subject: str) -> None:
    """Send a letter and wait until it is out."""
    await ctx.call_activity(send_letter, Letter(patient.patient_id, subject), retry=PATIENT)


async def enter(ctx: OrchestrationContext, patient: Patient, state: str) -> File:
    """Keep the books of the clinic and what others see of the instance in step."""
    file = File(patient.patient_id, state)
    await ctx.call_activity(set_state, file, retry=PATIENT)
    ctx.set_custom_status(state)
    return file
