# SPDX-License-Identifier: Apache-2.0
"""The console's requests to the tracker: their order while one is not answered yet."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("dimp_ros.srv", reason="the interfaces are not built: `make setup`, or colcon")
pytest.importorskip("aiohttp", reason="aiohttp is not installed: apt install python3-aiohttp, or pip")

from rclpy.task import Future

from dimp_ros.apps.console.session import Known, Operator
from dimp_ros.apps.console.tracker_client import TrackerServices
from dimp_ros.srv import DropTarget, InitTarget

BOX = (0.0, 0.0, 1.0, 1.0)


class Tracker:
    """A node and its clients; requests are answered when `answer` is called."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.number = 0
        self.futures: list[tuple[Future, int]] = []

    def create_client(self, kind: Any, name: str, callback_group: Any) -> Any:
        """Return the client: this object knows a request by its type."""
        return self

    def service_is_ready(self) -> bool:
        """Return that the tracker is there."""
        return True

    def call_async(self, request: Any) -> Future:
        """Note a request."""
        if isinstance(request, InitTarget.Request):
            self.asked.append(f"start {request.id} {request.drop_number}")
        elif isinstance(request, DropTarget.Request):
            self.asked.append(f"drop {request.id}")
            self.number += 1
        else:
            self.asked.append("enable" if request.data else "pause")
        self.futures.append((Future(), self.number))
        return self.futures[-1][0]

    def answer(self, message: str = "done") -> None:
        """Answer all requests."""
        for future, number in list(self.futures):
            if not future.done():
                future.set_result(DropTarget.Response(success=True, message=message, drop_number=number))

    def remove_pending_request(self, future: Future) -> None:
        """Forget a request whose answer nobody waits for."""


CASES = [
    (["start a", "start a"], ["start a 5", "start a 5"], 0),
    (["start a", "drop a"], ["start a 5", "drop a"], 1),
    (["start a", "start a", "drop a"], ["start a 5", "drop a"], 2),
    (["start a", "start b", "start a", "drop "], ["start a 5", "drop "], 3),
    (["start a", "start b", "drop a"], ["start a 5", "drop a", "start b 5"], 1),
    (["start a", "start a", "drop a", "start a"], ["start a 5", "drop a", "start a 6"], 2),
    (["drop a", "start a"], ["drop a", "start a 6"], 0),
    (["start ", "drop "], ["start  5", "drop ", "drop 7"], 1),
    (["start b", "drop a"], ["start b 5", "drop a"], 0),
]


@pytest.mark.parametrize(("given", "asked", "refused"), CASES)
@pytest.mark.parametrize("pause", [True, False], ids=["one by one", "in one turn of the loop"])
def test_a_start_carries_the_number_of_the_last_drop_before_it(given, asked, refused, pause):
    async def ask() -> list[Any]:
        tracker: Any = Tracker()
        services, tasks = TrackerServices(tracker, "tracker_node", 5.0), []
        services.drop_number = tracker.number = 5
        for one in given:
            kind, name = one.split(" ")
            call = services.init_target((0, 0), BOX, name) if kind == "start" else services.drop_target(name)
            tasks.append(asyncio.ensure_future(call))
            if pause:
                await asyncio.sleep(0.0)
        while not all(task.done() for task in tasks):
            tracker.answer("tracking '7'")
            await asyncio.sleep(0.001)
        assert tracker.asked == asked
        return [task.result() for task in tasks]

    answers = asyncio.run(ask())
    assert [one.message[:8] for one in answers if not one.success] == ["dropped "] * refused


def test_a_start_that_waits_for_a_drop_knows_no_later_one():
    async def ask() -> None:
        tracker: Any = Tracker()
        services = TrackerServices(tracker, "tracker_node", 5.0)
        services.drop_number = tracker.number = 5
        first, drop = services.init_target((0, 0), BOX, "a"), services.drop_target("a")
        calls = first, drop, services.init_target((0, 0), BOX, "a")
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0.0)
        tracker.answer()
        tracker.number = services.drop_number = 15  # other clients have dropped meanwhile
        while not all(task.done() for task in tasks):
            tracker.answer()
            await asyncio.sleep(0.001)
        assert tracker.asked == ["start a 5", "drop a", "start a 6"]

    asyncio.run(ask())


