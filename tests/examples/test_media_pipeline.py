"""The media pipeline: real pictures, worker processes, a human in another process, kill -9, and days in milliseconds."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from PIL import Image

from durably.testing.pytest_plugin import DurableEnv
from examples.effects import create
from examples.media_pipeline import app as media
from tests.examples.commands import Example

NAMES = {"published": {"carpet", "meadow", "poppies", "sea"}, "rejected": {"alarm", "sunset"}}


@pytest.mark.slow_once
def test_pictures_killed_while_they_are_rendered_and_while_a_human_thinks_end_where_they_belong(
    tmp_path: Path,
) -> None:
    pipeline, review = Example("media_pipeline", tmp_path), Example("media_pipeline.review", tmp_path)

    # A rendition is made, and its process lingers: nobody knows of it.
    pipeline.kill_when(lambda: any(tmp_path.glob("work/*/*.jpg")), "--step", "60", "--deadline", "600")

    def only_the_carpet_waits() -> bool:
        rows = pipeline.query("index.db", "SELECT name, state = 'in review' FROM pictures")
        return len(rows) == 7 and [name for name, waits in rows if waits] == ["carpet"]

    pipeline.kill_when(only_the_carpet_waits)
    assert review.run() == f"carpet  25% red  {tmp_path}/work/carpet/large.jpg\n"
    review.run("carpet", "--publish", "--by", "Cy")  # nobody serves the hub: the event waits there
    out = pipeline.run()

    assert "carpet     published  25% red  Cy" in out
    assert "words      unreadable          words.jpg cannot be decoded: UnidentifiedImageError" in out
    assert_settled(pipeline)
    page = (tmp_path / "index.html").read_text()
    assert page.count("<img ") == 4
    for picture in NAMES["published"]:
        assert f'src="published/{picture}/small.jpg"' in page


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


def test_a_rendition_stands_upright_and_fits_and_the_share_of_red_is_that_of_the_pixels(
    tmp_path: Path,
) -> None:
    image = Image.new("RGB", (1200, 600), "white")
    image.paste((220, 10, 20), (0, 0, 300, 600))
    lies_on_its_side = Image.Exif()
    lies_on_its_side[274] = 6
    image.save(tmp_path / "flag.png", exif=lies_on_its_side)
    source = str(tmp_path / "flag.png")

    assert media.share_of_red(source) == 0.25
    for _ in range(2):
        media.render(media.Rendition(source, str(tmp_path / "flag.jpg"), 480))
        with Image.open(tmp_path / "flag.jpg") as rendition:
            assert (rendition.format, rendition.size) == ("JPEG", (240, 480))
    (tmp_path / "half.png").write_bytes((tmp_path / "flag.png").read_bytes()[:600])
    with pytest.raises(media.UnreadableError, match=r"half.png cannot be decoded: OSError"):
        media.share_of_red(str(tmp_path / "half.png"))


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
    (tmp_path / "work" / "flag").mkdir(parents=True)
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
    assert (tmp_path / state / "flag").is_dir()
