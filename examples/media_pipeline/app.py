"""Publish pictures: renditions and moderation at once, in processes; doubtful ones wait for a human, with a deadline."""

import io
import os
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image, ImageOps

from durably import App, NonRetryableError, OrchestrationContext, RetryPolicy, TaskFailedError
from examples.effects import move, transaction, write_file

app = App()

SCHEMA = """
CREATE TABLE IF NOT EXISTS pictures (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, red REAL, decided_by TEXT, note TEXT NOT NULL);
"""

SIZES = {"small": 160, "medium": 480, "large": 960}
"""The longest edge of each rendition, in pixels."""

HARMLESS, BLOODY = 0.1, 0.6
"""Up to this share of red a picture is published, from that one on it is rejected. In between, a human looks."""


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """What somebody has uploaded.

    Attributes:
        name: Of the picture, once in the gallery.
        source: The file as it came.
        gallery: The folder of everything that comes of it.
        review_s: How long a human may think, in seconds: days in real life.
    """

    name: str
    source: str
    gallery: str
    review_s: float


@dataclass(frozen=True)
class Rendition:
    """One size to make."""

    source: str
    target: str
    edge: int


@dataclass(frozen=True)
class Review:
    """The payload of the event `Review`: what a human says."""

    publish: bool
    by: str


@dataclass(frozen=True)
class Outcome:
    """Where a picture stands: `state` is "in review", "published", "rejected" or "unreadable"."""

    name: str
    gallery: str
    state: str
    red: float | None = None
    decided_by: str | None = None
    note: str = ""


# --- activities -------------------------------------------------------------------------------------------------------
#
# The first two compute, so they run in worker processes: the host's event loop and its threads stay free, and a picture
# that crashes the decoder takes along a worker, not the host.


class UnreadableError(NonRetryableError):
    """This is no picture, and will not be one at the next attempt."""


@app.activity(executor="process")
def render(job: Rendition) -> None:
    """Make one size. It replaces a file, so a second run does no harm."""
    image = opened(job.source)
    image.thumbnail((job.edge, job.edge))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    write_file(Path(job.target), content.getvalue())
    # It is made and the runtime does not know it yet: a kill hurts most here, so the example lingers.
    time.sleep(float(os.environ.get("MEDIA_STEP_S", "0")))


@app.activity(executor="process")
def share_of_red(source: str) -> float:
    """How much of a picture is a strong red, 0 to 1: a crude moderator, but one that really looks."""
    image = opened(source)
    image.thumbnail((256, 256))
    hsv = image.convert("HSV").tobytes()
    pixels = zip(hsv[0::3], hsv[1::3], hsv[2::3], strict=True)
    red = sum((hue < 12 or hue > 243) and min(saturation, value) > 110 for hue, saturation, value in pixels)
    return round(red / (image.width * image.height), 3)


def opened(source: str) -> Image.Image:
    """A picture, the right way up, without transparency."""
    content = Path(source).read_bytes()  # a disk in trouble is worth another attempt, what it holds is not
    try:
        with Image.open(io.BytesIO(content)) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # all of Pillow's ways
        raise UnreadableError(f"{Path(source).name} cannot be decoded: {type(error).__name__}") from None


@app.activity
def enter(outcome: Outcome) -> None:
    """Enter where a picture stands, and move its renditions there. Each of the three effects may happen twice."""
    gallery = Path(outcome.gallery)
    with transaction(gallery / "index.db") as db:  # one at a time, so that the page is that of the last row
        db.execute(
            "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)",
            (outcome.name, outcome.state, outcome.red, outcome.decided_by, outcome.note),
        )
        if outcome.state in ("published", "rejected"):
            move(gallery / "work" / outcome.name, gallery / outcome.state / outcome.name)
        rows = db.execute("SELECT name FROM pictures WHERE state = 'published' ORDER BY name")
        write_file(gallery / "index.html", page_of([name for (name,) in rows]).encode())


def page_of(names: list[str]) -> str:
    """The page of what is published."""
    items = "\n".join(
        f'<a href="published/{escape(name)}/large.jpg"><img src="published/{escape(name)}/small.jpg" alt="{escape(name)}"></a>'
        for name in names
    )
    return f"<!doctype html>\n<title>Gallery</title>\n{items}\n"


# --- the orchestrator -------------------------------------------------------------------------------------------------

PATIENT = RetryPolicy(first_retry_interval=1, max_number_of_attempts=5, backoff_coefficient=2)


@app.orchestrator
async def publish_picture(ctx: OrchestrationContext, picture: Picture) -> Outcome:
    """From the upload to the gallery, or to the rejects."""
    work = f"{picture.gallery}/work/{picture.name}"
    sizes = [Rendition(picture.source, f"{work}/{size}.jpg", edge) for size, edge in SIZES.items()]
    ctx.set_custom_status("rendering")
    try:
        # All at once, on as many processors as there are. `when_all` waits for all of them, also when one fails.
        red, *_ = await ctx.when_all(
            [
                ctx.call_activity(share_of_red, picture.source, retry=PATIENT),
                *(ctx.call_activity(render, size, retry=PATIENT) for size in sizes),
            ]
        )
    except TaskFailedError as error:
        outcome = Outcome(picture.name, picture.gallery, "unreadable", note=error.details.message)
    else:
        outcome = await moderate(ctx, picture, red)
    await ctx.call_activity(enter, outcome, retry=PATIENT)
    ctx.set_custom_status(outcome.state)
    return outcome


async def moderate(ctx: OrchestrationContext, picture: Picture, red: float) -> Outcome:
    """Decide by the share of red, or let a human decide."""

    def outcome(state: str, by: str | None = None, note: str = "") -> Outcome:
        return Outcome(picture.name, picture.gallery, state, red, by, note)

    if red <= HARMLESS:
        return outcome("published", "the moderator")
    if red >= BLOODY:
        return outcome("rejected", "the moderator", "too much red")

    await ctx.call_activity(enter, outcome("in review"), retry=PATIENT)
    ctx.set_custom_status("in review")
    review = await ctx.wait_for_external_event("Review", Review, timeout=picture.review_s, default=None)
    if review is None:
        return outcome("rejected", note="nobody has looked at it in time")
    return outcome("published" if review.publish else "rejected", review.by)
