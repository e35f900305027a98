# SPDX-License-Identifier: Apache-2.0
"""The MAVLink camera node with a tracker node, and MAVSDK's camera plugin as the ground station, over UDP."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from harness.ros_harness import Parameter, context, spinning, tracker_node, wait_until
from helpers.console_fixture import SIDE, SIZE, FakeCamera, SquareTracker, answer_drops_late

pytest.importorskip("pymavlink", reason="pymavlink is not installed: pip install pymavlink")
mavsdk = pytest.importorskip("mavsdk", reason="mavsdk is not installed: pip install mavsdk")

from mavsdk.plugins.camera import Camera as GroundCamera  # noqa: E402
from mavsdk.plugins.camera.camera import CameraError  # noqa: E402
from pymavlink.dialects.v20 import common  # noqa: E402

from dimp_ros.apps.mavlink.link import make_codec, messages_in  # noqa: E402
from dimp_ros.apps.mavlink.node import MavlinkNode  # noqa: E402
from dimp_ros.geometry.box import Box  # noqa: E402
from dimp_ros.images.picture import Picture  # noqa: E402
from dimp_ros.ros_utils.messages import bounding_box  # noqa: E402
from dimp_ros.srv import InitTarget  # noqa: E402
from dimp_ros.tracker.result import TrackResult  # noqa: E402

HOST = "127.0.0.1"
COMPONENT = 100
WIDTH, HEIGHT = SIZE


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


@contextmanager
def world(connection: str, *, tracker: bool = True, **parameters: Any) -> Iterator[SimpleNamespace]:
    """Run a camera that sees a square, a tracker node, and the MAVLink node."""
    with context():
        camera, squares = FakeCamera(rate=20.0), StartTracker()
        node = tracker_node(squares) if tracker else None
        overrides = [Parameter(k, value=v) for k, v in {"connection": connection, **parameters}.items()]
        mavlink = MavlinkNode(parameter_overrides=overrides)
        try:
            with spinning(mavlink, camera.node, *([node] if node else [])):
                yield SimpleNamespace(camera=camera, tracker=squares, node=node, mavlink=mavlink)
                camera.close()
                mavlink.close()
        finally:
            camera.close()


class StartTracker(SquareTracker):
    """Notes where the square was in the image that the target was taken from."""

    def __init__(self) -> None:
        super().__init__()
        self.started_at = float("nan")

    def init(self, image: Picture, box: Sequence[float], *, target_id: str = "0") -> TrackResult:
        """Take the strongest colour in the box."""
        result = super().init(image, box, target_id=target_id)
        assert result.box is not None
        self.started_at = result.box.x
        return result


class Station:
    """A ground station of a few lines: a socket and pymavlink."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HOST, 0))
        self.socket.settimeout(0.05)
        self.port = self.socket.getsockname()[1]
        self.messages: list[Any] = []
        self._address: Any = None
        self._codec = make_codec(self, 255, 190, None)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                data, self._address = self.socket.recvfrom(2048)
            except TimeoutError:
                continue
            self.messages += messages_in(make_codec(self, 255, 190, None), data, whole=True)

    def write(self, data: bytes) -> None:
        """Send bytes to the camera."""
        self.socket.sendto(data, self._address)

    def send_command(self, number: int, *parameters: float) -> None:
        """Send a command."""
        wait_until(lambda: self._address, "the camera's heartbeat")
        values = [*parameters, *[0.0] * (7 - len(parameters))]
        self._codec.send(common.MAVLink_command_long_message(1, COMPONENT, number, 0, *values))

    def command(self, number: int, *parameters: float) -> int:
        """Send a command and return the result that is acknowledged."""
        before = len(self.messages)
        self.send_command(number, *parameters)

        def acknowledged() -> Any:
            return [m for m in self.messages[before:] if m.get_type() == "COMMAND_ACK" and m.command == number]

        return int(wait_until(acknowledged, "acknowledgement")[0].result)

    def status(self) -> Any:
        """Return the last tracking status."""
        found = [m for m in list(self.messages) if m.get_type() == "CAMERA_TRACKING_IMAGE_STATUS"]
        return found[-1] if found else None

    def texts(self, part: str) -> list[str]:
        """Return the texts received that contain ``part``."""
        return [m.text for m in list(self.messages) if m.get_type() == "STATUSTEXT" and part in m.text]

    def is_active(self) -> bool:
        """Whether a target is tracked."""
        status = self.status()
        return status is not None and status.tracking_status == common.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE

    def wait_for_tracker(self) -> None:
        """Wait until the tracker has reported that there is no target."""
        idle = common.CAMERA_TRACKING_STATUS_FLAGS_IDLE
        wait_until(lambda: self.status() and self.status().tracking_status == idle, "the tracker")

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        self._thread.join()
        self.socket.close()


