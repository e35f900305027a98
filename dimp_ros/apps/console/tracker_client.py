# SPDX-License-Identifier: Apache-2.0
"""Client of the tracker's services, called from the web server's thread, with a time-out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from builtin_interfaces.msg import Time
from rclpy.callback_groups import ReentrantCallbackGroup
from std_srvs.srv import SetBool

from dimp_ros.apps.console.session import Answer
from dimp_ros.ros_utils.messages import bounding_box
from dimp_ros.srv import DropTarget, InitTarget

if TYPE_CHECKING:
    from rclpy.client import Client
    from rclpy.node import Node


class _Waiting:
    """A start that waits for its turn."""

    def __init__(self, target_id: str) -> None:
        self.target_id, self.dropped = target_id, False


class TrackerServices:
    """Calls init_target, drop_target and set_enabled of a tracker node.

    Targets are started one after another, so that the last one counts; a drop is passed on at once, and also drops the
    starts that still wait here: the tracker would serve them after it. A start that is not answered in time is taken
    back: nobody waits for it any more when the tracker serves it.

    :param tracker: name of its node, relative to ``node``'s namespace or absolute. :param timeout: seconds.
    """

    def __init__(self, node: Node, tracker: str, timeout: float) -> None:
        self._timeout = timeout
        group = ReentrantCallbackGroup()  # answers must not wait for each other
        self._clients: Mapping[type, Client] = {
            kind: node.create_client(kind, f"{tracker}/{name}", callback_group=group)
            for kind, name in ((InitTarget, "init_target"), (DropTarget, "drop_target"), (SetBool, "set_enabled"))
        }
        self._turn = asyncio.Lock()
        self._newest: dict[str, Any] = {}  # the last start of each name, by which a late answer is told from an old one
        self._starts: set[asyncio.Task[Answer]] = set()  # the loop itself keeps no task alive
        self._waiting: list[_Waiting] = []
        self.enabled: bool | None = None
        """Whether the tracker is enabled, as last set or reported; None if unknown."""

    @property
    def name(self) -> str:
        """The tracker node's name with namespace, without leading slash, as in diagnostics."""
        service = str(self._clients[InitTarget].service_name)
        return service.rpartition("/")[0].lstrip("/")

    @property
    def are_there(self) -> bool:
        """Whether all services of the tracker are available."""
        return all(client.service_is_ready() for client in self._clients.values())

    async def init_target(
        self, stamp: tuple[int, int], box: tuple[float, float, float, float], target_id: str
    ) -> Answer:
        """Start a target from ``box``, (x, y, w, h) in pixels, in the image with ``stamp``, seconds and nanoseconds."""
        time = Time(sec=stamp[0], nanosec=stamp[1])
        request = InitTarget.Request(stamp=time, bbox=bounding_box(box), id=target_id)
        entry = _Waiting(target_id)
        self._waiting.append(entry)
        try:
            async with self._turn:
                if entry.dropped:
                    return Answer(False, "dropped before it was started")
                self._waiting.remove(entry)
                start = asyncio.create_task(self._call(request, InitTarget))  # goes on when the browser is gone
                self._starts.add(start)
                start.add_done_callback(self._starts.discard)
                return await asyncio.shield(start)
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    async def drop_target(self, target_id: str) -> Answer:
        """Drop a target; an empty name means all."""
        for entry in self._waiting:
            entry.dropped = entry.dropped or target_id in ("", entry.target_id)
        return await self._call(DropTarget.Request(id=target_id), DropTarget)

    async def set_enabled(self, enabled: bool) -> Answer:
        """Enable or pause the tracker."""
        answer = await self._call(SetBool.Request(data=enabled), SetBool)
        if answer.success:
            self.enabled = enabled
        return answer

    async def _call(self, request: Any, kind: type) -> Answer:
        client = self._clients[kind]
        if not client.service_is_ready():
            return Answer(
                False,
                f"the tracker is not available: no service /{self.name}/{client.service_name.rpartition('/')[2]}; "
                "start it, or set the console's parameter tracker to its node",
            )
        loop = asyncio.get_running_loop()
        answered = loop.create_future()

        def settle(response: Any) -> None:
            if not answered.done():
                answered.set_result(response)

        def hand_over(future: Any) -> None:  # in the executor's thread
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, future.result())

        pending = client.call_async(request)
        if kind is InitTarget:
            self._newest[request.id] = pending
            pending.add_done_callback(lambda _: self._forget(request.id, pending))
        pending.add_done_callback(hand_over)
        try:
            response = await asyncio.wait_for(answered, self._timeout)
        except asyncio.TimeoutError:
            silence = f"the tracker has not answered for {self._timeout:g} s"
            if kind is InitTarget:
                self._take_back(pending, request.id)
                also = f", and target {request.id!r} is dropped" if request.id else ""
                return Answer(False, f"{silence}: the start is taken back{also}")
            return Answer(False, f"{silence}: the outcome is unknown")
        finally:
            if not pending.done() and kind is not InitTarget:
                client.remove_pending_request(pending)
        return Answer(bool(response.success), str(response.message))

    def _forget(self, target_id: str, start: Any) -> None:
        """Forget a start that was answered, unless there is a newer one of its name."""
        if self._newest.get(target_id) is start:
            self._newest.pop(target_id, None)

    def _take_back(self, start: Any, target_id: str) -> None:
        """Drop a target now, and once more when its start is answered: the tracker may serve the drop before it.

        A target that the tracker names is dropped by the name in its late answer.
        """

        def drop(name: str) -> None:
            if name and self._clients[DropTarget].service_is_ready():
                self._clients[DropTarget].call_async(DropTarget.Request(id=name))

        def drop_started(future: Any) -> None:
            if future.result().success and (not target_id or self._newest.get(target_id, start) is start):
                chosen = re.search(r"tracking '(\d+)'", future.result().message)
                drop(target_id or (chosen[1] if chosen else ""))

        drop(target_id)
        start.add_done_callback(drop_started)
