"""Review a picture from another process, as the page of a moderator would: a client of the hub raises the event."""

import argparse
import sys
from pathlib import Path

from durably import Client
from examples.command import command, run
from examples.effects import query


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Raise the event; without a name, list what waits."""
    if arguments.picture is None:
        for name, red in query(
            folder / "index.db", "SELECT name, red FROM pictures WHERE state = 'in review'"
        ):
            print(f"{name}  {red:.0%} red  {folder / 'work' / name / 'large.jpg'}")
        return True
    if not arguments.publish and not arguments.reject:
        parser.error("expected --publish or --reject")
    review = {"publish": arguments.publish, "by": arguments.by}
    async with Client(f"sqlite:///{folder / 'hub.db'}") as client:
        await client.raise_event(f"picture-{arguments.picture}", "Review", review)
    print(f"{arguments.by} wants {arguments.picture} {'published' if arguments.publish else 'rejected'}")
    return True


parser = command("media_pipeline.review", "List the pictures that wait for a human, or decide on one.")
parser.add_argument("picture", nargs="?", help="its name, such as carpet")
answer = parser.add_mutually_exclusive_group()
answer.add_argument("--publish", action="store_true", help="say yes")
answer.add_argument("--reject", action="store_true", help="say no")
parser.add_argument("--by", default="Bo", help="who decides (Bo)")

if __name__ == "__main__":
    sys.exit(run(parser, main))
