# SPDX-License-Identifier: Apache-2.0
"""The console's requests to the tracker: their order while one is not answered yet."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("dimp_ros.srv", reason="the interfaces are not built: `make setup`, or colcon")
pytest.importorskip("aiohttp", reason="aiohttp is not installed: apt install python3-aiohttp, or pip")

from rclpy.task import Future

from dimp_ros.apps.console.tracker_client import TrackerServices
from dimp_ros.srv import DropTarget, InitTarget


class Tracker:
    """A node and its clients; requests are answered when `answer` is called."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.futures: list[Future] = []

    def create_client(self, kind: Any, name: str, callback_group: Any) -> Any:
        """Return the client: this object knows a request by its type."""
        return self

    def service_is_ready(self) -> bool:
        """Return that the tracker is there."""
        return True

    def call_async(self, request: Any) -> Future:
        """Note a request."""
        self.asked.append(f"{'start' if isinstance(request, InitTarget.Request) else 'drop'} {request.id}")
        self.futures.append(Future())
        return self.futures[-1]

    def answer(self, message: str = "done") -> None:
        """Answer all requests."""
        for future in list(self.futures):
            if not future.done():
                future.set_result(DropTarget.Response(success=True, message=message))

    def remove_pending_request(self, future: Future) -> None:
        """Forget a request whose answer nobody waits for."""


@pytest.mark.parametrize(
    ("given", "asked", "refused"),
    [
        (["start a", "start a"], ["start a", "start a"], 0),
        (["start a", "drop a"], ["start a", "drop a", "drop a"], 1),
        (["start a", "start a", "drop a"], ["start a", "drop a", "drop a"], 2),
        (["start a", "start b", "start a", "drop "], ["start a", "drop ", "drop a"], 3),
        (["start a", "start b", "drop a"], ["start a", "drop a", "drop a", "start b"], 1),
        (["start a", "start a", "drop a", "start a"], ["start a", "drop a", "drop a", "start a"], 2),
        (["start ", "drop "], ["start ", "drop ", "drop 7"], 1),
        (["start b", "drop a"], ["start b", "drop a"], 0),
    ],
)
@pytest.mark.parametrize("pause", [True, False], ids=["one by one", "in one turn of the loop"])
def test_drop_is_not_overtaken_by_starts_before_it(given, asked, refused, pause):
    async def ask() -> list[Any]:
        tracker: Any = Tracker()
        services, tasks = TrackerServices(tracker, "tracker_node", 5.0), []
        for one in given:
            kind, name = one.split(" ")
            box = (0.0, 0.0, 1.0, 1.0)
            call = services.init_target((0, 0), box, name) if kind == "start" else services.drop_target(name)
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


BOX = (0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("gone", [False, True], ids=["browser waits", "browser is gone"])
@pytest.mark.parametrize(("name", "asked"), [("cup", ["drop cup", "drop cup"]), ("", ["drop 7"])])
def test_start_that_is_not_answered_in_time_is_taken_back(name, asked, gone):
    async def ask() -> None:
        tracker: Any = Tracker()
        services = TrackerServices(tracker, "tracker_node", 0.02)
        task = asyncio.ensure_future(services.init_target((0, 0), BOX, name))
        await asyncio.sleep(0.0)
        if gone:
            await asyncio.sleep(0.005)
            task.cancel()
        await asyncio.sleep(0.05)
        assert gone or (not task.result().success and "taken back" in task.result().message)
        tracker.answer("tracking '7'; replayed 3 buffered images")
        await asyncio.sleep(0.01)
        assert tracker.asked == [f"start {name}", *asked]

    asyncio.run(ask())


def test_late_answer_to_an_old_start_does_not_drop_the_new_one():
    async def ask() -> None:
        tracker: Any = Tracker()
        services = TrackerServices(tracker, "tracker_node", 0.02)
        await services.init_target((0, 0), BOX, "cup")
        services._timeout = 5.0
        again = asyncio.ensure_future(services.init_target((0, 0), BOX, "cup"))
        await asyncio.sleep(0.005)
        tracker.answer()
        assert (await again).success and tracker.asked == ["start cup", "drop cup", "start cup"]

    asyncio.run(ask())
