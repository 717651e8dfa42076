"""Patient onboarding: the real waits of 48 hours and 7 days on virtual time, and the command with a kill in its wait."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from durably import Client, Handle
from durably.testing import DurableEnvironment
from examples.effects import create, query
from examples.patient_onboarding import app as clinic
from tests.examples.commands import Example

ASKED = "please sign the consent form"
REMINDED = f"reminder: {ASKED}"
BOOKED = "your appointment: Mon 09:00, paid by Fjord Mutual"
TOO_LATE = "we have closed your file: no consent in time"

Story = Callable[[DurableEnvironment, Handle[clinic.File]], Awaitable[None]]


class Clinic:
    """The clinic's database, and a hub on virtual time."""

    def __init__(self, database: Path) -> None:
        self.database = database

    def letters(self) -> list[str]:
        return [subject for (subject,) in query(self.database, "SELECT subject FROM letters ORDER BY rowid")]

    def live_through(self, story: Story, policy: str = "P-100") -> None:
        async def scenario() -> None:
            async with DurableEnvironment(clinic.app, auto_skip=False) as env:
                handle = await env.start(clinic.onboard_patient, clinic.Patient("ann", "Ann", policy))
                await env.settle()
                await story(env, handle)

        asyncio.run(scenario())


@pytest.fixture
def ann(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clinic:
    monkeypatch.setenv("CLINIC_DB", str(tmp_path / "clinic.db"))
    create(tmp_path / "clinic.db", clinic.SCHEMA)
    return Clinic(tmp_path / "clinic.db")


def test_the_clinic_reminds_after_48_hours_and_closes_the_file_after_7_days(ann: Clinic) -> None:
    async def story(env: DurableEnvironment, handle: Handle[clinic.File]) -> None:
        await env.advance(timedelta(hours=48) - timedelta(seconds=1))
        assert ann.letters() == [ASKED]
        await env.advance(timedelta(seconds=1))
        assert ann.letters() == [ASKED, REMINDED]
        await env.kill()  # what was waited for is waited for by the next host
        await env.advance(timedelta(days=5) - timedelta(seconds=1))
        assert ann.letters() == [ASKED, REMINDED]
        await env.advance(timedelta(seconds=1))
        assert ann.letters() == [ASKED, REMINDED, TOO_LATE]
        assert await handle.result() == clinic.File("ann", "closed: no consent in time")
        assert env.deaths == 1

    ann.live_through(story)
    assert query(ann.database, "SELECT state FROM patients") == [("closed: no consent in time",)]
    assert query(ann.database, "SELECT count(*) FROM slots WHERE patient_id IS NOT NULL") == [(0,)]


@pytest.mark.parametrize("days", [1, 5])
def test_a_form_that_comes_in_between_is_taken_before_and_after_the_reminder(ann: Clinic, days: int) -> None:
    async def story(env: DurableEnvironment, handle: Handle[clinic.File]) -> None:
        await env.advance(timedelta(days=days))
        await handle.raise_event("ConsentForm", clinic.ConsentForm(agrees=True, signed_by="Ann"))
        assert await handle.result() == clinic.File("ann", "booked for Mon 09:00")
        await env.advance(timedelta(days=30))  # no timer is left to write anything

    ann.live_through(story)
    assert ann.letters() == [ASKED, *([REMINDED] if days > 2 else []), BOOKED]


@pytest.mark.parametrize(
    ("policy", "agrees", "why"),
    [("P-999", True, "no insurer knows the policy P-999"), ("P-100", False, "Ann does not consent")],
)
def test_a_patient_without_insurance_or_consent_is_told_why_the_file_is_closed(
    ann: Clinic, policy: str, agrees: bool, why: str
) -> None:
    async def story(env: DurableEnvironment, handle: Handle[clinic.File]) -> None:
        await handle.raise_event("ConsentForm", clinic.ConsentForm(agrees=agrees, signed_by="Ann"))
        assert await handle.result() == clinic.File("ann", f"closed: {why}")

    ann.live_through(story, policy)
    assert ann.letters() == [ASKED, f"we have closed your file: {why}"]


def test_whatever_commit_the_clinic_dies_after_everything_happens_once(ann: Clinic) -> None:
    async def story(env: DurableEnvironment, handle: Handle[clinic.File]) -> None:
        env.kill_after(1)
        env.kill_after(2, times=None)
        env.duplicate(times=None)
        await env.advance(timedelta(days=3))
        await handle.raise_event("ConsentForm", clinic.ConsentForm(agrees=True, signed_by="Ann"))
        assert (await handle.result()).state == "booked for Mon 09:00"
        assert env.deaths >= 5

    ann.live_through(story)
    assert ann.letters() == [ASKED, REMINDED, BOOKED]
    assert query(ann.database, "SELECT slot FROM slots WHERE patient_id = 'ann'") == [("Mon 09:00",)]


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.slow_once
def test_the_command_onboards_each_patient_as_they_behave(tmp_path: Path) -> None:
    example = Example("patient_onboarding", tmp_path)
    out = example.run()

    assert "cleo: closed: no insurer knows the policy P-999\n" in out
    states = dict(example.query("clinic.db", "SELECT patient_id, state FROM patients"))
    assert states.pop("cleo").startswith("closed: no insurer")
    assert states.pop("dora") == "closed: no consent in time"
    assert sorted(states.values()) == ["booked for Mon 09:00", "booked for Mon 09:30"]
    reminded = "SELECT DISTINCT patient_id FROM letters WHERE subject LIKE 'reminder%' AND patient_id IN ('bob', 'dora')"
    assert sorted(example.query("clinic.db", reminded)) == [("bob",), ("dora",)]


@pytest.mark.slow_once
def test_the_command_killed_while_it_waits_finds_the_form_that_was_signed_meanwhile(tmp_path: Path) -> None:
    example = Example("patient_onboarding", tmp_path)

    def dora_has_a_letter() -> bool:
        return example.query("clinic.db", "SELECT subject FROM letters") == [(ASKED,)]

    async def sign() -> None:
        async with Client(f"sqlite:///{tmp_path / 'hub.db'}") as client:
            form = clinic.ConsentForm(agrees=True, signed_by="Dora")
            await client.raise_event("patient-dora", "ConsentForm", form)

    waits = ("--patient", "dora", "--remind-after", "60", "--close-after", "600")
    example.kill_when(dora_has_a_letter, *waits)
    asyncio.run(sign())
    out = example.run("--patient", "dora")

    assert "dora: booked for Mon 09:00\n" in out
    letters = example.query("clinic.db", "SELECT subject FROM letters ORDER BY rowid")
    assert letters == [(ASKED,), ("your appointment: Mon 09:00, paid by Glacier Life",)]
