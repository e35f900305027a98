# SPDX-License-Identifier: Apache-2.0
"""The MAVLink camera protocol of a tracking camera, without ROS and without sockets.

Commands of a ground station become calls of a `CameraTracker`; estimates become CAMERA_TRACKING_IMAGE_STATUS. Follows
MAVLink's camera protocol v2: the camera answers each command with one COMMAND_ACK.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from dimp_ros.apps.mavlink.link import dialect
from dimp_ros.apps.mavlink.tracking_commands import CameraCommand, CameraTracker, TrackingCommands
from dimp_ros.tracker.result import TargetEstimate, TargetState

HEARTBEAT_SECONDS = 1.0
STALE_SECONDS = 1.0
"""Without news of the tracker for so long, the status is an error: never an old rectangle."""

PAUSE_SECONDS = 1.5
"""The process was paused if it did nothing for so long."""

QUEUE_SECONDS = 0.25
"""For so long after a pause, commands may come that have waited in the queue meanwhile."""

MAX_STATUS_RATE = 50.0
TEXT_BYTES = 50
MAX_TEXT_BYTES = 4 * TEXT_BYTES
"""Longest reason that is sent as STATUSTEXT; longer ones are cut."""


class Identity(NamedTuple):
    """What CAMERA_INFORMATION and VIDEO_STREAM_INFORMATION tell."""

    vendor: str = ""
    model: str = ""
    stream_uri: str = ""


class News(NamedTuple):
    """The last estimate, the size of its image in pixels, and when it came (seconds of the camera's clock)."""

    estimate: TargetEstimate | None
    size: tuple[int, int]
    heard: float


class TrackingCamera:
    """Answers the messages of ground stations. Not thread-safe, but for the `done` callbacks of `tracker`.

    :param send: sends a message; may be called from any thread. :param status_rate: of CAMERA_TRACKING_IMAGE_STATUS,
        messages a second, until a ground station asks for another rate.
    """

    def __init__(
        self,
        system: int,
        component: int,
        identity: Identity,
        tracker: CameraTracker,
        send: Callable[[Any], object],
        *,
        status_rate: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._m = dialect()
        self._system, self._component = system, component
        self._identity, self._send, self._clock = identity, send, clock
        self._start = self._called = clock()
        self._awake = -math.inf  # since the last pause of the process
        self._next_heartbeat = self._next_status = self._start
        self._default_interval = self._status_interval = 1.0 / status_rate
        self._news = News(None, (0, 0), -math.inf)  # replaced as a whole: it is set and read by different threads
        self._tracking = TrackingCommands(tracker, self._acknowledge, self._say, clock)
        self._texts = 0
        m = self._m
        self._messages: dict[int, Callable[[], Any]] = {
            m.MAVLINK_MSG_ID_HEARTBEAT: self._heartbeat,
            m.MAVLINK_MSG_ID_CAMERA_INFORMATION: self._camera_information,
            m.MAVLINK_MSG_ID_CAMERA_SETTINGS: self._camera_settings,
            m.MAVLINK_MSG_ID_CAMERA_CAPTURE_STATUS: self._capture_status,
            m.MAVLINK_MSG_ID_STORAGE_INFORMATION: self._storage_information,
            m.MAVLINK_MSG_ID_CAMERA_TRACKING_IMAGE_STATUS: self._tracking_status,
        }
        if identity.stream_uri:
            self._messages[m.MAVLINK_MSG_ID_VIDEO_STREAM_INFORMATION] = self._stream_information
            self._messages[m.MAVLINK_MSG_ID_VIDEO_STREAM_STATUS] = self._stream_status
        # The commands that ask for one message each; REQUEST_MESSAGE has taken their place.
        self._old_requests = {
            m.MAV_CMD_REQUEST_CAMERA_INFORMATION: m.MAVLINK_MSG_ID_CAMERA_INFORMATION,
            m.MAV_CMD_REQUEST_CAMERA_SETTINGS: m.MAVLINK_MSG_ID_CAMERA_SETTINGS,
            m.MAV_CMD_REQUEST_CAMERA_CAPTURE_STATUS: m.MAVLINK_MSG_ID_CAMERA_CAPTURE_STATUS,
            m.MAV_CMD_REQUEST_STORAGE_INFORMATION: m.MAVLINK_MSG_ID_STORAGE_INFORMATION,
            m.MAV_CMD_REQUEST_VIDEO_STREAM_INFORMATION: m.MAVLINK_MSG_ID_VIDEO_STREAM_INFORMATION,
            m.MAV_CMD_REQUEST_VIDEO_STREAM_STATUS: m.MAVLINK_MSG_ID_VIDEO_STREAM_STATUS,
        }

    # What comes in

    def on_message(self, message: Any) -> None:
        """Take a message; all but commands to this camera are ignored."""
        self._note_pause()
        if message.get_type() not in ("COMMAND_LONG", "COMMAND_INT") or message.target_system != self._system:
            return
        last = (message.param5, message.param6) if message.get_type() == "COMMAND_LONG" else (message.x, message.y)
        third = message.param7 if message.get_type() == "COMMAND_LONG" else message.z
        parameters = (message.param1, message.param2, message.param3, message.param4, *last, third)
        sender = message.get_srcSystem(), message.get_srcComponent()
        command = CameraCommand(message.command, parameters, *sender, getattr(message, "confirmation", 0))
        if message.target_component == self._component:
            self._on_command(command)
        elif message.target_component == 0 and command.number == self._m.MAV_CMD_REQUEST_MESSAGE:
            self._request(command, broadcast=True)

    def on_estimate(self, estimate: TargetEstimate | None, size: tuple[int, int]) -> None:
        """Take the tracker's estimate of an image.

        :param estimate: None while there is no target. :param size: of the image, pixels; (0, 0) if not known.
        """
        self._news = News(estimate, size, self._clock())

    def tick(self) -> None:
        """Send what is due."""
        now = self._note_pause()
        if now >= self._next_heartbeat:
            self._next_heartbeat = max(self._next_heartbeat + HEARTBEAT_SECONDS, now)
            self._send(self._heartbeat())
        if now >= self._next_status:
            self._next_status = max(self._next_status + self._status_interval, now)
            self._send(self._tracking_status())

    def _note_pause(self) -> float:
        """Return the time, and note whether the process was paused: what it finds in its queue then is old."""
        now = self._clock()
        if now - self._called > PAUSE_SECONDS:
            self._awake = now
        self._called = now
        return now

    # Commands

    def _on_command(self, command: CameraCommand) -> None:
        m = self._m
        if command.number == m.MAV_CMD_REQUEST_MESSAGE:
            self._request(command)
        elif command.number == m.MAV_CMD_SET_MESSAGE_INTERVAL:
            self._set_interval(command)
        elif command.number in self._old_requests:
            self._answer_message(command, self._old_requests[command.number])
        elif command.number in self._tracking.numbers:
            waited = self._clock() - self._awake < QUEUE_SECONDS
            self._tracking.on_command(command, "it waited while this node was paused: draw again" if waited else "")
        else:
            self._acknowledge(command, m.MAV_RESULT_UNSUPPORTED)

    def _request(self, command: CameraCommand, *, broadcast: bool = False) -> None:
        wanted = command.parameters[0]
        known = math.isfinite(wanted) and int(wanted) in self._messages
        if known or not broadcast:
            self._answer_message(command, int(wanted) if known else -1)

    def _answer_message(self, command: CameraCommand, wanted: int) -> None:
        if wanted not in self._messages:
            self._acknowledge(command, self._m.MAV_RESULT_DENIED)
            return
        self._acknowledge(command, self._m.MAV_RESULT_ACCEPTED)
        self._send(self._messages[wanted]())

    def _set_interval(self, command: CameraCommand) -> None:
        wanted, microseconds = command.parameters[:2]
        if wanted != self._m.MAVLINK_MSG_ID_CAMERA_TRACKING_IMAGE_STATUS or not math.isfinite(microseconds):
            self._acknowledge(command, self._m.MAV_RESULT_DENIED)
            return
        if microseconds < 0:
            self._status_interval = self._next_status = math.inf
        else:
            asked = microseconds / 1e6 if microseconds else self._default_interval
            self._status_interval, self._next_status = max(asked, 1.0 / MAX_STATUS_RATE), self._clock()
        self._acknowledge(command, self._m.MAV_RESULT_ACCEPTED)

    def _acknowledge(self, command: CameraCommand, result: int) -> None:
        self._send(self._m.MAVLink_command_ack_message(command.number, result, 0, 0, command.system, command.component))

    def _say(self, text: str) -> None:
        """Send a text to the operator, in parts where it is long."""
        data = text.encode("ascii", "replace")[:MAX_TEXT_BYTES]
        self._texts = self._texts % 0xFFFF + 1
        number = self._texts if len(data) > TEXT_BYTES else 0
        for part in range(0, len(data), TEXT_BYTES):
            chunk = data[part : part + TEXT_BYTES]
            severity = self._m.MAV_SEVERITY_WARNING
            self._send(self._m.MAVLink_statustext_message(severity, chunk, number, part // TEXT_BYTES))

    # What goes out

    @property
    def _boot_ms(self) -> int:
        return int((self._clock() - self._start) * 1000) & 0xFFFFFFFF

    @property
    def _image_size(self) -> tuple[int, int]:
        """Width and height, as far as the 16 bits of a message hold them."""
        width, height = self._news.size
        return min(width, 0xFFFF), min(height, 0xFFFF)

    def _heartbeat(self) -> Any:
        m = self._m
        kind, state = m.MAV_TYPE_CAMERA, m.MAV_STATE_ACTIVE
        return m.MAVLink_heartbeat_message(kind, m.MAV_AUTOPILOT_INVALID, 0, 0, state, 3)

    def _camera_information(self) -> Any:
        m, unknown = self._m, math.nan
        flags = m.CAMERA_CAP_FLAGS_HAS_TRACKING_RECTANGLE | m.CAMERA_CAP_FLAGS_HAS_TRACKING_POINT
        flags |= m.CAMERA_CAP_FLAGS_HAS_VIDEO_STREAM if self._identity.stream_uri else 0
        names = (_array(self._identity.vendor), _array(self._identity.model))
        width, height = self._image_size
        return m.MAVLink_camera_information_message(
            self._boot_ms, *names, 0, unknown, unknown, unknown, width, height, 0, flags, 0, b""
        )

    def _camera_settings(self) -> Any:
        return self._m.MAVLink_camera_settings_message(self._boot_ms, self._m.CAMERA_MODE_VIDEO)

    def _capture_status(self) -> Any:
        return self._m.MAVLink_camera_capture_status_message(self._boot_ms, 0, 0, 0.0, 0, 0.0)

    def _storage_information(self) -> Any:
        none = self._m.STORAGE_STATUS_NOT_SUPPORTED
        return self._m.MAVLink_storage_information_message(self._boot_ms, 0, 0, none, 0.0, 0.0, 0.0, 0.0, 0.0)

    def _stream_information(self) -> Any:
        m = self._m
        uri = self._identity.stream_uri
        kind = m.VIDEO_STREAM_TYPE_RTSP if uri.startswith("rtsp:") else m.VIDEO_STREAM_TYPE_RTPUDP
        running, (width, height) = m.VIDEO_STREAM_STATUS_FLAGS_RUNNING, self._image_size
        return m.MAVLink_video_stream_information_message(
            1, 1, kind, running, 0.0, width, height, 0, 0, 0, b"camera", uri.encode()
        )

    def _stream_status(self) -> Any:
        width, height = self._image_size
        running = self._m.VIDEO_STREAM_STATUS_FLAGS_RUNNING
        return self._m.MAVLink_video_stream_status_message(1, running, 0.0, width, height, 0, 0, 0)

    def _tracking_status(self) -> Any:
        """Return the state: active with a rectangle, idle without a target, otherwise an error without a rectangle."""
        m, unknown = self._m, math.nan
        estimate, size, heard = self._news
        fresh = self._clock() - heard <= STALE_SECONDS
        status = m.CAMERA_TRACKING_STATUS_FLAGS_ERROR
        rectangle: tuple[float, ...] = (unknown,) * 4
        if fresh and (estimate is None or estimate.state is TargetState.UNINITIALIZED):
            status = m.CAMERA_TRACKING_STATUS_FLAGS_IDLE
        elif fresh and estimate is not None and estimate.box is not None and min(size) > 0:
            status = m.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE
            (x, y, w, h), (width, height) = estimate.box, size
            edges = (x / width, y / height, (x + w) / width, (y + h) / height)
            rectangle = tuple(min(max(edge, 0.0), 1.0) for edge in edges)
        active = status == m.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE
        mode = m.CAMERA_TRACKING_MODE_RECTANGLE if active else m.CAMERA_TRACKING_MODE_NONE
        data = m.CAMERA_TRACKING_TARGET_DATA_IN_STATUS if active else 0
        return m.MAVLink_camera_tracking_image_status_message(status, mode, data, unknown, unknown, unknown, *rectangle)


def _array(text: str) -> list[int]:
    """Return text as the 32 bytes of a name field."""
    return list(text.encode()[:32].ljust(32, b"\0"))
