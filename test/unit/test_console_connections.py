# SPDX-License-Identifier: Apache-2.0
"""Strangers cannot block the operator: silent, slow and flooding connections, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed: apt install python3-aiohttp, or pip")

from helpers.console_client import (  # noqa: E402
    ACK_FRAME,
    PATIENCE,
    TOKEN,
    Browser,
    FakeRobot,
    Served,
    browse,
    handshake,
    serving,
    talk,
)

from dimp_ros.apps.console import connections  # noqa: E402
from dimp_ros.apps.console.session import Session  # noqa: E402
from dimp_ros.apps.console.settings import ConsoleSettings  # noqa: E402
from dimp_ros.apps.console.state import ConsoleState  # noqa: E402

PING, EMPTY_CONTINUATION = b"\x89\x80\0\0\0\0", b"\x00\x80\0\0\0\0"


@asynccontextmanager
async def strangers(
    served: Served, count: int, said: bytes, address: str = "127.0.0.1", *, leave: bool = False
) -> AsyncIterator[None]:
    """Keep connections that have sent ``said`` and nothing more; open another for each that is closed.

    :param leave: close each at the first answer, or at once if nothing was said, and open the next at once.
    """
    opened = 0

    async def stay() -> None:
        nonlocal opened
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port, local_addr=(address, 0))
                writer.write(said)
                opened += 1
                while (said or not leave) and await reader.read(4096) and not leave:
                    pass
                writer.close()
            await asyncio.sleep(0.0 if leave else 0.5)

    tasks = [asyncio.ensure_future(stay()) for _ in range(count)]
    begun = time.monotonic()
    while opened < count:
        assert time.monotonic() - begun < PATIENCE
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def log_in(served: Served, session: Any) -> Browser:
    """Connect as the operator, with the token if one is needed, and see an image."""
    browser = Browser(await session.ws_connect("/socket", origin=served.server.url.rstrip("/")))
    if served.settings.token:
        assert await browser.step() == {"type": "login"}
        await browser.say(type="login", token=TOKEN)
    await browser.until(lambda: browser.images)
    return browser


@pytest.mark.parametrize(
    ("said", "address"),
    [("nothing", "127.0.0.1"), ("half a request", "127.0.0.1"), ("handshake", "127.0.0.1"), ("handshake", "127.0.0.2")],
)
def test_forty_silent_strangers_do_not_keep_the_operator_out(said, address, monkeypatch):
    monkeypatch.setattr(connections, "STRANGER_SECONDS", 2.0)

    async def ask(session: Any) -> None:
        text = {"nothing": b"", "half a request": b"GET / HT", "handshake": handshake(served.server.port)}[said]
        async with strangers(served, 40, text, address):
            begun = time.monotonic()
            browser = await log_in(served, session)
            assert time.monotonic() - begun < 5.0
            await browser.until(lambda: time.monotonic() - begun > connections.STRANGER_SECONDS + 0.5)
            async with session.get("/main.js") as response:
                assert response.status == 200

    with serving(token=TOKEN) as served:
        talk(served, ask)


@pytest.mark.parametrize(
    ("token", "said", "leave"),
    [("", "nothing", True), ("", "page", True), ("", "handshake", True), ("", "handshake", False),
     (TOKEN, "handshake", True)],
)  # fmt: skip
def test_connecting_in_a_loop_keeps_no_browser_out(token, said, leave):
    async def ask(session: Any) -> None:
        page = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{served.server.port}\r\n\r\n".encode()
        text = {"nothing": b"", "page": page, "handshake": handshake(served.server.port)}[said]
        before = await log_in(served, session)
        watching = asyncio.ensure_future(before.ended())
        async with strangers(served, 20, text, leave=leave):
            for _ in range(3):
                begun = time.monotonic()
                async with session.get("/main.js") as response:
                    assert response.status == 200
                browser = await log_in(served, session)
                assert time.monotonic() - begun < 5.0
                await browser.socket.close()
            assert not watching.done(), "the browser from before stays"
        watching.cancel()
        assert set(served.watchers) <= {1, 2}, "only browsers that speak are counted"

    with serving(token=token, max_clients=2) as served:
        talk(served, ask)


def test_connections_before_login_are_few_and_end_in_seconds(monkeypatch):
    monkeypatch.setattr(connections, "STRANGER_SECONDS", 2.0)

    async def ask(_session: Any) -> None:
        opened = [
            await asyncio.open_connection("127.0.0.1", served.server.port)
            for _ in range(connections.MAX_STRANGERS + 50)
        ]
        await asyncio.sleep(0.2)
        at_once = [reader.at_eof() or reader.exception() is not None for reader, _ in opened]
        assert at_once.count(False) <= connections.MAX_STRANGERS
        begun = time.monotonic()
        for reader, _ in opened:
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(1), PATIENCE) == b""
        assert time.monotonic() - begun < connections.STRANGER_SECONDS + 2.0
        for _, writer in opened:
            writer.close()

    with serving(token=TOKEN) as served:
        talk(served, ask)


def test_pings_are_answered_and_count_as_messages():
    async def ask(browser: Browser) -> None:
        await browser.until(lambda: browser.images)
        with suppress(ConnectionError):
            for _ in range(1000):
                await browser.socket.ping(b"x")
        assert await browser.ended() in (4429, 1006)
        assert any("too many messages" in line for line in served.lines)

    with serving() as served:
        browse(served, ask)


@pytest.mark.parametrize(
    "request_text",
    [
        "GET /\u00ff HTTP/1.1\r\nHost: localhost",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost",
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: " + "y" * 20_000,
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked",
        "GET /socket HTTP/1.1\r\nHost: localhost\r\nUpgrade",
        "\x16\x03\x01",
    ],
    ids=["path", "no host", "two hosts", "long header", "two lengths", "no colon", "not HTTP"],
)
def test_invalid_requests_leave_no_traceback_in_the_log(request_text, caplog):
    async def ask(_session: Any) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.write(request_text.encode("latin-1") + b"\r\n\r\n")
        assert b"400" in await asyncio.wait_for(reader.readline(), PATIENCE)
        writer.close()

    with serving() as served:
        talk(served, ask)
    assert not caplog.records and not served.lines


@pytest.mark.parametrize("wrong", [b"\x81\x82\0\0\0\0{}", b"\x82\x81\0\0\0\0x", b"\x81\x81\0\0\0\0{"])
def test_message_that_ends_a_session_ends_it_at_once(wrong):
    async def ask(_session: Any) -> None:
        for _ in range(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
            writer.write(handshake(served.server.port))
            await reader.readuntil(b'"type": "status"')
            await asyncio.sleep(0.02)
            writer.write(ACK_FRAME + wrong)  # the first wakes the sender
            await asyncio.wait_for(reader.readuntil((4400).to_bytes(2, "big")), 5.0)  # of the close frame
            writer.close()

    with serving(client_timeout=30.0) as served:
        served.playing = False
        talk(served, ask)


@pytest.mark.parametrize("frame", [PING, EMPTY_CONTINUATION, b"\x81\x80\0\0\0\0"], ids=["ping", "continuation", "text"])
def test_floods_of_empty_frames_end_the_connection(frame):
    async def ask(_session: Any) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.write(handshake(served.server.port))
        await reader.readuntil(b'"type": "status"')
        writer.write(ACK_FRAME)
        if frame == EMPTY_CONTINUATION:
            writer.write(b"\x01\x80\0\0\0\0")  # begins a message of fragments
        sent = 0
        with suppress(ConnectionError):
            while not reader.at_eof() and reader.exception() is None:
                writer.write(frame * 100)
                sent += 100
                await asyncio.wait_for(writer.drain(), PATIENCE)
                await asyncio.sleep(0.001)
                assert sent < 1_000_000
        assert sent * len(frame) < 2 * connections.BYTES_IN_RESERVE + 1e6
        writer.close()

    with serving() as served:
        talk(served, ask)
        begun = time.monotonic()
        while served.watchers[-1] and time.monotonic() - begun < PATIENCE:
            time.sleep(0.01)
        assert served.watchers[-1] == 0


@pytest.mark.parametrize("token", [" " * 16, "a" * 40, "ab" * 16, "0123456789abcde", " 0123456789abcdef", "abcde" * 8])
def test_weak_token_is_refused_without_being_shown(token):
    with pytest.raises(ValueError, match="openssl rand -hex 16") as caught:
        ConsoleSettings(token=token)
    assert token not in str(caught.value)


@pytest.mark.parametrize("said", ["nothing", "half a request", "handshake", "half a body"])
def test_the_end_closes_strangers_at_once_and_logs_nothing(said, caplog):
    served = Served(token=TOKEN)
    port = served.server.port
    texts = {"half a request": b"GET / HT", "handshake": handshake(port)}
    texts["half a body"] = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 9999\r\n\r\nabc".encode()
    with ExitStack() as sockets:
        clients = [sockets.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE)) for _ in range(30)]
        for client in clients:
            client.sendall(texts.get(said, b""))
        time.sleep(0.2)
        begun = time.monotonic()
        assert served.close() and time.monotonic() - begun < connections.STRANGER_SECONDS - 1.0
        for client in clients:
            with suppress(ConnectionError):
                while client.recv(4096):
                    pass
    gc.collect()
    assert caplog.records == []


class DyingSocket:
    """A browser that has gone while its last message is still being sent."""

    closed = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0.02)
        raise StopAsyncIteration

    async def send_json(self, fields: Any) -> None:
        """Fail, some time after it was cancelled."""
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
            raise ConnectionResetError("Cannot write to closing transport") from None


def test_session_cancelled_while_it_ends_loses_no_exception():
    lost: list[Any] = []

    async def end() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: lost.append(context))
        settings = ConsoleSettings(port=0)
        state = ConsoleState(settings.pair_seconds, settings.stale_after)
        images: Any = SimpleNamespace(levels=[None])
        session = Session(DyingSocket(), state, images, FakeRobot(), settings, lambda session: None)
        serving = asyncio.ensure_future(session.serve())
        await asyncio.sleep(0.05)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await asyncio.sleep(0.2)
        gc.collect()

    asyncio.run(end())
    assert lost == []


class FakeTransport(asyncio.Transport):
    """The transport of a connection from an address."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1)})
        self.aborted = False

    def abort(self) -> None:
        """Note that it was closed."""
        self.aborted = True


