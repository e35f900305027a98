# SPDX-License-Identifier: Apache-2.0
"""The session of one browser: sends images and states at the rate of its link, and serves its requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from aiohttp import WSMsgType, web

from dimp_ros.apps.console.access import Allowance
from dimp_ros.apps.console.jpeg_encoder import JpegEncoder
from dimp_ros.apps.console.protocol import Ack, Drop, Enable, Init, Login, pack_image, parse
from dimp_ros.apps.console.rate_control import RateControl
from dimp_ros.apps.console.settings import ConsoleSettings
from dimp_ros.apps.console.state import ConsoleState, ShownImage, stamp_fields, update_fields

STATUS_SECONDS = 0.5
"""Period of status messages if nothing changes: they show the browser that the robot is connected."""

CHANGE_SECONDS = 0.05
"""Shortest time between two status messages."""

REQUESTS_AT_ONCE = 4
"""Starts, and other requests."""
MESSAGES_A_SECOND, MESSAGES_IN_RESERVE = 150.0, 300.0
REQUESTS_A_SECOND, REQUESTS_IN_RESERVE = 5.0, 10.0


class Close(NamedTuple):
    """The reason for closing a connection: a WebSocket close code, and a text for the user."""

    code: int
    text: str


PROTOCOL_ERROR, FLOOD, TOO_SLOW = 4400, 4429, 4408


class Answer(NamedTuple):
    """Whether a request succeeded, and the tracker's message."""

    success: bool
    message: str


class Operator:
    """Who sits at one browser. :param own_drop: number of his last drop, if he knew of all those before it."""

    def __init__(self) -> None:
        self.own_drop = 0


class Known(NamedTuple):
    """What an operator knew when he asked: a request may have waited in his link while others dropped or paused.

    :param drop_number: that was shown to him, see TargetStateArray; 0 if not told. :param pause_number: likewise.
    """

    operator: Operator
    drop_number: int = 0
    pause_number: int = 0


class TrackerClient(Protocol):
    """The requests that a browser can make."""

    async def init_target(
        self, stamp: tuple[int, int], box: tuple[float, float, float, float], target_id: str, known: Known | None = None
    ) -> Answer:
        """Start a target from a box in the image with a stamp, unless it was dropped since what is known."""
        ...

    async def drop_target(self, target_id: str, known: Known | None = None) -> Answer:
        """Drop a target; an empty name means all."""
        ...

    async def set_enabled(self, enabled: bool, known: Known | None = None) -> Answer:
        """Pause the tracker, or enable it unless it was paused since what is known."""
        ...


