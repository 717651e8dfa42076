"""User onboarding as a chain: account, home folder, welcome mail, activation. Each step needs the one before."""

import hashlib
import logging
import os
import sqlite3
import time
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

from durably import ActivityContext, App, NonRetryableError, OrchestrationContext, RetryPolicy
from examples.effects import transaction, write_file

log = logging.getLogger(__name__)

app = App()

SCHEMA = """
CREATE TABLE IF NOT EXISTS users (
    user_id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
    state TEXT NOT NULL, idempotency_key TEXT NOT NULL UNIQUE);
INSERT OR IGNORE INTO users VALUES (1, 'linus@example.org', 'Linus', 'active', 'from before');
"""


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signup:
    """What somebody typed into the form."""

    email: str
    name: str


@dataclass(frozen=True)
class User:
    """A row of the user database."""

    user_id: int
    email: str
    name: str


@dataclass(frozen=True)
class Welcome:
    """What came of a signup."""

    user_id: int
    home: str
    mail: str


# --- activities: they run at least once, so each is harmless when it runs again ---------------------------------------


class AddressTakenError(NonRetryableError):
    """Somebody else has this address; trying again would not change that."""


def files() -> Path:
    """The folder of users.db, homes/ and spool/. Configuration comes from the environment, as in any service."""
    return Path(os.environ.get("ONBOARDING_DIR", "."))


@app.activity
def create_user(signup: Signup, ctx: ActivityContext) -> User:
    """Insert the user. The key in the row tells a second run of this call from somebody else's address."""
    with transaction(files() / "users.db") as db:
        try:
            db.execute(
                "INSERT INTO users (email, name, state, idempotency_key) VALUES (?, ?, 'new', ?)",
                (signup.email, signup.name, ctx.idempotency_key),
            )
        except sqlite3.IntegrityError:
            (key,) = db.execute(
                "SELECT idempotency_key FROM users WHERE email = ?", (signup.email,)
            ).fetchone()
            if key != ctx.idempotency_key:
                raise AddressTakenError(f"the address {signup.email} is taken") from None
        (user_id,) = db.execute("SELECT user_id FROM users WHERE email = ?", (signup.email,)).fetchone()
    done(ctx, "create_user", signup.email)
    return User(user_id, signup.email, signup.name)


@app.activity
def create_home(user: User, ctx: ActivityContext) -> str:
    """Make the home folder. It needs no key: a folder that is there is there."""
    home = files() / "homes" / str(user.user_id)
    write_file(home / "README.txt", f"This is the home of {user.name}.\n".encode())
    done(ctx, "create_home", user.email)
    return str(home)


@app.activity
def send_welcome(user: User, ctx: ActivityContext) -> str:
    """Put a mail into the spool. Its name comes from the key, so a second run replaces the mail by itself."""
    mail = EmailMessage()
    mail["To"] = user.email
    mail["Subject"] = f"Welcome, {user.name}"
    mail.set_content(f"Hello {user.name},\n\nyour number is {user.user_id}. Make yourself at home.\n")
    name = hashlib.sha256(ctx.idempotency_key.encode()).hexdigest()[:16] + ".eml"
    write_file(files() / "spool" / name, mail.as_bytes())
    done(ctx, "send_welcome", user.email)
    return name


@app.activity
def activate_user(user: User, ctx: ActivityContext) -> None:
    """Set the state. It needs no key either: setting it twice is setting it once."""
    with transaction(files() / "users.db") as db:
        db.execute("UPDATE users SET state = 'active' WHERE user_id = ?", (user.user_id,))
    done(ctx, "activate_user", user.email)


def done(ctx: ActivityContext, step: str, email: str) -> None:
    """Log a step and take a moment: the effect is there, the runtime does not know it yet. A kill hurts most here."""
    again = "  (again, after a crash)" if ctx.delivery > 1 else ""
    log.info("  %-18s %s%s", email, step, again)
    time.sleep(float(os.environ.get("ONBOARDING_STEP_S", "0")))


# --- the orchestrator -------------------------------------------------------------------------------------------------

PATIENT = RetryPolicy(first_retry_interval=1, max_number_of_attempts=5, backoff_coefficient=2)


@app.orchestrator
async def onboard(ctx: OrchestrationContext, signup: Signup) -> Welcome:
    """The chain. The result of each step is recorded before the next one begins, and never computed again."""
    user = await ctx.call_activity(create_user, signup, retry=PATIENT)
    home = await ctx.call_activity(create_home, user, retry=PATIENT)
    mail = await ctx.call_activity(send_welcome, user, retry=PATIENT)
    await ctx.call_activity(activate_user, user, retry=PATIENT)
    return Welcome(user.user_id, home, mail)
