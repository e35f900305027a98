# SPDX-License-Identifier: Apache-2.0
"""The console in a real, headless Chromium, with a real tracker node over DDS that follows coloured squares."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: .venv/bin/pip install -c constraints.txt playwright"
)
pytest.importorskip("aiohttp", reason="aiohttp is not installed: apt install python3-aiohttp, or pip")
from harness.ros_harness import Parameter, spinning, wait_until  # noqa: E402
from helpers.console_client import ACK_FRAME, TOKEN, handshake  # noqa: E402
from helpers.console_fixture import SIDE, SIZE, ConsoleWorld, world  # noqa: E402

from dimp_ros.apps.console.node import ConsoleNode  # noqa: E402

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is on the PATH: apt install chromium"),
]

PATIENCE = 60.0
OTHER_TOPICS = ["--ros-args", "-r", "image:=/image", "-r", "targets:=/targets"]
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
PLACE = (200.0, 120.0)
BOX_COLOUR = (0x56, 0xB4, 0xE9)
FIND = """([least, most]) => {
  const canvas = document.getElementById("view");
  const {data, width, height} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let [x0, y0, x1, y1, count] = [width, height, -1, -1, 0];
  for (let y = 0; y < height; y += 1) for (let x = 0; x < width; x += 1) {
    const at = 4 * (y * width + x);
    if (least.every((value, i) => data[at + i] >= value) && most.every((value, i) => data[at + i] <= value)) {
      x0 = Math.min(x0, x); x1 = Math.max(x1, x + 1); y0 = Math.min(y0, y); y1 = Math.max(y1, y + 1); count += 1;
    }
  }
  return count ? [x0, y0, x1, y1].map((value) => value * canvas.clientWidth / width) : null;
}"""
"""Returns what encloses all pixels of a colour on the canvas: left, top, right, bottom, in CSS pixels."""


@pytest.fixture(scope="module")
def scene() -> Iterator[ConsoleWorld]:
    """Run camera, tracker and console for all tests of this file but those that need their own."""
    with world(max_rate=6.0, client_timeout=20.0, stale_after=3.0, pair_seconds=3.0) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Run a browser."""
    # All pages in one process: ten of them would take more memory and time than the machine may have.
    options = ["--disable-gpu", "--force-color-profile=srgb", "--renderer-process-limit=1"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # Chromium's does not work for root
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


class Page:
    """A page of the console, and what it sent and complained about."""

    def __init__(self, browser: Any, viewport: dict[str, int], *, context: Any = None, **options: Any) -> None:
        self.context = context or browser.new_context(viewport=viewport, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(1000 * PATIENCE)
        self.errors: list[str] = []
        self.addresses: list[str] = []
        self.sent: list[dict[str, Any]] = []
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.addresses.append(request.url))
        self.page.on("websocket", lambda one: one.on("framesent", lambda frame: self.sent.append(json.loads(frame))))

    def open(self, address: str) -> Page:
        """Go there."""
        self.page.goto(address)
        return self

    def text(self, selector: str) -> str:
        """Return what an element says."""
        return str(self.page.inner_text(selector))

    def shows(self, selector: str, words: str) -> None:
        """Wait until an element says something with ``words`` in it."""
        self.until(lambda: words in self.page.inner_text(selector), f"{words!r} in {selector}")

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Return the first true value of a condition."""
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < end, f"not in time: {what}; the page says {self.page.inner_text('body')!r}"
            self.page.wait_for_timeout(50)
        return value

    def square(self) -> list[float] | None:
        """Return where the red square is on the canvas, CSS pixels: left, top, right, bottom."""
        return self.page.evaluate(FIND, [[200, 20, 0], [255, 90, 80]])

    def square_at(self, place: tuple[float, float]) -> list[float]:
        """Wait until the red square is where it is to be, pixels of the image, and return where it is on the canvas."""
        expected = [place[0], place[1], place[0] + SIDE, place[1] + SIDE]

        def there() -> list[float] | None:
            seen, scale = self.square(), self.scale
            return seen if seen and [value / scale for value in seen] == pytest.approx(expected, abs=3.0) else None

        return self.until(there, f"the square at {place}")

    @property
    def scale(self) -> float:
        """CSS pixels of the canvas for one of the image."""
        return float(self.page.locator("#view").bounding_box()["width"] / SIZE[0])

    def box(self) -> list[float] | None:
        """Return where the first target's box and label are on the canvas."""
        return self.page.evaluate(FIND, [[c - 12 for c in BOX_COLOUR], [c + 12 for c in BOX_COLOUR]])

    def drag(self, x0: float, y0: float, x1: float, y1: float) -> list[float] | None:
        """Drag over the canvas, CSS pixels; return where the red square was while the image was held."""
        frame = self.page.locator("#view").bounding_box()
        mouse = self.page.mouse
        mouse.move(frame["x"] + x0, frame["y"] + y0)
        mouse.down()
        seen = self.square()
        mouse.move(frame["x"] + x1, frame["y"] + y1, steps=2)
        mouse.up()
        return seen

    def follow(self, name: str, place: tuple[float, float] = PLACE) -> None:
        """Drag a box round the red square and wait until it is followed."""
        x0, y0, x1, y1 = self.square_at(place)
        self.page.fill("#name", name)
        self.drag(x0 - 6, y0 - 6, x1 + 6, y1 + 6)
        self.shows("#targets", "tracking")

    def drop_all(self) -> None:
        """See that there is no target."""
        self.page.evaluate("document.getElementById('drop-all').click()")  # does nothing while it is disabled
        self.shows("#targets-title ~ p", "None.")

    def requests(self, kind: str) -> list[dict[str, Any]]:
        """Return what was asked for."""
        return [fields for fields in self.sent if fields["type"] == kind]


@pytest.fixture(scope="module")
def desk(scene: ConsoleWorld, chromium: Any) -> Iterator[Page]:
    """Open the console once for all tests: a browser's start is what takes longest."""
    page = Page(chromium, DESKTOP).open(scene.console.server.url)
    yield page
    page.context.close()


@pytest.fixture
def console(scene: ConsoleWorld, desk: Page) -> Iterator[Page]:
    """Return the console with a square in sight and no target; afterwards nothing may have gone wrong in the page."""
    scene.camera.places = [PLACE, None]
    scene.camera.playing = True
    desk.shows("#chip-video", "live")
    desk.drop_all()
    desk.page.evaluate("document.getElementById('answers').replaceChildren()")
    desk.page.fill("#name", "")
    desk.sent.clear()
    desk.square_at(PLACE)
    yield desk
    desk.drop_all()
    assert desk.errors == []


@contextmanager
def another_console(scene: ConsoleWorld, **parameters: Any) -> Iterator[ConsoleNode]:
    """Run a console with other parameters beside that of the scene."""
    overrides = [Parameter(name, value=value) for name, value in {"port": 0, **parameters}.items()]
    console = ConsoleNode(parameter_overrides=overrides, namespace="other", cli_args=OTHER_TOPICS)
    with spinning(console):
        yield console
        console.close()


def test_page_loads_from_the_robot_only(scene, console):
    console.shows("#chip-tracker", "✓")
    console.shows("#chip-link", "images/s")
    assert all(address.startswith((scene.console.server.url, "blob:")) for address in console.addresses)
    assert console.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not console.page.is_visible("#notice")


def test_box_is_sent_with_the_stamp_of_the_shown_image(scene, console):
    speed, begun = 30.0, time.monotonic()

    def move() -> None:
        scene.camera.places = [(200.0 + speed * ((time.monotonic() - begun) % 10.0), 120.0), None]

    scene.camera.node.create_timer(0.02, move)
    try:
        x0, y0, x1, y1 = console.until(console.square, "the square")
        seen = console.drag(x0 - 20, y0 - 10, x1 + 60, y1 + 10)
        sent = console.until(lambda: console.requests("init"), "a request")[0]
    finally:
        for timer in list(scene.camera.node.timers):
            scene.camera.node.destroy_timer(timer)
    scale = console.scale
    (x, y), _ = scene.camera.stamps[tuple(sent["stamp"])]
    assert [value / scale for value in seen] == pytest.approx([x, y, x + SIDE, y + SIDE], abs=3.0)
    expected = [(x0 - 20) / scale, (y0 - 10) / scale, (x1 - x0 + 80) / scale, (y1 - y0 + 20) / scale]
    assert sent["box"] == pytest.approx(expected, abs=1.5)
    console.shows("#answers", "✓")
    assert scene.tracker.inits[-1][1] == pytest.approx(sent["box"], abs=0.01)


def test_box_moves_with_the_target_in_its_image(scene, console):
    console.follow("cup")
    assert console.text("#targets strong") == "cup"
    console.shows("#targets", "0.90")
    for place in ((420.0, 60.0), (90.0, 200.0)):
        scene.camera.places = [place, None]

        def enclosed(place: tuple[float, float] = place) -> bool:
            square, box = console.square(), console.box()
            if square is None or box is None or abs(square[0] / console.scale - place[0]) > 8:
                return False
            # the label is above the box, as wide or wider
            return abs(box[0] - square[0]) < 8 and abs(box[3] - square[3]) < 8

        console.until(enclosed, f"the box round the square at {place}")


def test_a_target_out_of_sight_is_lost_and_has_no_box(scene, console):
    console.follow("cup")
    console.until(console.box, "a box")
    scene.camera.places = [None, None]
    console.shows("#targets", "○ lost")
    console.shows("#targets", "last seen")
    console.until(lambda: console.box() is None, "an image without box")
    scene.camera.places = [(300.0, 150.0), None]
    console.shows("#targets", "● tracking")
    console.until(console.box, "a box")


def test_each_target_has_its_own_name_number_and_colour(scene, console):
    scene.camera.places = [(100.0, 150.0), (400.0, 150.0)]
    console.follow("cup", (100.0, 150.0))
    scale = console.scale
    console.page.fill("#name", "pen")
    console.drag(390 * scale, 140 * scale, 470 * scale, 220 * scale)
    console.until(lambda: console.page.locator("#targets li").count() == 2, "two targets")
    assert console.page.locator("#targets strong").all_inner_texts() == ["cup", "pen"]
    assert console.page.locator("#targets .number").all_inner_texts() == ["1", "2"]
    colours = console.page.evaluate(
        "[...document.querySelectorAll('#targets li')].map((item) => item.style.getPropertyValue('--colour'))"
    )
    assert colours == ["#56b4e9", "#e69f00"]
    console.page.locator("#targets li", has_text="cup").get_by_text("Drop").click()
    console.until(lambda: console.page.locator("#targets strong").all_inner_texts() == ["pen"], "only the pen")


def test_delete_drops_the_target_that_has_the_focus(scene, console):
    console.follow("cup")
    console.page.locator("#drop-all").focus()
    console.page.keyboard.press("Tab")
    assert "cup" in console.page.evaluate("document.activeElement.getAttribute('aria-label')")
    console.page.keyboard.press("Delete")
    console.until(lambda: console.page.locator("#targets li").count() == 0, "no target")
    assert console.requests("drop")[-1]["id"] == "cup"
    assert console.page.evaluate("document.activeElement.id") == "view"


def test_box_is_drawn_moved_resized_and_sent_with_keys_only(scene, console):
    console.page.locator("#view").focus()
    keys = console.page.keyboard
    keys.press("ArrowLeft")
    assert console.page.is_enabled("#follow")
    keys.press("Escape")
    assert not console.page.is_enabled("#follow") and console.requests("init") == []
    keys.press("ArrowRight")  # an eighth of the image in its middle: 280, 158, 80, 45
    for _ in range(10):
        keys.press("ArrowLeft")
    keys.press("ArrowUp")
    keys.press("Shift+ArrowRight")
    keys.press("Shift+ArrowUp")
    keys.press("Alt+ArrowDown")
    keys.press("Enter")
    sent = console.until(lambda: console.requests("init"), "a request")[0]
    assert sent["box"] == [196, 147, 88, 53]
    console.shows("#targets", "tracking")


@pytest.mark.parametrize("way", ["keys", "pointer"])
def test_a_box_in_pixels_of_another_image_size_is_discarded(scene, console, way):
    console.page.locator("#view").focus()
    frame = console.page.locator("#view").bounding_box()
    if way == "keys":
        console.page.keyboard.press("ArrowLeft")
    else:
        console.page.mouse.move(frame["x"] + 20, frame["y"] + 20)
        console.page.mouse.down()
    assert console.page.is_enabled("#follow")
    try:
        scene.camera.cropped = True
        console.until(lambda: not console.page.is_enabled("#follow"), "the end of the box")
        console.page.keyboard.press("Enter")
        console.page.mouse.move(frame["x"] + 90, frame["y"] + 90)
        console.page.mouse.up()
        assert console.requests("init") == []
    finally:
        console.page.mouse.up()
        scene.camera.cropped = False
        frame = console.page.locator("#view")
        console.until(lambda: frame.bounding_box()["height"] > 0.5 * frame.bounding_box()["width"], "the whole image")


def test_reason_of_a_refusal_is_shown_as_text_not_markup(scene, console):
    console.page.fill("#name", "<img src=x onerror=alert(1)>")
    console.drag(700, 100, 780, 180)
    console.shows("#answers", "draw it round a square")
    console.shows("#answers", "<b>grey</b>")
    assert console.page.locator("#answers b, #answers img").count() == 0
    assert console.page.input_value("#name") == "<img src=x onerror=alert(1)>", "what was typed is not lost"


def test_tap_starts_the_object_at_that_point(scene, console):
    x0, y0, x1, y1 = console.square_at(PLACE)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    console.drag(x, y, x + 2, y + 1)
    console.shows("#targets", "tracking")
    sent = console.requests("init")[0]
    assert sent["box"] == pytest.approx([x / console.scale, y / console.scale, 0, 0], abs=1.5)
    assert scene.tracker.inits[-1][1] == (*PLACE, SIDE, SIDE)
    console.drag(700, 100, 701, 100)
    console.shows("#answers", "no object stands out")


def test_a_drag_in_one_direction_asks_for_nothing(scene, console):
    console.drag(300, 200, 360, 201)
    console.page.wait_for_timeout(300)
    assert console.requests("init") == []


def test_tracking_is_paused_and_resumed(scene, console):
    console.follow("cup")
    console.page.click("#enable")
    console.shows("#chip-tracker", "paused")
    console.shows("#targets", "lost")
    console.shows("#enable", "Resume")
    console.page.click("#enable")
    console.shows("#targets", "tracking")
    console.shows("#enable", "Pause")
    console.page.click("#drop-all")
    console.until(lambda: console.requests("drop"), "the request")
    known = [request["pause_number"] for request in console.requests("enable")]
    assert 0 < known[0] < known[1] == scene.console._tracker.pause_number
    assert 0 < console.requests("init")[0]["drop_number"] <= console.requests("drop")[0]["drop_number"]


def test_a_tracker_that_reports_nothing_is_silent(scene, console):
    console.follow("cup")
    console.shows("#chip-tracker", "working")
    scene.tracker.seconds = 6.0
    console.shows("#chip-tracker", "silent for")
    scene.tracker.seconds = 0.0
    console.shows("#chip-tracker", "working")


def test_stopped_camera_makes_image_stale_and_targets_unknown(scene, console):
    console.follow("cup")
    scene.camera.playing = False
    console.shows("#chip-video", "stale")
    console.shows("#banner", "Stale: this image is")
    console.shows("#targets", "no update for")
    assert console.until(lambda: console.box() is None, "an image without box") is True
    assert console.square() is None, "an old image is shown differently from a live one"
    scene.camera.playing = True
    console.shows("#chip-video", "live")
    console.shows("#targets", "tracking")


def test_phone_layout_fits_and_a_finger_draws(scene, console, chromium):
    phone = Page(chromium, PHONE, has_touch=True, is_mobile=True, device_scale_factor=2).open(scene.console.server.url)
    phone.shows("#chip-video", "live")
    x0, y0, x1, y1 = phone.until(phone.square, "the square")
    frame = phone.page.locator("#view").bounding_box()
    devtools = phone.context.new_cdp_session(phone.page)
    places = [(x0 - 6, y0 - 6), (x1, y1), (x1 + 6, y1 + 6)]
    for kind, (x, y) in zip(("touchStart", "touchMove", "touchMove"), places, strict=True):
        points = [{"x": frame["x"] + x, "y": frame["y"] + y}]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    phone.shows("#targets", "tracking")
    for width in (390, 360, 320):
        phone.page.set_viewport_size({"width": width, "height": 700})
        assert phone.page.evaluate("document.documentElement.scrollWidth") <= width
    assert phone.errors == []
    phone.context.close()
    console.shows("#targets", "tracking")  # the other browser sees it too


def test_eleventh_browser_is_refused_with_the_reason(scene, console, chromium):
    small = {"width": 320, "height": 300}
    with another_console(scene, tracker="/tracker_node", max_rate=2.0, client_timeout=60.0) as other:
        tabs = chromium.new_context(viewport=small)  # windows of their own would be processes of their own
        pages = [Page(chromium, small, context=tabs).open(other.server.url) for _ in range(10)]
        try:
            for page in pages:
                page.until(page.square, "the video")
            console.follow("cup")
            for page in pages:
                page.shows("#targets", "cup")
                page.until(page.box, "the box")
            Page(chromium, small, context=tabs).open(other.server.url).shows("#notice", "10 browsers are connected")
            assert other._watchers == 10
        finally:
            tabs.close()


def test_one_that_stops_reading_does_not_hold_up_the_others(scene, console, chromium):
    with another_console(scene, tracker="/tracker_node", client_timeout=5.0) as other:
        page = Page(chromium, DESKTOP).open(other.server.url)
        page.square_at(PLACE)
        with socket.create_connection(("127.0.0.1", other.server.port)) as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.sendall(handshake(other.server.port))
            time.sleep(0.2)  # for the first status
            stuck.sendall(ACK_FRAME)
            wait_until(lambda: other._watchers == 2, "the one that stops")
            page.follow("cup")
            scene.camera.places = [(300.0, 150.0), None]
            page.square_at((300.0, 150.0))
            wait_until(lambda: other._watchers == 1, "the one that stops dropped", PATIENCE)
            page.shows("#targets", "tracking")
        page.context.close()


def test_token_is_required_and_not_left_in_the_address(scene, chromium):
    with another_console(scene, token=TOKEN, tracker="other_tracker") as other:
        page = Page(chromium, DESKTOP).open(other.server.url)
        page.shows("#login", "This console needs a token")
        assert page.page.locator("#view").is_visible() and page.square() is None
        page.page.fill("#token", TOKEN[:-1] + "x")
        page.page.click("#login button")
        page.shows("#login", "not the right one")
        assert page.square() is None and other._watchers == 0
        page.page.fill("#token", TOKEN)
        page.page.click("#login button")
        page.until(page.square, "the video")
        page.page.reload()
        page.until(page.square, "the video again, without being asked")
        page.context.close()
        linked = Page(chromium, DESKTOP).open(f"{other.server.url}#token={TOKEN}")
        linked.until(linked.square, "the video")
        assert TOKEN not in linked.page.url and not any(
            TOKEN in address.partition("#")[0] for address in linked.addresses
        )
        # And without a tracker, that is said, and a request is refused with the remedy.
        linked.shows("#chip-tracker", "not available")
        linked.shows("#banner", "no node other_tracker")
        linked.drag(100, 100, 300, 300)
        linked.shows("#answers", "the tracker is not available: no service /other/other_tracker/init_target")
        # A console that ends is not taken for an image that stands still.
        assert other.close() or other.close()  # a busy machine may need more than one deadline
        linked.shows("#notice", "Not connected to the robot")
        assert linked.square() is None
        linked.context.close()
