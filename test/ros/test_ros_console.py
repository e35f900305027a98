# SPDX-License-Identifier: Apache-2.0
"""The console node: subscriptions, requests to the tracker, and no cost while no browser is connected."""

from __future__ import annotations

import array
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from harness.ros_harness import RELIABLE, Node, Parameter, context, spinning, wait_until

pytest.importorskip("aiohttp", reason="aiohttp is not installed: apt install python3-aiohttp, or pip")

from helpers.console_client import Browser, browse
from helpers.console_fixture import answer_drops_late, world
from rcl_interfaces.srv import GetParameters, ListParameters
from sensor_msgs.msg import CompressedImage

from dimp_ros.apps.console.node import ConsoleNode
from dimp_ros.ros_utils.override_checks import warn_of_overrides

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "0123456789abcdef"


def visit(console: ConsoleNode, act: Callable[[Browser], Awaitable[Any]]) -> Any:
    """Run ``act`` with a browser that is connected to a console node."""

    class Served:
        server = console.server

    return browse(Served(), act)  # type: ignore[arg-type]


def test_target_is_set_tracked_and_dropped_in_the_console():
    async def act(browser: Browser) -> None:
        image = await browser.until(lambda: browser.images and browser.images[-1])
        await browser.say(type="init", request=1, stamp=image["stamp"], box=[190, 110, 80, 80], id="cup")
        await browser.until(lambda: 1 in browser.answers)
        assert browser.answers[1]["success"], browser.answers[1]["message"]

        def boxes() -> list[Any]:
            targets = browser.images[-1]["targets"]
            return [one["box"] for one in targets["list"] if one["state"] == "TRACKING"] if targets else []

        assert await browser.until(boxes) == [[200.0, 120.0, 60.0, 60.0]]
        running.camera.places = [(300.0, 90.0), None]
        await browser.until(lambda: boxes() == [[300.0, 90.0, 60.0, 60.0]])
        running.camera.places = [None, None]
        await browser.until(lambda: browser.statuses[-1]["targets"]["list"][0]["state"] == "LOST")
        assert browser.statuses[-1]["targets"]["list"][0]["box"] is None
        await browser.say(type="drop", request=2, id="pen")
        await browser.until(lambda: 2 in browser.answers)
        assert not browser.answers[2]["success"] and "'pen' is unknown" in browser.answers[2]["message"]
        await browser.say(type="drop", request=3, id="cup")
        await browser.until(lambda: browser.statuses[-1]["targets"]["list"] == [])
        await browser.say(type="enable", request=4, enabled=False)
        await browser.until(lambda: browser.statuses[-1]["tracker"]["enabled"] is False)

    with world() as running:
        visit(running.console, act)
        assert not running.node._work.pipeline.enabled


def test_what_waited_in_the_link_undoes_no_later_stop():
    async def act(browser: Browser) -> None:
        count = 0

        async def ask(kind: str, **fields: Any) -> dict[str, Any]:
            nonlocal count
            count += 1
            await browser.say(type=kind, request=count, **fields)
            return dict(await browser.until(lambda: browser.answers.get(count)))

        def shown(name: str) -> int:
            return int(browser.statuses[-1]["tracker"][name])

        await browser.until(lambda: browser.images and browser.statuses and shown("drop_number"))
        box = {"stamp": browser.images[-1]["stamp"], "box": [190, 110, 80, 80], "id": "cup"}
        drops, pauses = shown("drop_number"), shown("pause_number")
        assert (await ask("init", **box, drop_number=drops))["success"]
        assert (await ask("drop", id=""))["success"], "as by others: it is not told what was known"
        refused = await ask("init", **box, drop_number=drops)
        assert not refused["success"] and "dropped" in refused["message"]
        await browser.until(lambda: shown("drop_number") > drops)
        assert (await ask("init", **box, drop_number=shown("drop_number")))["success"]
        assert (await ask("enable", enabled=False))["success"]
        refused = await ask("enable", enabled=True, pause_number=pauses)
        assert not refused["success"] and "paused after" in refused["message"]
        assert not running.node._work.pipeline.enabled
        await browser.until(lambda: shown("pause_number") > pauses)
        assert (await ask("enable", enabled=True, pause_number=shown("pause_number")))["success"]
        assert running.node._work.pipeline.enabled

    with world() as running:
        visit(running.console, act)


def test_images_are_subscribed_only_with_browsers_connected(monkeypatch):
    monkeypatch.setattr("dimp_ros.apps.console.node.LINGER_WATCHES", 3)

    async def act(browser: Browser) -> None:
        await browser.until(lambda: browser.images)
        assert images.get_subscription_count() == 1

    with world(tracker=False) as running:
        images = running.camera._images
        time.sleep(0.5)
        assert images.get_subscription_count() == 0
        visit(running.console, act)
        wait_until(lambda: images.get_subscription_count() == 0, "the end of the subscription")
        visit(running.console, act)


