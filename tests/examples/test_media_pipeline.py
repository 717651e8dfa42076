"""The media pipeline: real pictures, worker processes, a human in another process, kill -9, and days in milliseconds."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from PIL import Image

from durably.testing.pytest_plugin import DurableEnv
from examples.effects import create
from examples.media_pipeline import app as media
from tests.examples.commands import Example, lines_until

NAMES = {"published": {"meadow", "poppies", "sea"}, "rejected": {"alarm", "carpet", "sunset"}}


@pytest.mark.slow_once
def test_pictures_killed_while_they_are_rendered_end_in_their_folders_once(tmp_path: Path) -> None:
    pipeline = Example("media_pipeline", tmp_path)

    # A rendition is made, and its process lingers: nobody knows of it.
    pipeline.kill_when(lambda: any(tmp_path.glob("work/*/*.jpg")), "--step", "60")
    out = pipeline.run("--deadline", "0.5")

    assert "carpet     rejected   25% red  nobody has looked at it in time" in out
    assert "words      unreadable          cannot identify image file" in out
    assert_settled(pipeline)
    page = (tmp_path / "index.html").read_text()
    assert page.count("<img ") == 3
    for picture in NAMES["published"]:
        assert f'src="published/{picture}/small.jpg"' in page


@pytest.mark.slow_once
def test_a_human_decides_while_nobody_serves_the_hub(tmp_path: Path) -> None:
    pipeline, review = (
        Example("media_pipeline", tmp_path / "gallery"),
        Example("media_pipeline.review", tmp_path / "gallery"),
    )
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    image = Image.new("RGB", (600, 1200), "white")
    image.paste((220, 10, 20), (0, 0, 600, 400))
    image.save(incoming / "flag.png")

    def waits() -> bool:
        return len(pipeline.query("index.db", "SELECT 1 FROM pictures WHERE state = 'in review'")) > 0

    pipeline.kill_when(waits, str(incoming), "--deadline", "600")
    assert review.run() == f"flag  33% red  {tmp_path}/gallery/work/flag/large.jpg\n"
    review.run("flag", "--publish", "--by", "Cy")
    with pipeline.started(str(incoming)) as process:
        lines_until("flag       published  33% red  Cy", process)

    with Image.open(tmp_path / "gallery/published/flag/medium.jpg") as rendition:
        assert rendition.size == (240, 480)


def assert_settled(pipeline: Example) -> None:
    """Each picture is where it belongs, in all sizes and no other place."""
    for state, names in NAMES.items():
        folders = list((pipeline.folder / state).iterdir())
        assert {folder.name for folder in folders} == names
        for folder in folders:
            for size, edge in media.SIZES.items():
                with Image.open(folder / f"{size}.jpg") as image:
                    assert image.format == "JPEG"
                    assert max(image.size) == edge
        rows = pipeline.query("index.db", f"SELECT name FROM pictures WHERE state = '{state}'")
        assert {name for (name,) in rows} == names
    assert list((pipeline.folder / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("review", "state", "note"),
    [
        (media.Review(publish=True, by="Mia"), "published", ""),
        (media.Review(publish=False, by="Mia"), "rejected", ""),
        (None, "rejected", "nobody has looked at it in time"),
    ],
)
async def test_a_doubtful_picture_waits_three_days_for_a_human(
    durable_env: DurableEnv, tmp_path: Path, review: media.Review | None, state: str, note: str
) -> None:
    create(tmp_path / "index.db", media.SCHEMA)
    days = timedelta(days=3)
    async with durable_env(media.app, auto_skip=False) as env:
        env.mock_activity(media.share_of_red, returns=0.3)
        env.mock_activity(media.render)
        env.kill_after(media.enter)  # it has entered that a human has to look, and nobody knows
        picture = media.Picture("flag", "flag.png", str(tmp_path), days.total_seconds())
        handle = await env.start(media.publish_picture, picture)
        await env.settle()
        await env.advance(days - timedelta(seconds=1))
        status = await handle.status()
        assert status is not None
        assert status.custom_status == "in review"
        if review is not None:
            await handle.raise_event("Review", review)
        await env.advance(timedelta(seconds=1))
        outcome = await handle.result()
        assert (outcome.state, outcome.note, env.deaths) == (state, note, 1)