class Session:
    """Serves one browser until it disconnects, breaks the protocol, or no longer acknowledges messages.

    There is no queue: a message is composed when the link has room for it, from the state at that moment. Images are
    sent after the first acknowledgement only, see `RateControl.wants_probe`.

    :param admit: called once, at the latest with the first valid message; returns why the browser must leave, or None.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        state: ConsoleState,
        images: JpegEncoder,
        tracker: TrackerClient,
        settings: ConsoleSettings,
        admit: Callable[[Session], Close | None],
    ) -> None:
        self._socket = socket
        self._state = state
        self._jpegs = images
        self._tracker = tracker
        self._settings = settings
        self._woken = asyncio.Event()
        now = time.monotonic()
        self.link = RateControl(len(images.levels), settings.max_rate, now)
        self._number = 0
        self._status_at = now - STATUS_SECONDS
        self._last_status: Any = None
        self._frame = 0
        self._messages = Allowance(MESSAGES_A_SECOND, MESSAGES_IN_RESERVE)
        self._requests = Allowance(REQUESTS_A_SECOND, REQUESTS_IN_RESERVE)
        self._starting: set[asyncio.Task[None]] = set()
        self._stopping: set[asyncio.Task[None]] = set()  # drops and pauses, which starts that wait must not hold up
        self._operator = Operator()
        self._admit = admit
        self._admitted = False

    def admit(self) -> Close | None:
        """Take a place, unless this session has one; return why not, if there is none."""
        full = None if self._admitted else self._admit(self)
        self._admitted = full is None
        return full

    def wake(self) -> None:
        """Wake this session: the state has changed."""
        self._woken.set()

    async def serve(self) -> Close | None:
        """Serve until the connection ends; return why it must be closed, None if the browser closed it."""
        sender, receiver = asyncio.ensure_future(self._send()), asyncio.ensure_future(self._receive())
        try:
            done, _ = await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end((sender, receiver, *self._starting, *self._stopping))
        first = done.pop()
        error = first.exception()
        if error is not None and not isinstance(error, ConnectionError):
            raise error
        return None if error is not None else first.result()

    # From the browser

    async def _receive(self) -> Close | None:
        async for message in self._socket:
            if not self._messages.take():
                return Close(FLOOD, "too many messages")
            if message.type is WSMsgType.PING:
                await self._timely(self._socket.pong(message.data))
                continue
            if message.type is WSMsgType.PONG:
                continue
            if message.type is not WSMsgType.TEXT:
                return Close(PROTOCOL_ERROR, "only text messages are accepted")
            try:
                parsed = parse(message.data)
                if isinstance(parsed, Ack):
                    self.link.acknowledged(parsed.number, time.monotonic())
                    self._woken.set()
                if full := self.admit():
                    return full
                if not isinstance(parsed, Login | Ack):
                    await self._ask(parsed)
            except ValueError as error:
                return Close(PROTOCOL_ERROR, str(error)[:100])
        return None

    async def _ask(self, request: Init | Drop | Enable) -> None:
        waiting = self._starting if isinstance(request, Init) else self._stopping
        if not self._requests.take() or len(waiting) >= REQUESTS_AT_ONCE:
            await self._answer(request.request, Answer(False, "too many requests at once: wait for the answers first"))
            return
        if isinstance(request, Init):
            known = Known(self._operator, drop_number=request.drop_number)
            answer = self._tracker.init_target(request.stamp, request.box, request.target_id, known)
        elif isinstance(request, Drop):
            known = Known(self._operator, drop_number=request.drop_number)
            answer = self._tracker.drop_target(request.target_id, known)
        else:
            known = Known(self._operator, pause_number=request.pause_number)
            answer = self._tracker.set_enabled(request.enabled, known)
        task = asyncio.ensure_future(self._answer_later(request.request, answer))
        waiting.add(task)
        task.add_done_callback(waiting.discard)

    async def _answer_later(self, request: int, answer: Awaitable[Answer]) -> None:
        try:
            result = await answer
        except Exception as error:  # every request gets an answer
            result = Answer(False, f"the request failed: {type(error).__name__}: {error}")
        with suppress(ConnectionError):
            await self._answer(request, result)

    async def _answer(self, request: int, answer: Answer) -> None:
        fields = {"type": "answer", "request": request, "success": answer.success, "message": answer.message}
        await self._timely(self._socket.send_json(fields))

    # To the browser

    async def _send(self) -> Close | None:
        while not self._socket.closed:
            self._woken.clear()
            now = time.monotonic()
            if self.link.seconds_unanswered(now) > self._settings.client_timeout:
                break
            status = self._state.status()
            if self._status_is_due(status, now):
                sent: bool | None = await self._send_status(status)
            else:
                sent = await self._send_image(now)
            if sent is False:
                break
            if sent is None:
                await self._wait(status)
        if self._socket.closed:
            return None
        return Close(TOO_SLOW, "this browser does not acknowledge messages: its link or machine is too slow")

    def _status_is_due(self, status: dict[str, Any], now: float) -> bool:
        if not self.link.may_send_status():
            return False
        if self.link.wants_probe(now) and self.link.is_idle():
            return True
        since = now - self._status_at
        return since >= STATUS_SECONDS or (since >= CHANGE_SECONDS and _lasting(status) != self._last_status)

    async def _send_status(self, status: dict[str, Any]) -> bool:
        self._status_at, self._last_status = time.monotonic(), _lasting(status)
        self._number += 1
        link = self.link
        fields = {
            "type": "status",
            "number": self._number,
            **status,
            "link": {"round_trip": round(link.round_trip(), 3), "rate": round(link.rate(self._status_at), 1)},
        }
        link.sent(self._number, time.monotonic(), image=False)
        return await self._timely(self._socket.send_json(fields))

    async def _send_image(self, now: float) -> bool | None:
        """Send the next image; return None if there is none to send now, False after a time-out."""
        shown = self._state.shown()
        if shown is None or shown.frame.number <= self._frame or not self.link.may_send_image(now):
            return None
        self._frame = shown.frame.number
        level = self.link.level
        try:
            encoded = await self._jpegs.get(shown.frame, level)
        except ValueError as error:
            self._state.on_bad_image(str(error))
            return None
        self._state.on_bad_image("")
        self._number += 1
        header = image_header(self._number, shown, (encoded.width, encoded.height), level, time.monotonic())
        self.link.sent(self._number, time.monotonic(), image=True)
        return await self._timely(self._socket.send_bytes(pack_image(header, encoded.jpeg)))

    async def _timely(self, sending: Awaitable[None]) -> bool:
        """Send, and return whether that was done in time; with full buffers it waits for the browser."""
        task = asyncio.ensure_future(sending)
        task.add_done_callback(retrieve)  # up to Python 3.11 `asyncio.wait_for` loses the error of what it cancels
        try:
            await asyncio.wait_for(task, self._settings.client_timeout)
        except asyncio.TimeoutError:
            return False
        return True

    async def _wait(self, status: dict[str, Any]) -> None:
        """Wait for a change of the state, an acknowledgement, or the time of the next message."""
        now = time.monotonic()
        period = CHANGE_SECONDS if _lasting(status) != self._last_status else STATUS_SECONDS
        times = (self._status_at + period - now, self.link.wait_seconds(now))
        seconds = min((wait for wait in times if wait > 0), default=STATUS_SECONDS)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)


async def _end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until they have ended.

    `asyncio.wait_for` swallows a cancellation up to Python 3.11 where what it waits for is done at the same moment: a
    sender would go on until `client_timeout`, and the connection stay open as long. So they are cancelled again.
    """
    left = set(tasks)
    for task in left:
        task.add_done_callback(retrieve)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CHANGE_SECONDS)


def retrieve(task: asyncio.Future[Any]) -> None:
    """Take the exception of a task that has ended, which asyncio would log otherwise."""
    if not task.cancelled():
        task.exception()


def image_header(number: int, shown: ShownImage, size: tuple[int, int], level: int, now: float) -> dict[str, Any]:
    """Return the header of an image, for JSON; ``size`` is that of the original image in pixels."""
    frame, update = shown
    return {
        "type": "image",
        "number": number,
        "stamp": stamp_fields(frame.stamp),
        "width": size[0],
        "height": size[1],
        "age": round(now - frame.at, 3),
        "level": level,
        "targets": update_fields(update, now),
    }


def _lasting(status: dict[str, Any]) -> Any:
    """Return the part of a status whose change is sent at once: all but ages and boxes."""
    targets = status["targets"]
    names = None if targets is None else [(target["id"], target["state"]) for target in targets["list"]]
    video = status["video"]
    return video["state"], video["reason"], status["tracker"], names