@pytest.fixture
def station() -> Iterator[Station]:
    one = Station()
    yield one
    one.close()


def edges(x: float, y: float) -> tuple[float, float, float, float]:
    """Return the rectangle of a square at a place, as fractions of the image."""
    return x / WIDTH, y / HEIGHT, (x + SIDE) / WIDTH, (y + SIDE) / HEIGHT


def test_mavsdk_starts_and_stops_a_target() -> None:
    port = free_port()
    with world(f"udpout:{HOST}:{port}") as w:
        sdk = mavsdk.Mavsdk(mavsdk.Configuration.create_manual(245, 190, True))
        try:
            sdk.add_any_connection(f"udpin://{HOST}:{port}")
            wait_until(lambda: sdk.get_systems(), "the camera's system", 20.0)
            plugin = GroundCamera(sdk.get_systems()[0])
            wait_until(lambda: plugin.camera_list().cameras, "camera information", 20.0)
            information = plugin.camera_list().cameras[0]
            assert information.vendor_name == "dimp_ros" and information.model_name == "DiMP tracker"
            wait_until(lambda: w.camera.stamps, "an image")

            plugin.track_rectangle(COMPONENT, *edges(200.0, 120.0))
            wait_until(lambda: w.tracker.inits, "the target")
            name, box = w.tracker.inits[-1]
            assert name == "mavlink" and box == pytest.approx((200, 120, SIDE, SIDE), abs=0.5)

            with pytest.raises(CameraError, match="DENIED"):
                plugin.track_rectangle(COMPONENT, 0.7, 0.7, 0.8, 0.8)  # nothing but grey is there

            w.tracker.inits.clear()
            plugin.track_point(COMPONENT, (200.0 + SIDE / 4) / WIDTH, (120.0 + SIDE / 2) / HEIGHT, 0.0)
            assert w.tracker.inits[-1] == ("mavlink", (200, 120, SIDE, SIDE))
            with pytest.raises(CameraError, match="DENIED"):
                plugin.track_point(COMPONENT, 0.8, 0.8, 0.0)
            plugin.track_stop(COMPONENT)
            wait_until(lambda: w.node.count_publishers("targets") and not w.tracker.boxes, "no target")
            plugin.track_stop(COMPONENT)  # again is no error
        finally:
            sdk.destroy()


def test_status_follows_the_target_until_it_is_lost_or_stopped(station: Station) -> None:
    with world(f"udpout:{HOST}:{station.port}") as w:
        station.wait_for_tracker()
        wait_until(lambda: w.camera.stamps, "an image")
        assert station.command(common.MAV_CMD_CAMERA_TRACK_RECTANGLE, *edges(200.0, 120.0)) == 0
        wait_until(station.is_active, "an active status")
        w.camera.places[0] = (300.0, 200.0)

        def there() -> bool:
            status = station.status()
            found = (status.rec_top_x, status.rec_top_y, status.rec_bottom_x, status.rec_bottom_y)
            return found == pytest.approx(edges(300.0, 200.0), abs=1e-4)

        wait_until(there, "the rectangle at the new place")
        w.camera.places[0] = None
        wait_until(lambda: station.status().tracking_status == common.CAMERA_TRACKING_STATUS_FLAGS_ERROR, "lost")
        assert station.status().rec_top_x != station.status().rec_top_x, "no rectangle"
        assert station.command(common.MAV_CMD_CAMERA_STOP_TRACKING) == 0
        wait_until(lambda: station.status().tracking_status == common.CAMERA_TRACKING_STATUS_FLAGS_IDLE, "idle")


def test_command_without_a_tracker_is_rejected_for_now(station: Station) -> None:
    with world(f"udpout:{HOST}:{station.port}", tracker=False):
        result = station.command(common.MAV_CMD_CAMERA_TRACK_RECTANGLE, *edges(200.0, 120.0))
        assert result == common.MAV_RESULT_TEMPORARILY_REJECTED
        wait_until(
            lambda: [m for m in station.messages if m.get_type() == "STATUSTEXT" and "no tracker" in m.text], "why"
        )


def hold_starts(tracker: Any) -> tuple[threading.Event, threading.Event]:
    """Let a tracker begin a target only once the second event is set; the first tells that it would."""
    begun, release, init = threading.Event(), threading.Event(), tracker.init

    def held(*args: Any, **named: Any) -> TrackResult:
        begun.set()
        release.wait(10)
        result: TrackResult = init(*args, **named)
        return result

    tracker.init = held
    return begun, release