def test_missing_video_and_tracker_are_explained():
    async def act(browser: Browser) -> None:
        await browser.until(lambda: browser.statuses and "nobody publishes" in browser.statuses[-1]["video"]["reason"])
        assert browser.statuses[-1]["tracker"]["present"] is False
        await browser.say(type="init", request=1, stamp=[1, 0], box=[1, 2, 30, 40], id="")
        await browser.until(lambda: browser.answers)
        assert not browser.answers[1]["success"] and "console's parameter tracker" in browser.answers[1]["message"]

    with context():
        console = ConsoleNode(parameter_overrides=[Parameter("port", value=0)])
        with spinning(console):
            visit(console, act)
            console.close()


def test_tracker_without_answer_in_time_is_reported():
    async def act(browser: Browser) -> None:
        await browser.until(lambda: browser.images)
        await browser.say(type="enable", request=1, enabled=True)
        await browser.until(lambda: browser.answers)
        assert "has not answered for 0.3 s" in browser.answers[1]["message"]

    with world(request_timeout=0.3) as running:
        service = next(one for one in running.node.services if one.srv_name.endswith("set_enabled"))
        answer = service.callback
        service.callback = lambda request, response: time.sleep(1.5) or answer(request, response)
        visit(running.console, act)


def test_a_console_that_ends_takes_back_a_start_or_says_that_it_could_not(capfd):
    begun, release = threading.Event(), threading.Event()

    async def act(browser: Browser) -> None:
        image = await browser.until(lambda: browser.images and browser.images[-1])
        await browser.say(type="init", request=1, stamp=image["stamp"], box=[190, 110, 80, 80], id="cup")
        await browser.until(begun.is_set)

    with world() as running:
        init = running.tracker.init
        running.tracker.init = lambda *args, **named: begun.set() or (release.wait(10) and init(*args, **named))
        visit(running.console, act)
        answer_drops_late(running.node, 1.2)
        capfd.readouterr()
        running.console.close()
        assert "it may still start target 'cup'; drop it there" in capfd.readouterr().err
        release.set()
        wait_until(lambda: running.tracker.inits, "the start")
        wait_until(lambda: not running.tracker.boxes, "the target's end")


def test_compressed_images_are_shown():
    async def act(browser: Browser) -> None:
        image = await browser.until(lambda: browser.images and browser.images[-1])
        assert (image["width"], image["height"]) == (640, 360)

    with context():
        overrides = {"port": 0, "image_transport": "compressed"}
        console = ConsoleNode(parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()])
        camera = Node("camera")
        images = camera.create_publisher(CompressedImage, "image/compressed", RELIABLE)
        image = cv2.imencode(".jpg", 90 * cv2.cvtColor(cv2.UMat(360, 640, cv2.CV_8U).get(), cv2.COLOR_GRAY2BGR))[1]

        def publish() -> None:
            message = CompressedImage(format="jpeg", data=array.array("B", image.tobytes()))
            message.header.stamp = camera.get_clock().now().to_msg()
            images.publish(message)

        camera.create_timer(0.1, publish)
        with spinning(console, camera):
            visit(console, act)
            console.close()


def test_the_token_cannot_be_read_from_the_graph(capfd):
    with context():
        overrides = {"port": 0, "host": "127.0.0.1", "token": TOKEN}
        console = ConsoleNode(parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()])
        warn_of_overrides(console, [])
        asker = Node("asker")
        with spinning(console, asker):
            listing = asker.create_client(ListParameters, "console/list_parameters")
            getting = asker.create_client(GetParameters, "console/get_parameters")
            assert listing.wait_for_service(15.0) and getting.wait_for_service(15.0)
            names = listing.call(ListParameters.Request()).result.names
            assert "host" in names and "token" not in names
            answer = getting.call(GetParameters.Request(names=["token"]))
            assert TOKEN not in str(answer)
            console.close()
    log = capfd.readouterr().err
    assert "the console is at" in log and "does not exist" not in log and TOKEN not in log


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"host": "0.0.0.0"}, "there is no token"),
        ({"token": 1234567890123456}, "put it in quotes"),
        ({"port": 70000}, r"0 \.\. 65535"),
        ({"image_transport": "theora"}, "one of raw, compressed"),
        ({"host": "192.0.2.1", "token": TOKEN}, "cannot be served on"),
    ],
)
def test_the_console_does_not_start_with_settings_that_are_wrong(values, reason):
    with context(), pytest.raises(ValueError, match=reason) as refusal:
        overrides = {"port": 0, **values}
        ConsoleNode(parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()])
    assert TOKEN not in str(refusal.value)
