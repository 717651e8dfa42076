"""Publish the pictures of a folder, by default made up ones, and play the human who looks at the doubtful."""

import argparse
import asyncio
import io
import os
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from durably import Handle, InstanceStateError
from examples.command import at_least, command, run
from examples.effects import create, query, write_file
from examples.media_pipeline.app import SCHEMA, Outcome, Picture, Review, app, publish_picture

RED_SHARES = {"alarm": 0.9, "carpet": 0.25, "meadow": 0.0, "poppies": 0.2, "sea": 0.02, "sunset": 0.4}
"""The pictures that are made up, and how much of each is red. Nobody looks at the carpet."""

OPINIONS = {"poppies": True, "sunset": False}


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """One orchestration for each picture."""
    os.environ["MEDIA_STEP_S"] = str(arguments.step)
    create(folder / "index.db", SCHEMA)
    incoming: Path = arguments.pictures or make_up(folder / "incoming")
    async with app.host(f"sqlite:///{folder / 'hub.db'}") as host:
        handles: list[Handle[Outcome]] = []
        for file in sorted(path for path in incoming.iterdir() if path.is_file()):
            picture = Picture(file.stem, str(file.resolve()), str(folder), arguments.deadline)
            handles.append(
                await host.client.start(
                    publish_picture, picture, instance_id=f"picture-{file.stem}", on_existing="attach"
                )
            )
        print(f"{incoming}: {len(handles)} pictures")
        human = asyncio.create_task(look_at_the_doubtful(folder, handles))
        for handle in handles:
            outcome = await handle.result()
            red = "" if outcome.red is None else f"{outcome.red:.0%} red"
            print(f"  {outcome.name:10} {outcome.state:10} {red:8} {outcome.decided_by or outcome.note}")
        human.cancel()

    print(f"{folder}:")
    for state in ("published", "rejected"):
        names = sorted(path.name for path in folder.glob(f"{state}/*"))
        print(f"  {state}: {', '.join(names)}")
    return True


async def look_at_the_doubtful(folder: Path, handles: list[Handle[Outcome]]) -> None:
    """Look into the index from time to time, as people do, and raise the event."""
    by_name = {handle.instance_id.removeprefix("picture-"): handle for handle in handles}
    opinions = dict(OPINIONS)
    while opinions:
        for (name,) in query(folder / "index.db", "SELECT name FROM pictures WHERE state = 'in review'"):
            if name in opinions and name in by_name:
                try:
                    await by_name[name].raise_event("Review", Review(opinions.pop(name), "Mia"))
                except InstanceStateError as error:
                    print(f"too late: {error}")  # the deadline was faster
        await asyncio.sleep(0.05)


def make_up(folder: Path) -> Path:
    """Draw pictures, and write a file that is none."""
    if not folder.exists():
        for name, red in RED_SHARES.items():
            image = Image.new("RGB", (960, 640))
            draw = ImageDraw.Draw(image)
            for row in range(image.height):  # sky to meadow
                draw.line((0, row, image.width, row), fill=(90, 100 + row // 6, 220 - row // 3))
            draw.rectangle((0, 0, image.width * red, image.height), fill=(210, 16, 24))
            content = io.BytesIO()
            image.save(content, "PNG")
            write_file(folder / f"{name}.png", content.getvalue())
        write_file(folder / "words.jpg", b"no picture at all")
    return folder


parser = command("media_pipeline", "Media pipeline: renditions, moderation, human review.")
parser.add_argument("pictures", type=Path, nargs="?", help="a folder of pictures (made up)")
parser.add_argument("--deadline", type=at_least(0), default=1, help="seconds a human may think (1)")
parser.add_argument("--step", type=at_least(0), default=0, help="seconds that each rendition lingers (0)")

if __name__ == "__main__":
    sys.exit(run(parser, main))