def begin_held_start(w: SimpleNamespace, station: Station) -> threading.Event:
    """Send a rectangle, whose start the tracker does not answer before the event that is returned is set."""
    station.wait_for_tracker()
    wait_until(lambda: w.camera.stamps, "an image")
    begun, release = hold_starts(w.tracker)
    station.send_command(common.MAV_CMD_CAMERA_TRACK_RECTANGLE, *edges(200.0, 120.0))
    assert begun.wait(10)
    return release


def test_start_rejected_for_lack_of_an_answer_is_taken_back(station: Station) -> None:
    """The tracker has not even taken it when it is rejected, since it still does another client's."""
    with world(f"udpout:{HOST}:{station.port}", request_timeout=0.2) as w:
        station.wait_for_tracker()
        wait_until(lambda: w.camera.stamps, "an image")
        begun, release = hold_starts(w.tracker)
        client = w.camera.node.create_client(InitTarget, "tracker_node/init_target")
        box = bounding_box(Box(200.0, 120.0, SIDE, SIDE))
        wait_until(client.service_is_ready, "the service")
        client.call_async(InitTarget.Request(id="other", bbox=box))
        assert begun.wait(10)
        result = station.command(common.MAV_CMD_CAMERA_TRACK_RECTANGLE, *edges(200.0, 120.0))
        assert result == common.MAV_RESULT_TEMPORARILY_REJECTED
        release.set()
        wait_until(lambda: list(w.tracker.boxes) == ["other"], "the first start, alone")
        time.sleep(0.3)
        assert list(w.tracker.boxes) == ["other"]


def test_numbers_of_another_tracker_are_not_compared_with_ours(station: Station) -> None:
    with world(f"udpout:{HOST}:{station.port}") as w:
        station.wait_for_tracker()
        assert station.command(common.MAV_CMD_CAMERA_STOP_TRACKING) == common.MAV_RESULT_ACCEPTED
        own = wait_until(lambda: w.mavlink._own_drop, "the number of the stop")
        with w.mavlink._lock:
            w.mavlink._drop_number, w.mavlink._own_drop = own + 10, own + 10
        wait_until(lambda: w.mavlink._drop_number == own, "a message of the tracker")
        assert w.mavlink._own_drop == 0


def test_node_that_ends_takes_back_a_start_that_waits(station: Station) -> None:
    with world(f"udpout:{HOST}:{station.port}") as w:
        release = begin_held_start(w, station)
        w.mavlink.close()
        release.set()
        wait_until(lambda: w.tracker.inits, "the start")
        wait_until(lambda: not w.tracker.boxes, "the target's end")


def test_a_start_that_cannot_be_taken_back_at_the_end_is_told_of(station: Station, capfd: Any) -> None:
    with world(f"udpout:{HOST}:{station.port}") as w:
        release = begin_held_start(w, station)
        answer_drops_late(w.node, 1.5)
        capfd.readouterr()
        w.mavlink.close()
        assert "it may still start target 'mavlink'; drop it there" in capfd.readouterr().err
        release.set()


@pytest.mark.parametrize(("delay", "point"), [(0.5, False), (0.5, True), (0.0, False)])
def test_video_delay_selects_the_image_that_was_shown(station: Station, delay: float, point: bool) -> None:
    """The target moves a width a second; the operator sees it half a second late."""
    with world(f"udpout:{HOST}:{station.port}", video_delay=delay) as w:
        begin = time.monotonic()
        moving = threading.Event()

        def move() -> None:
            while not moving.wait(0.005):
                w.camera.places[0] = (150.0 + SIDE * (time.monotonic() - begin), 120.0)

        mover = threading.Thread(target=move)
        mover.start()
        try:
            time.sleep(1.5)
            shown = time.monotonic() - begin - 0.5
            drawn = (150.0 + SIDE * shown, 120.0)
            left, top, right, bottom = edges(*drawn)
            if point:
                result = station.command(common.MAV_CMD_CAMERA_TRACK_POINT, (left + right) / 2, (top + bottom) / 2)
            else:
                result = station.command(common.MAV_CMD_CAMERA_TRACK_RECTANGLE, left, top, right, bottom)
            assert result == common.MAV_RESULT_ACCEPTED
            wait_until(station.is_active, "an active status")

            def caught_up() -> bool:
                status = station.status()
                now = 150.0 + SIDE * (time.monotonic() - begin)
                return abs(status.rec_top_x * WIDTH - now) < SIDE / 2

            wait_until(caught_up, "the target where it is now")
        finally:
            moving.set()
            mover.join()
        off = abs(w.tracker.started_at - drawn[0]) / SIDE
        assert off < 0.2 if delay else off > 0.3, f"the target was {off:.2f} widths from the drawn box"
