"""Conformance: how much waits in a hub."""

from __future__ import annotations

from durably.storage.api import WORKLOAD_MAX, Workload
from durably.testing.store_scene import Scene, StoreHooks, instance_row, message, scenario, timer_row


class WorkloadConformance(StoreHooks):
    """`workload`."""

    @scenario
    async def test_nothing_waits_in_a_new_hub(self, scene: Scene) -> None:
        assert await scene.store.workload(100) == Workload(100, 0, None, None, 0, None, None, 0)

    @scenario
    async def test_what_waits_is_counted_but_for_what_is_held(self, scene: Scene) -> None:
        """Held: `s` is suspended, `b` blocked, `p` parked, and `l` is to begin later."""
        held = [
            instance_row("s", 2, status="Suspended", in_flight=True),
            instance_row("b", 3, blocked="a diff", in_flight=True),
            instance_row("p", 4, parked="a cause", in_flight=True),
            instance_row("l", 5, status="Pending", start_at=900),
        ]
        timers = [timer_row(row.execution, 1, 20, instance_id=row.instance_id) for row in held]
        await scene.commit(
            instances=[instance_row("a", 1, in_flight=True), *held],
            timers_set=[
                *timers,
                timer_row(1, 1, 30),
                timer_row(1, 2, 100),
                timer_row(1, 3, 101),
                timer_row(1, 4, 900),
                timer_row(6, 1, 90, instance_id="@entity@x"),
            ],
        )
        await scene.store.post(
            [
                message("1", "a", at=50),
                message("2", "a", at=40),
                message("3", "nobody", at=60),
                message("4", "@entity@x", at=70),
                message("5", "s", at=10),
                message("6", "l", at=80),
            ]
        )
        assert await scene.store.workload(100) == Workload(
            at=100,
            messages=4,
            oldest_message_at=40,
            newest_held_at=80,
            timers_due=3,
            oldest_due_at=30,
            next_due_at=101,
            in_flight=1,
        )
        later = await scene.store.workload(1_000)  # the time of `l` has come, and nobody has begun it yet
        assert (later.messages, later.newest_held_at, later.timers_due, later.next_due_at) == (5, 10, 6, None)

    @scenario
    async def test_an_instance_that_should_have_begun_is_not_held(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("l", 1, status="Pending", start_at=50, in_flight=True)])
        found = [(await scene.store.workload(at)).in_flight for at in (49, 50)]
        assert found == [0, 1]

    @scenario
    async def test_timers_that_are_held_do_not_hide_the_rest(self, scene: Scene) -> None:
        await scene.commit(
            instances=[instance_row("s", 1, status="Suspended"), instance_row("a", 2)],
            timers_set=[timer_row(1, number, 20, instance_id="s") for number in range(WORKLOAD_MAX)],
        )
        await scene.commit(timers_set=[timer_row(2, 1, 30, instance_id="a")])
        assert not await _is_idle(scene)

    @scenario
    async def test_messages_that_are_held_do_not_hide_the_rest(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("s", 1, status="Suspended")])
        await scene.store.post([message(f"s{number}", "s", at=10) for number in range(WORKLOAD_MAX)])
        await scene.store.post([message("new", "nobody", at=20)])
        assert not await _is_idle(scene)

    @scenario
    async def test_the_hub_has_a_clock_of_its_own(self, scene: Scene) -> None:
        first, second = await scene.store.workload(), await scene.store.workload()
        assert 0 < first.at <= second.at


async def _is_idle(scene: Scene) -> bool:
    found = await scene.store.workload(100)
    return not (found.messages or found.timers_due or found.in_flight)
