# SPDX-License-Identifier: Apache-2.0
"""Client of the tracker's services, called from the web server's thread, with a time-out."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from builtin_interfaces.msg import Time
from rclpy.callback_groups import ReentrantCallbackGroup
from std_srvs.srv import SetBool

from dimp_ros.apps.console.session import Answer, Known
from dimp_ros.ros_utils.messages import bounding_box
from dimp_ros.srv import DropTarget, InitTarget

if TYPE_CHECKING:
    from rclpy.client import Client
    from rclpy.node import Node


class _Start:
    """A start from the request to its answer. :param target_id: empty where the tracker names it."""

    def __init__(self, target_id: str) -> None:
        self.target_id = target_id
        self.unwanted = False  # dropped meanwhile, or not answered in time


class _Drop:
    """A drop that waits for its answer. :param answered: settled then. :param known: by whom, and what he knew."""

    def __init__(self, answered: asyncio.Future[Answer], known: Known | None) -> None:
        self.answered, self.known, self.number = answered, known, 0

    def settle(self, number: int) -> None:
        """Take its number, unless it followed a drop that its operator did not know."""
        if self.known is None or not self.known.drop_number:
            self.number = number
        elif number - 1 <= max(self.known.drop_number, self.known.operator.own_drop):
            self.number = self.known.operator.own_drop = number


class TrackerServices:
    """Calls init_target, drop_target and set_enabled of a tracker node.

    Targets are started one after another, so that the last one counts. A drop is passed on at once; it also drops the
    starts that wait here. With each start goes the number of the last drop that was known when it was asked for, so
    that the tracker refuses it after a later drop, whoever has sent that. A start that is not answered in time is taken
    back by a drop, also when its browser is gone. The tracker is not enabled by a request from before its last pause.

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
        self._open: list[_Start] = []  # not answered yet
        self._sent: list[_Start] = []  # those of them that the tracker has
        self._dropping: set[_Drop] = set()
        self._drops: set[asyncio.Task[Answer]] = set()  # the loop itself keeps no task alive
        self.drop_number = 0
        """Of the last drop that is known, see TargetStateArray."""
        self.pause_number = time.time_ns() // 1_000_000  # grows over restarts: a page may show the former status
        """Of the last pause that is known."""
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

    def report(self, enabled: bool | None) -> None:
        """Take what the tracker reports: whether it is enabled, None if it is not there."""
        if enabled is False and self.enabled is not False:
            self.pause_number += 1
        self.enabled = enabled

    async def init_target(
        self, stamp: tuple[int, int], box: tuple[float, float, float, float], target_id: str, known: Known | None = None
    ) -> Answer:
        """Start a target from ``box``, (x, y, w, h) in pixels, in the image with ``stamp``, seconds and nanoseconds.

        :param known: by whom, and what he knew; None, or a number of 0: all drops until now.
        """
        at = Time(sec=stamp[0], nanosec=stamp[1])
        request = InitTarget.Request(stamp=at, bbox=bounding_box(box), id=target_id)
        asked, before = self.drop_number, list(self._dropping)
        if known is not None and known.drop_number:
            asked = max(known.drop_number, known.operator.own_drop)
            before = [drop for drop in before if drop.known is not None and drop.known.operator is known.operator]
        start = _Start(target_id)
        self._open.append(start)
        try:
            async with self._turn:
                if before:  # asked for before this start, too: their numbers are known when they are answered
                    await asyncio.wait([drop.answered for drop in before])
                request.drop_number = max([asked, *(drop.number for drop in before)])
                if start.unwanted:
                    return Answer(False, "dropped before it was started")
                self._sent.append(start)
                return await self._run(start, request)
        finally:
            if start in self._open and start not in self._sent:
                self._open.remove(start)

    async def drop_target(self, target_id: str, known: Known | None = None) -> Answer:
        """Drop a target; an empty name means all. :param known: by whom, and what he knew."""
        for start in self._open:
            start.unwanted = start.unwanted or target_id in ("", start.target_id)
        return await self._call(DropTarget.Request(id=target_id), DropTarget, known)

    def close(self) -> dict[str, Any]:
        """Take back the starts that the tracker has, but those without a name; from any thread.

        :return: rclpy's futures of the drops, by target.
        """
        drops = {}
        for start in list(self._sent):
            if start.target_id and not start.unwanted and self._clients[DropTarget].service_is_ready():
                start.unwanted = True
                drops[start.target_id] = self._clients[DropTarget].call_async(DropTarget.Request(id=start.target_id))
        return drops

    async def set_enabled(self, enabled: bool, known: Known | None = None) -> Answer:
        """Pause the tracker, or enable it. :param known: what was known; a later pause refuses to enable it."""
        if not enabled:
            self.pause_number += 1
        elif known is not None and 0 < known.pause_number < self.pause_number:
            return Answer(False, "the tracker was paused after this was asked for: ask again if it is still wanted")
        answer = await self._call(SetBool.Request(data=enabled), SetBool)
        if answer.success:
            self.enabled = enabled
        return answer

    async def _run(self, start: _Start, request: InitTarget.Request) -> Answer:
        """Send a start and return its answer; what follows from that is done without the browser, too."""
        loop = asyncio.get_running_loop()
        answered = loop.create_future()

        def expire() -> None:
            start.unwanted = True
            if start.target_id:
                self._drop(start.target_id)
            also = f", and target {start.target_id!r} is dropped" if start.target_id else ""
            settle(
                Answer(False, f"the tracker has not answered for {self._timeout:g} s: the start is taken back{also}")
            )

        def settle(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        def end(answer: Answer, _number: int) -> None:
            timer.cancel()
            self._open.remove(start)
            self._sent.remove(start)
            if answer.success and start.unwanted:
                chosen = re.search(r"tracking '(\d+)'", answer.message)
                if not start.target_id and chosen:  # the drop could not name it
                    self._drop(chosen[1])
                elif not request.drop_number:  # nothing was known of the tracker, which may have served the drop first
                    self._drop(start.target_id)
                answer = Answer(False, "dropped while it was started")
            settle(answer)

        timer = loop.call_later(self._timeout, expire)
        self._send(request, InitTarget, end)
        return cast("Answer", await answered)

    def _drop(self, target_id: str) -> asyncio.Task[Answer]:
        """Drop a target without waiting for it."""
        task = asyncio.ensure_future(self._call(DropTarget.Request(id=target_id), DropTarget))
        self._drops.add(task)
        task.add_done_callback(self._drops.discard)
        return task

    async def _call(self, request: Any, kind: type, known: Known | None = None) -> Answer:
        """Send a request and return its answer."""
        answered = asyncio.get_running_loop().create_future()
        drop = _Drop(answered, known)

        def settle(answer: Answer, number: int) -> None:
            if kind is DropTarget:
                drop.settle(number)
            if not answered.done():
                answered.set_result(answer)

        pending = self._send(request, kind, settle)
        if kind is DropTarget:
            self._dropping.add(drop)
            answered.add_done_callback(lambda _: self._dropping.discard(drop))
        try:
            return cast("Answer", await asyncio.wait_for(answered, self._timeout))
        except asyncio.TimeoutError:
            return Answer(False, f"the tracker has not answered for {self._timeout:g} s: the outcome is unknown")
        finally:
            if pending is not None and not pending.done():
                self._clients[kind].remove_pending_request(pending)

    def _send(self, request: Any, kind: type, settle: Callable[[Answer, int], None]) -> Any:
        """Send a request now; ``settle`` gets its answer and the number of a drop in the loop.

        :returns: rclpy's future; None if it is not sent.
        """
        client, loop = self._clients[kind], asyncio.get_running_loop()
        if not client.service_is_ready():
            missing = (
                f"the tracker is not available: no service /{self.name}/{client.service_name.rpartition('/')[2]}; "
                "start it, or set the console's parameter tracker to its node"
            )
            loop.call_soon(settle, Answer(False, missing), 0)
            return None

        def settle_with(response: Any) -> None:
            number = getattr(response, "drop_number", 0)
            self.drop_number = max(self.drop_number, number)
            settle(Answer(bool(response.success), str(response.message)), number)

        def hand_over(future: Any) -> None:  # in the executor's thread
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle_with, future.result())

        pending = client.call_async(request)
        pending.add_done_callback(hand_over)
        return pending