@pytest.mark.parametrize("gone", [False, True], ids=["browser waits", "browser is gone"])
@pytest.mark.parametrize(
    ("name", "number", "asked"),
    [("cup", 5, ["drop cup"]), ("cup", 0, ["drop cup", "drop cup"]), ("", 5, ["drop 7"]), ("", 0, ["drop 7"])],
)
def test_start_that_is_not_answered_in_time_is_taken_back(name, number, asked, gone):
    async def ask() -> None:
        tracker: Any = Tracker()
        services = TrackerServices(tracker, "tracker_node", 0.02)
        services.drop_number = number
        task = asyncio.ensure_future(services.init_target((0, 0), BOX, name))
        await asyncio.sleep(0.0)
        if gone:
            await asyncio.sleep(0.005)
            task.cancel()
        await asyncio.sleep(0.05)
        assert gone or (not task.result().success and "taken back" in task.result().message)
        tracker.answer("tracking '7'; replayed 3 buffered images")
        await asyncio.sleep(0.01)
        assert tracker.asked == [f"start {name} {number}", *asked]

    asyncio.run(ask())


def test_starts_are_taken_back_when_the_console_ends():
    async def ask() -> None:
        tracker: Any = Tracker()
        services = TrackerServices(tracker, "tracker_node", 5.0)
        tasks = [asyncio.ensure_future(services.init_target((0, 0), BOX, name)) for name in ("cup", "cup", "ball")]
        await asyncio.sleep(0.0)
        services.close()
        assert tracker.asked == ["start cup 0", "drop cup"]
        for task in tasks:
            task.cancel()

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("requests", "asked"),
    [
        # A and B drop and start; the number after it is what was shown to them when they asked.
        (["A start a 5"], ["start a 5"]),
        (["B drop a 5", "A start a 5"], ["drop a", "start a 5"]),
        (["B drop  5", "A start a 5"], ["drop ", "start a 5"]),
        (["B drop a 5", "A start a 6"], ["drop a", "start a 6"]),
        (["A drop a 5", "A start a 5"], ["drop a", "start a 6"]),
        (["A drop a 5", "A drop b 5", "A start a 5"], ["drop a", "drop b", "start a 7"]),
        (["B drop a 5", "A drop b 5", "A start a 5"], ["drop a", "drop b", "start a 5"]),
        (["B drop a 5", "A drop b 6", "A start a 6"], ["drop a", "drop b", "start a 7"]),
        (["A drop a 5", "B drop a 6", "A start a 5"], ["drop a", "drop a", "start a 6"]),
        (["A drop a 5", "B drop a 6", "A drop b 5", "A start a 5"], ["drop a", "drop a", "drop b", "start a 6"]),
    ],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["before the answers", "after the answers"])
def test_a_start_that_waited_in_the_link_knows_no_drop_of_others(requests, asked, at_once):
    async def ask() -> None:
        tracker: Any = Tracker()
        services, operators, tasks = (
            TrackerServices(tracker, "tracker_node", 5.0),
            {"A": Operator(), "B": Operator()},
            [],
        )
        services.drop_number = tracker.number = 5
        for one in requests:
            who, kind, name, number = one.split(" ")
            known = Known(operators[who], drop_number=int(number))
            call = (
                services.init_target((0, 0), BOX, name, known) if kind == "start" else services.drop_target(name, known)
            )
            tasks.append(asyncio.ensure_future(call))
            await asyncio.sleep(0.0)
            if not at_once:
                tracker.answer()
                await asyncio.sleep(0.001)
        while not all(task.done() for task in tasks):
            tracker.answer()
            await asyncio.sleep(0.001)
        assert tracker.asked == asked

    asyncio.run(ask())


@pytest.mark.parametrize("pause", ["of this console", "of others", "of others, by one that is paused already"])
def test_the_tracker_is_not_enabled_by_a_request_from_before_its_last_pause(pause):
    async def ask() -> None:
        tracker: Any = Tracker()
        services = TrackerServices(tracker, "tracker_node", 5.0)

        async def set_enabled(enabled: bool, shown: int) -> bool:
            task = asyncio.ensure_future(services.set_enabled(enabled, Known(Operator(), pause_number=shown)))
            await asyncio.sleep(0.0)
            tracker.answer()
            return (await task).success

        assert await set_enabled(False, 0)
        shown = services.pause_number
        assert await set_enabled(True, shown)
        if pause == "of this console":
            assert await set_enabled(False, shown)
        elif pause == "of others":
            services.report(False)
        else:
            assert await set_enabled(False, shown)
            services.report(None)
            services.report(False)
        assert not await set_enabled(True, shown)
        assert tracker.asked.count("enable") == 1
        assert await set_enabled(True, services.pause_number)
        assert tracker.asked.count("enable") == 2
        services.report(False)
        assert await set_enabled(True, 0), "a client that does not tell what it knows"

    asyncio.run(ask())


def test_pause_numbers_grow_over_restarts(monkeypatch):
    tracker: Any = Tracker()
    monkeypatch.setattr("time.time_ns", lambda: 5_000_000)
    first = TrackerServices(tracker, "tracker_node", 5.0).pause_number
    monkeypatch.setattr("time.time_ns", lambda: 6_000_000)
    assert 0 < first < TrackerServices(tracker, "tracker_node", 5.0).pause_number