@pytest.mark.parametrize("speaks", [False, True], ids=["silent", "speaking"])
@pytest.mark.parametrize(
    ("operator", "attackers"),
    [
        ("10.0.0.1", lambda n: f"10.0.0.{2 + n % 2}"),
        ("10.0.0.1", lambda n: f"10.7.{n // 250 % 8}.{n % 250}"),
        ("::1", lambda n: f"2001:db8::{n:x}"),
        ("10.0.0.1", lambda n: f"::ffff:10.9.9.{n % 256}"),
        ("fe80::1%eth0", lambda n: f"2001:db8:0:{n % 20:x}::{n:x}"),
    ],
    ids=["neighbour", "IPv4 networks", "IPv6", "mapped", "IPv6 networks"],
)
def test_many_addresses_close_no_connection_of_the_operator(operator, attackers, speaks):
    async def flood() -> list[FakeTransport]:
        counted, operators = connections.Connections(lambda: asyncio.Protocol()), []
        for number in range(2000):
            transport = FakeTransport(attackers(number))
            counted.opened(transport)
            if speaks:
                counted.heard(transport)
            if number >= 300 and number % 50 == 0 and len(operators) < 7:
                operators.append(FakeTransport(operator))
                counted.opened(operators[-1])
                counted.heard(operators[-1])
        return operators

    assert not any(one.aborted for one in asyncio.run(flood()))


def test_silent_connections_of_the_operators_network_go_first():
    async def flood() -> bool:
        counted, operator = connections.Connections(lambda: asyncio.Protocol()), FakeTransport("10.0.0.1")
        counted.opened(operator)
        counted.heard(operator)
        for number in range(1000):
            counted.opened(FakeTransport(f"10.0.0.{2 + number % 250}"))
        return operator.aborted

    assert not asyncio.run(flood())
