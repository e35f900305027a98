# SPDX-License-Identifier: Apache-2.0
"""Client and fixtures for tests of the console server."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed: apt install python3-aiohttp, or pip")

from dimp_ros.apps.console.protocol import unpack_image  # noqa: E402
from dimp_ros.apps.console.server import ConsoleServer  # noqa: E402
from dimp_ros.apps.console.session import Answer  # noqa: E402
from dimp_ros.apps.console.settings import ConsoleSettings  # noqa: E402
from dimp_ros.apps.console.state import ConsoleState  # noqa: E402
from dimp_ros.geometry.box import Box  # noqa: E402
from dimp_ros.tracker.result import TargetEstimate, TargetState  # noqa: E402

TOKEN = "0123456789abcdef"
PATIENCE = 20.0
_ACK = b'{"type": "ack", "number": 1}'
ACK_FRAME = bytes((0x81, 0x80 | len(_ACK), 0, 0, 0, 0)) + _ACK
"""Acknowledges the first message; as a WebSocket frame."""
CUP = TargetEstimate("cup", TargetState.TRACKING, Box(1.0, 2.0, 3.0, 4.0), 0.9, age=0.01)


def handshake(port: int) -> bytes:
    """Return the request that opens a WebSocket."""
    host = f"127.0.0.1:{port}"
    return (
        f"GET /socket HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


class FakeRobot:
    """Notes what it is asked, and answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.known: list[Any] = []
        self.failure: Exception | None = None
        self.hanging = False

    async def init_target(self, stamp: Any, box: Any, target_id: str, known: Any = None) -> Answer:
        """Take a target."""
        self.known.append(known)
        return await self._answer("init", stamp, box, target_id)

    async def drop_target(self, target_id: str, known: Any = None) -> Answer:
        """Drop it."""
        self.known.append(known)
        return await self._answer("drop", target_id)

    async def set_enabled(self, enabled: bool, known: Any = None) -> Answer:
        """Switch."""
        self.known.append(known)
        return await self._answer("enable", enabled)

    async def _answer(self, *asked: Any) -> Answer:
        self.asked.append(asked)
        if self.failure is not None:
            raise self.failure
        if self.hanging:
            await asyncio.sleep(60.0)
        return Answer(True, f"{asked[0]} done")


class Served:
    """A running server, its state, and what it logged; a camera that shows an image every 20 ms."""

    def __init__(self, **values: Any) -> None:
        self.settings = ConsoleSettings(**{"port": 0, "client_timeout": 2.0, **values})
        self.state = ConsoleState(self.settings.pair_seconds, self.settings.stale_after)
        self.robot = FakeRobot()
        self.watchers: list[int] = []
        self.lines: list[str] = []
        self.server = ConsoleServer(
            self.settings, self.state, self.robot, watchers=self.watchers.append, log=self.lines.append
        )
        self.server.start()
        self._closed = threading.Event()
        self.playing = True
        self.noise = np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)
        self._camera = threading.Thread(target=self._show, daemon=True)
        self._camera.start()

    def _show(self) -> None:
        number = 0
        while not self._closed.wait(0.02):
            if self.playing:
                number += 1
                stamp = 10_000_000_000 + number * 20_000_000
                self.state.on_image(stamp, self.noise.nbytes, lambda: self.noise)
                self.state.on_targets(stamp, [CUP])

    def close(self) -> bool:
        """Stop; return whether the server has ended."""
        self._closed.set()
        self._camera.join()
        return self.server.stop(PATIENCE)


@contextmanager
def serving(**values: Any) -> Iterator[Served]:
    """Run a server."""
    served = Served(**values)
    try:
        yield served
    finally:
        assert served.close()


class Browser:
    """A client that behaves as the page does."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.images: list[dict[str, Any]] = []
        self.statuses: list[dict[str, Any]] = []
        self.answers: dict[int, dict[str, Any]] = {}
        self.bytes = 0

    async def step(self) -> Any:
        """Take one message, acknowledge it, and return it; None at the end."""
        message = await self.socket.receive(timeout=PATIENCE)
        if message.type is aiohttp.WSMsgType.BINARY:
            header, jpeg = unpack_image(message.data)
            assert jpeg[:2] == b"\xff\xd8"
            self.images.append(header)
            self.bytes += len(jpeg)
            await self.say(type="ack", number=header["number"])
            return header
        if message.type is aiohttp.WSMsgType.TEXT:
            fields = json.loads(message.data)
            if fields["type"] == "status":
                self.statuses.append(fields)
                await self.say(type="ack", number=fields["number"])
            elif fields["type"] == "answer":
                self.answers[fields["request"]] = fields
            return fields
        return None

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Take messages until something holds."""
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < end, "not in time"
            assert await self.step() is not None, f"closed with {self.socket.close_code}"
        return value

    async def ended(self) -> int:
        """Take messages until the server ends it; return the code."""
        while await self.step() is not None:
            pass
        return int(self.socket.close_code)

    async def say(self, **fields: Any) -> None:
        """Send a message; to a server that has ended the connection meanwhile, in vain."""
        with suppress(ConnectionError):
            await self.socket.send_str(json.dumps(fields))


def talk(served: Served, act: Callable[[Any], Awaitable[Any]]) -> Any:
    """Run ``act`` with a session of aiohttp's client."""

    async def run() -> Any:
        async with aiohttp.ClientSession(base_url=served.server.url) as session:
            return await asyncio.wait_for(act(session), 3 * PATIENCE)

    return asyncio.run(run())


def browse(served: Served, act: Callable[[Browser], Awaitable[Any]], **options: Any) -> Any:
    """Run ``act`` with a browser that is connected."""

    async def run(session: Any) -> Any:
        async with session.ws_connect("/socket", **{"origin": served.server.url.rstrip("/"), **options}) as socket:
            return await act(Browser(socket))

    return talk(served, run)


def status_of(served: Served, path: str, **options: Any) -> int:
    """Return the HTTP status of a request."""

    async def ask(session: Any) -> int:
        async with session.request(options.pop("method", "GET"), path, **options) as response:
            return int(response.status)

    return talk(served, ask)
