# SPDX-License-Identifier: Apache-2.0
"""The console's web server over real sockets, without ROS and without a browser."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed: apt install python3-aiohttp, or pip")

from helpers.console_client import (  # noqa: E402
    ACK_FRAME,
    PATIENCE,
    TOKEN,
    Browser,
    browse,
    handshake,
    serving,
    status_of,
    talk,
)

from dimp_ros.apps.console.server import ConsoleServer  # noqa: E402
from dimp_ros.apps.console.settings import ConsoleSettings  # noqa: E402
from dimp_ros.apps.console.state import TrackerStatus  # noqa: E402


def test_page_is_served_with_strict_security_headers():
    async def ask(session: Any) -> None:
        for path, kind in (("/", "text/html"), ("/main.js", "text/javascript"), ("/console.css", "text/css")):
            async with session.get(path) as response:
                assert response.status == 200 and response.content_type == kind
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["X-Frame-Options"] == "DENY"
                text = await response.text()
                assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text

    with serving() as served:
        talk(served, ask)


@pytest.mark.parametrize(
    "path",
    ["/../server.py", "/..%2fserver.py", "/%2e%2e/server.py", "/static/main.js", "//etc/passwd", "/etc/passwd",
     "/main.js/", "/index.html%00", "/node.py"],
)  # fmt: skip
def test_nothing_but_the_page_s_files_can_be_read(path):
    with serving() as served:
        port = served.server.port
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as raw:
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
        assert answer.split()[1] in (b"404", b"400") and b"import" not in answer and b"root:" not in answer


def test_other_methods_hosts_and_origins_are_turned_away():
    with serving() as served:
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert status_of(served, "/", method=method) == 405
        assert status_of(served, "/", headers={"Host": "evil.org"}) == 403
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        for origin in ({}, {"Origin": "http://evil.org"}, {"Origin": "null"}):
            assert status_of(served, "/socket", headers={**upgrade, **origin}) == 403
        assert served.watchers == [], "nobody was let in"


def test_image_comes_with_its_stamp_size_and_boxes():
    async def look(browser: Browser) -> None:
        await browser.until(lambda: len(browser.images) >= 5)
        stamps = [tuple(image["stamp"]) for image in browser.images]
        assert stamps == sorted(set(stamps)), "in order, and each once"
        for image in browser.images[1:]:  # the camera's very first may have been faster than its boxes
            assert (image["width"], image["height"]) == (640, 360)
            assert image["targets"]["stamp"] == image["stamp"]
            assert image["targets"]["list"][0]["box"] == [1.0, 2.0, 3.0, 4.0]

    with serving() as served:
        browse(served, look)


def test_states_are_sent_without_video_too():
    async def look(browser: Browser) -> None:
        await browser.until(lambda: len(browser.statuses) >= 3)
        assert browser.images == []
        last = browser.statuses[-1]
        assert last["video"] == {"state": "none", "age": None, "reason": "nobody publishes on /image"}
        assert last["tracker"] == TrackerStatus(True)._asdict()

    with serving() as served:
        served.playing = False
        time.sleep(0.1)
        served.state.forget_images()
        served.state.set_silence("nobody publishes on /image")
        served.state.set_tracker(TrackerStatus(True))
        browse(served, look)


def test_requests_reach_the_robot_and_their_answers_the_browser():
    async def ask(browser: Browser) -> None:
        await browser.say(type="init", request=1, stamp=[5, 6], box=[1, 2, 30.5, 40], id="cup")
        await browser.say(type="drop", request=2, id="cup")
        await browser.say(type="enable", request=3, enabled=False)
        await browser.until(lambda: len(browser.answers) == 3)
        assert browser.answers[1]["message"] == "init done" and browser.answers[1]["success"] is True

    with serving() as served:
        browse(served, ask)
        asked = sorted(served.robot.asked, key=lambda one: one[0])
        assert asked == [("drop", "cup"), ("enable", False), ("init", (5, 6), (1.0, 2.0, 30.5, 40.0), "cup")]


def test_what_the_operator_knew_goes_with_each_request():
    async def ask(browser: Browser) -> None:
        await browser.until(lambda: browser.statuses)
        assert (
            browser.statuses[0]["tracker"]["drop_number"] == 8 and browser.statuses[0]["tracker"]["pause_number"] == 9
        )
        await browser.say(type="init", request=1, stamp=[5, 6], box=[1, 2, 30.5, 40], id="cup", drop_number=8)
        await browser.say(type="drop", request=2, id="cup", drop_number=7)
        await browser.say(type="enable", request=3, enabled=True, pause_number=9)
        await browser.until(lambda: len(browser.answers) == 3)

    with serving() as served:
        served.state.set_tracker(TrackerStatus(True, drop_number=8, pause_number=9))
        browse(served, ask)
        browse(served, ask)
        assert sorted(known[1:] for known in served.robot.known) == sorted(2 * [(8, 0), (7, 0), (0, 9)])
        assert len({id(known.operator) for known in served.robot.known}) == 2, "one for each browser"


def test_a_request_that_fails_is_answered_with_the_reason():
    async def ask(browser: Browser) -> None:
        await browser.say(type="drop", request=7, id="")
        await browser.until(lambda: browser.answers)
        assert browser.answers[7]["success"] is False and "RuntimeError: no such thing" in browser.answers[7]["message"]

    with serving() as served:
        served.robot.failure = RuntimeError("no such thing")
        browse(served, ask)


def test_too_many_requests_are_refused_not_queued():
    async def ask(browser: Browser) -> None:
        for number in range(20):
            await browser.say(type="drop", request=number, id="")
        await browser.until(lambda: len(browser.answers) >= 16)
        assert all("too many requests" in answer["message"] for answer in browser.answers.values())

    with serving() as served:
        served.robot.hanging = True
        browse(served, ask)
        assert len(served.robot.asked) == 4


@pytest.mark.parametrize(
    ("text", "code"),
    [("{", 4400), ('{"type": "reboot"}', 4400), ('{"type": "ack", "number": 999}', 4400), ("x" * 5000, 1009)],
)
def test_unknown_message_ends_the_connection(text, code):
    async def ask(browser: Browser) -> None:
        await browser.socket.send_str(text)
        assert await browser.ended() == code

    with serving() as served:
        browse(served, ask)
        assert served.robot.asked == []


def test_binary_messages_and_floods_end_the_connection():
    async def binary(browser: Browser) -> None:
        await browser.socket.send_bytes(b"x")
        assert await browser.ended() == 4400

    async def flood(browser: Browser) -> None:
        for _ in range(1000):
            await browser.say(type="login", token="")
        assert await browser.ended() in (4429, 1006)
        assert any("too many messages" in line for line in served.lines)

    with serving() as served:
        browse(served, binary)
        browse(served, flood)


def test_strangers_cannot_fill_the_log(monkeypatch: pytest.MonkeyPatch):
    """Neither by wrong tokens, nor where none is set by coming and going."""
    monkeypatch.setattr("dimp_ros.apps.console.server.WRONG_TOKEN_SECONDS", 0.0)

    async def come_and_go(session: Any) -> None:
        for _ in range(8):
            async with session.ws_connect("/socket", origin=served.server.url.rstrip("/")) as socket:
                browser = Browser(socket)
                await browser.step()
                await browser.say(type="login", token=TOKEN[:-1])
                await (browser.ended() if served.settings.token else browser.until(lambda seen=browser: seen.images))

    with serving(token=TOKEN) as served:
        talk(served, come_and_go)
    assert served.lines == ["a browser was refused: wrong token"] * 3 + ["wrong tokens: 5 more within 10 s"]
    with serving() as served:
        talk(served, come_and_go)
    assert len(served.lines) == 8 and "browsers connected: 5 more within 10 s" in served.lines


def test_nothing_is_sent_or_done_before_the_token_is_shown():
    async def wrong(browser: Browser) -> None:
        assert await browser.step() == {"type": "login"}
        begun = time.monotonic()
        await browser.say(type="login", token=TOKEN[:-1])
        assert await browser.ended() == 4401
        assert time.monotonic() - begun >= 1.0, "guessing is slow"
        assert browser.images == browser.statuses == []

    async def without(browser: Browser) -> None:
        await browser.step()
        await browser.say(type="drop", request=1, id="")
        assert await browser.ended() == 4401

    async def right(browser: Browser) -> None:
        await browser.step()
        await browser.say(type="login", token=TOKEN)
        await browser.until(lambda: browser.images)

    with serving(token=TOKEN) as served:
        browse(served, wrong)
        browse(served, without)
        assert served.robot.asked == [] and served.watchers == []
        browse(served, right)
        assert served.watchers[0] == 1
        assert not any(TOKEN[:-1] in line for line in served.lines)


def test_browser_limit_is_reported_and_freed_again():
    async def ask(session: Any) -> None:
        origin = served.server.url.rstrip("/")
        first, second, third = [Browser(await session.ws_connect("/socket", origin=origin)) for _ in range(3)]
        await first.until(lambda: first.images)
        await second.until(lambda: second.images)
        assert await third.ended() == 4503
        await first.socket.close()
        await second.until(lambda: served.watchers[-1] == 1)
        fourth = Browser(await session.ws_connect("/socket", origin=origin))
        await fourth.until(lambda: fourth.images)

    with serving(max_clients=2) as served:
        talk(served, ask)


def test_image_is_encoded_once_per_quality():
    async def ask(session: Any) -> int:
        origin = served.server.url.rstrip("/")
        browsers = [Browser(await session.ws_connect("/socket", origin=origin)) for _ in range(8)]
        await asyncio.gather(*(one.until(lambda one=one: len(one.images) >= 10) for one in browsers))
        return sum(len(one.images) for one in browsers)

    with serving(max_rate=5.0) as served:
        seen = talk(served, ask)
        assert served.server.encoded < 0.6 * seen


def test_stalled_browser_is_disconnected_and_no_other():
    async def ask(session: Any) -> None:
        browser = Browser(await session.ws_connect("/socket", origin=served.server.url.rstrip("/")))
        await browser.until(lambda: browser.images)
        port = served.server.port
        raw = socket.create_connection(("127.0.0.1", port))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(handshake(port))
        await asyncio.sleep(0.2)  # for the first status
        raw.sendall(ACK_FRAME)
        await browser.until(lambda: 2 in served.watchers)
        before = len(browser.images)
        await browser.until(lambda: served.watchers[-1] == 1)
        assert len(browser.images) > before + 5
        raw.close()

    with serving() as served:
        talk(served, ask)
        assert any("does not acknowledge messages" in line for line in served.lines)


def test_browser_without_acknowledgements_gets_few_messages():
    async def ask(browser: Browser) -> int:
        count = 0
        while (message := await browser.socket.receive(timeout=PATIENCE)).type in (
            aiohttp.WSMsgType.TEXT,
            aiohttp.WSMsgType.BINARY,
        ):
            count += 1
        assert message.type is aiohttp.WSMsgType.CLOSE and message.data == 4408
        return count

    with serving() as served:
        assert browse(served, ask) <= 8


def test_undecodable_image_is_reported_and_the_next_shown():
    def broken() -> Any:
        raise ValueError("encoding '64FC9' is unknown")

    async def look(browser: Browser) -> None:
        await browser.until(lambda: browser.images)
        served.playing = False
        await asyncio.sleep(0.1)
        served.state.on_image(500_000_000_000, 10, broken)
        await browser.until(lambda: browser.statuses and browser.statuses[-1]["video"]["state"] == "bad")
        assert browser.statuses[-1]["video"]["reason"] == "encoding '64FC9' is unknown"
        served.playing = True
        await browser.until(lambda: browser.statuses[-1]["video"]["state"] == "live")

    with serving() as served:
        browse(served, look)


def test_port_in_use_is_reported():
    with serving() as served:
        settings = ConsoleSettings(port=served.server.port)
        another = ConsoleServer(settings, served.state, served.robot)
        with pytest.raises(ValueError, match=r"cannot be served on .* choose another port"):
            another.start()


def test_the_end_closes_all_connections_and_the_port():
    async def ask(browser: Browser) -> None:
        await browser.until(lambda: browser.images)
        stopping = asyncio.get_running_loop().run_in_executor(None, served.server.stop, PATIENCE)
        assert await browser.ended() == 1001
        assert await stopping

    with serving() as served:
        browse(served, ask)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", served.server.port), timeout=1.0)
