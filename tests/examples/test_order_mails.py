"""The mails of an order go over real SMTP to a server that outlives the shop, which is killed, and over virtual weeks."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from email import message_from_bytes
from pathlib import Path

import pytest

from durably import OrchestrationFailedError
from durably.testing.pytest_plugin import DurableEnv
from examples.effects import create, query
from examples.order_mails import app as shop
from examples.order_mails.post_office import open_post_office
from tests.examples.commands import Example

BOXES = ("ann@example.org", "bob@example.org", "cy@example.org")
SUBJECTS = ("Thank you for your order", "Your parcel is on its way", "How do you like it?")


def subjects(mail: Path, box: str) -> list[str]:
    letters = [message_from_bytes(file.read_bytes()) for file in (mail / box).glob("new/*")]
    return sorted(str(letter["Subject"]).split(" (")[0] for letter in letters)


def answers(mail: Path) -> Counter[str]:
    return Counter(line.split("'")[0].strip() for line in (mail / "log").read_text().splitlines())


@pytest.mark.slow_once
def test_each_mail_is_in_its_box_once_though_the_shop_is_killed_after_the_server_took_it(
    tmp_path: Path,
) -> None:
    example, mail = Example("order_mails", tmp_path / "shop"), tmp_path / "mail"
    with open_post_office(mail, BOXES) as office:
        server = ("--smtp", office.address)

        # The server has said 250 and the shop lingers: it dies before it knows.
        def three_are_kept() -> bool:
            return (mail / "log").exists() and (mail / "log").read_text().count(" kept ") >= 3

        example.kill_when(three_are_kept, *server, "--step", "60")
        out = example.run(*server, "--review-after", "0.2")

    assert "order-4  nobody@example.org  unreachable: 550 5.1.1 no such mailbox" in out
    seen = answers(mail)
    assert seen["nobody@example.org 550 5.1.1 no such mailbox"] == 1
    for box in BOXES:
        expected = SUBJECTS[:2] if box.startswith("bob") else SUBJECTS
        assert subjects(mail, box) == sorted(expected)
        assert seen[f"{box} 451 4.7.1 greylisted, come back later"] == 1
        assert seen[f"{box} 250 dropped a double of"] == 1
    states = dict(example.query("orders.db", "SELECT order_id, state FROM orders"))
    assert states == {"order-1": "done", "order-2": "done", "order-3": "done", "order-4": "unreachable"}


async def test_a_review_is_asked_for_two_weeks_after_the_parcel_with_deaths_and_doubles_on_the_way(
    durable_env: DurableEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weeks = timedelta(days=14)
    with open_post_office(tmp_path, BOXES) as office:
        set_up_shop(monkeypatch, tmp_path, office.address)
        async with durable_env(shop.app, auto_skip=False) as env:
            dies, doubles = env.kill_after(shop.send_mail, times=2), env.duplicate(shop.enter)
            order = shop.Order("order-1", BOXES[0], "a lamp", weeks.total_seconds())
            handle = await env.start(shop.accompany_order, order)
            await env.advance(1)  # past the greylist
            assert subjects(tmp_path, BOXES[0]) == [SUBJECTS[0]]
            await handle.raise_event("Shipped", "parcel-1")
            await env.settle()
            await env.advance(weeks - timedelta(seconds=1))
            assert subjects(tmp_path, BOXES[0]) == sorted(SUBJECTS[:2])
            await env.advance(1)
            assert (await handle.result()).note == "asked for a review"
            assert (dies.happened, doubles.happened, env.deaths) == (2, 1, 2)
    assert subjects(tmp_path, BOXES[0]) == sorted(SUBJECTS)
    seen = answers(tmp_path)
    assert seen[f"{BOXES[0]} 250 kept"] == 3
    assert seen[f"{BOXES[0]} 250 dropped a double of"] >= 1


async def test_a_server_that_is_down_is_tried_for_hours_and_then_the_order_can_be_rewound(
    durable_env: DurableEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_post_office(tmp_path, BOXES) as office:
        closed = office.address
    set_up_shop(monkeypatch, tmp_path, closed)
    async with durable_env(shop.app) as env:
        began = env.now
        handle = await env.start(shop.accompany_order, shop.Order("order-1", BOXES[0], "a lamp", 0))
        with pytest.raises(OrchestrationFailedError, match="no answer"):
            await handle.result()
        assert len(env.calls(shop.send_mail)) == shop.POSTMAN.max_number_of_attempts
        assert env.now - began > timedelta(minutes=3)
        with open_post_office(tmp_path, BOXES, greylists=False) as office:
            monkeypatch.setenv("SHOP_SMTP", office.address)
            await handle.rewind()
            await handle.raise_event("Shipped", "parcel-1")
            assert (await handle.result()).state == "done"
    assert subjects(tmp_path, BOXES[0]) == sorted(SUBJECTS)


async def test_an_address_that_would_smuggle_a_header_never_reaches_the_server(
    durable_env: DurableEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up_shop(monkeypatch, tmp_path, "127.0.0.1:1")
    async with durable_env(shop.app) as env:
        state = await env.run(
            shop.accompany_order, shop.Order("order-1", "ann@example.org\nBcc: all@example.org", "a lamp", 0)
        )
        assert state.state == "unreachable"
        assert len(env.calls(shop.send_mail)) == 1
    assert query(tmp_path / "orders.db", "SELECT state FROM orders") == [("unreachable",)]


def set_up_shop(monkeypatch: pytest.MonkeyPatch, folder: Path, server: str) -> None:
    create(folder / "orders.db", shop.SCHEMA)
    monkeypatch.setenv("SHOP_DB", str(folder / "orders.db"))
    monkeypatch.setenv("SHOP_SMTP", server)
