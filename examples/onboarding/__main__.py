"""Sign some people up, all at once, and show what is in the database and in the spool."""

import argparse
import os
import sys
from pathlib import Path

from durably import OrchestrationFailedError
from examples.command import at_least, command, run
from examples.effects import create, query
from examples.onboarding.app import SCHEMA, Signup, app, onboard

SIGNUPS = [
    Signup("ada@example.org", "Ada"),
    Signup("grace@example.org", "Grace"),
    Signup("linus@example.org", "Linus T."),  # the address of a customer from before: this one is refused
]


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Onboard everybody; run it again after a crash and it goes on."""
    os.environ["ONBOARDING_DIR"] = str(folder)
    os.environ["ONBOARDING_STEP_S"] = str(arguments.step)
    create(folder / "users.db", SCHEMA)
    signups = SIGNUPS
    if arguments.email:
        signups = [Signup(arguments.email, arguments.email.partition("@")[0].title())]

    print("Steps, as they are done:")
    async with app.host(f"sqlite:///{folder / 'hub.db'}") as host:
        # The id makes the start idempotent: a second run of this program follows the instances that are there.
        handles = [
            await host.client.start(
                onboard, signup, instance_id=f"onboard-{signup.email}", on_existing="attach"
            )
            for signup in signups
        ]
        results: list[str] = []
        for signup, handle in zip(signups, handles, strict=True):
            try:
                welcome = await handle.result()
                results.append(f"  {signup.email:18} is user {welcome.user_id}, mail {welcome.mail}")
            except OrchestrationFailedError as error:
                # The details tell that a task failed; the failure inside tells why.
                cause = error.details.inner or error.details
                results.append(f"  {signup.email:18} refused: {cause.message}")
    print("\nResults:", *results, sep="\n")

    print(f"\n{folder}/users.db:")
    for user_id, email, state in query(folder / "users.db", "SELECT user_id, email, state FROM users"):
        print(f"  {user_id}  {email:18} {state}")
    print(f"\n{folder}/spool:")
    for mail in sorted(folder.glob("spool/*.eml")):
        print(f"  {mail.name}  {mail.read_text().splitlines()[0]}")
    return True


parser = command("onboarding", "Function chaining: sign up users, step by step.")
parser.add_argument("--email", help="sign up this address only")
parser.add_argument("--step", type=at_least(0), default=0.2, help="seconds each step takes (0.2)")

if __name__ == "__main__":
    sys.exit(run(parser, main))
