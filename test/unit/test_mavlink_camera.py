# SPDX-License-Identifier: Apache-2.0
"""The MAVLink camera protocol: commands in, acknowledgements and status out; no ROS, no sockets."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dimp_ros.apps.mavlink.camera import Identity, TrackingCamera
from dimp_ros.apps.mavlink.tracking_commands import CommandAnswer
from dimp_ros.geometry.box import Box
from dimp_ros.tracker.result import TargetEstimate, TargetState

common = pytest.importorskip(
    "pymavlink.dialects.v20.common", reason="pymavlink is not installed: pip install pymavlink"
)

GROUND = (255, 190)
CAMERA = (1, 100)


class Ground:
    """A ground station that talks to a camera through packed bytes, and the tracker behind the camera."""

    def __init__(self, **identity: Any) -> None:
        self.now = 100.0
        self.received: list[Any] = []
        self.asked: list[tuple[Any, ...]] = []
        self.drawn: list[tuple[Any, ...]] = []
        self.answer: CommandAnswer | None = CommandAnswer(True)
        self.waiting: list[Any] = []
        self._out = common.MAVLink(None, *GROUND)
        self._in = common.MAVLink(None, *GROUND)
        self._of_camera = common.MAVLink(None, *CAMERA)
        self.camera = TrackingCamera(
            *CAMERA, Identity(**identity), self, self._deliver, status_rate=5.0, clock=lambda: self.now
        )

    def _deliver(self, message: Any) -> None:
        self.received += self._in.parse_buffer(message.pack(self._of_camera))

    def rectangle(self, left: float, top: float, right: float, bottom: float) -> Any:
        """Note the command, and the request once it is made."""
        self.drawn.append(("rectangle", left, top, right, bottom))
        return lambda done: self._ask(("rectangle", left, top, right, bottom), done)

    def point(self, x: float, y: float) -> Any:
        """Note the command, and the request once it is made."""
        self.drawn.append(("point", x, y))
        return lambda done: self._ask(("point", x, y), done)

    def stop(self, done: Any) -> None:
        """Note the request."""
        self._ask(("stop",), done)

    def _ask(self, what: tuple[Any, ...], done: Any) -> None:
        self.asked.append(what)
        if self.answer is None:
            self.waiting.append(done)
        else:
            done(self.answer)

    def say(self, message: Any) -> None:
        """Send a message to the camera."""
        message.pack(self._out)
        for one in common.MAVLink(None).parse_buffer(message.get_msgbuf()):
            self.camera.on_message(one)

    def command(self, number: int, *parameters: float, to: tuple[int, int] = CAMERA, confirmation: int = 0) -> None:
        """Send a COMMAND_LONG."""
        values = [*parameters, *[0.0] * (7 - len(parameters))]
        self.say(common.MAVLink_command_long_message(*to, number, confirmation, *values))

    def give(self, what: tuple[Any, ...], confirmation: int = 0, *, sender: tuple[int, int] = GROUND) -> None:
        """Send a command as it is noted in `asked`, or its repeat."""
        values = [*what[1:], *[0.0] * (8 - len(what))]
        message = common.MAVLink_command_long_message(*CAMERA, NUMBERS[what[0]], confirmation, *values)
        message.pack(common.MAVLink(None, *sender))
        self.camera.on_message(common.MAVLink(None).parse_buffer(message.get_msgbuf())[0])

    def wait(self, seconds: float) -> None:
        """Let time pass, in which the camera runs."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 1.0, end)
            self.camera.tick()
        self.received.clear()

    def take(self, kind: str) -> list[Any]:
        """Return what was received of a kind, and forget everything received."""
        found = [message for message in self.received if message.get_type() == kind]
        self.received.clear()
        return found

    def result(self) -> int:
        """Return the result of the one acknowledgement received."""
        (ack,) = self.take("COMMAND_ACK")
        assert (ack.target_system, ack.target_component) == GROUND
        return int(ack.result)

    def status(self) -> Any:
        """Return the tracking status of this moment."""
        self.received.clear()
        self.command(common.MAV_CMD_REQUEST_MESSAGE, common.MAVLINK_MSG_ID_CAMERA_TRACKING_IMAGE_STATUS)
        (status,) = self.take("CAMERA_TRACKING_IMAGE_STATUS")
        return status


def rectangle(status: Any) -> tuple[float, ...]:
    return (status.rec_top_x, status.rec_top_y, status.rec_bottom_x, status.rec_bottom_y)


def test_rectangle_is_passed_on_and_accepted() -> None:
    ground = Ground()
    ground.command(common.MAV_CMD_CAMERA_TRACK_RECTANGLE, 0.25, 0.5, 0.5, 0.75)
    assert ground.result() == common.MAV_RESULT_ACCEPTED and ground.asked == [("rectangle", 0.25, 0.5, 0.5, 0.75)]


def test_command_int_is_taken_like_command_long() -> None:
    ground = Ground()
    values = (0, 0, 0.25, 0.5, 0.5, 0.75, 0, 0, 0.0)
    ground.say(common.MAVLink_command_int_message(*CAMERA, 0, common.MAV_CMD_CAMERA_TRACK_RECTANGLE, *values))
    assert ground.result() == common.MAV_RESULT_ACCEPTED and ground.asked == [("rectangle", 0.25, 0.5, 0.5, 0.75)]


@pytest.mark.parametrize(
    "edges",
    [
        (0.5, 0.5, 0.25, 0.75),
        (0.25, 0.75, 0.5, 0.5),
        (-0.1, 0, 0.5, 0.5),
        (0, 0, 0.5, 1.1),
        (0.2, 0.2, 0.2, 0.4),
        (math.nan, 0, 0.5, 0.5),
        (0, 0, math.inf, 0.5),
    ],
)
def test_impossible_rectangle_is_denied_with_a_reason(edges: tuple[float, ...]) -> None:
    ground = Ground()
    ground.command(common.MAV_CMD_CAMERA_TRACK_RECTANGLE, *edges)
    texts = [message for message in ground.received if message.get_type() == "STATUSTEXT"]
    assert ground.result() == common.MAV_RESULT_DENIED and ground.asked == []
    assert texts and texts[0].text.startswith("rectangle (")


@pytest.mark.parametrize("point", [(math.nan, 0.5), (0.5, -0.01), (1.01, 0.5), (0.5, math.inf)])
def test_impossible_point_is_denied(point: tuple[float, float]) -> None:
    ground = Ground()
    ground.command(common.MAV_CMD_CAMERA_TRACK_POINT, *point, 0.1)
    assert ground.result() == common.MAV_RESULT_DENIED and ground.asked == []


def test_point_is_passed_on() -> None:
    ground = Ground()
    ground.command(common.MAV_CMD_CAMERA_TRACK_POINT, 0.25, 0.5, 0.1)
    assert ground.result() == common.MAV_RESULT_ACCEPTED and ground.asked == [("point", 0.25, 0.5)]


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (CommandAnswer(False, "the box is too small"), common.MAV_RESULT_DENIED),
        (CommandAnswer(False, "no tracker", later=True), common.MAV_RESULT_TEMPORARILY_REJECTED),
    ],
)
def test_tracker_refusal_is_acknowledged_with_its_reason(answer: CommandAnswer, result: int) -> None:
    ground = Ground()
    ground.answer = answer
    ground.command(common.MAV_CMD_CAMERA_TRACK_RECTANGLE, 0.1, 0.1, 0.2, 0.2)
    texts = [message.text for message in ground.received if message.get_type() == "STATUSTEXT"]
    assert ground.result() == result and texts == [answer.text]


def test_long_reason_is_sent_in_numbered_parts_and_cut() -> None:
    ground = Ground()
    ground.answer = CommandAnswer(False, "x" * 1000)
    ground.command(common.MAV_CMD_CAMERA_TRACK_RECTANGLE, 0.1, 0.1, 0.2, 0.2)
    texts = ground.take("STATUSTEXT")
    assert [text.chunk_seq for text in texts] == [0, 1, 2, 3] and len({text.id for text in texts}) == 1
    assert texts[0].id > 0 and "".join(text.text for text in texts) == "x" * 200


LEFT, RIGHT, MIDDLE = (
    ("rectangle", 0.125, 0.125, 0.25, 0.25),
    ("rectangle", 0.5, 0.125, 0.75, 0.25),
    ("point", 0.5, 0.5),
)
STOP = ("stop",)
NUMBERS = {
    "rectangle": common.MAV_CMD_CAMERA_TRACK_RECTANGLE,
    "point": common.MAV_CMD_CAMERA_TRACK_POINT,
    "stop": common.MAV_CMD_CAMERA_STOP_TRACKING,
}


ACCEPTED, REJECTED = common.MAV_RESULT_ACCEPTED, common.MAV_RESULT_TEMPORARILY_REJECTED


@pytest.mark.parametrize(
    ("given", "asked", "results"),
    [
        ([LEFT, RIGHT], [LEFT, RIGHT], [ACCEPTED]),
        ([LEFT, RIGHT, LEFT], [LEFT, LEFT], [ACCEPTED]),
        ([LEFT, MIDDLE, RIGHT], [LEFT, RIGHT], [REJECTED, ACCEPTED]),
        ([LEFT, MIDDLE], [LEFT, MIDDLE], [ACCEPTED, ACCEPTED]),
        ([MIDDLE, STOP, MIDDLE], [MIDDLE, STOP, MIDDLE], [ACCEPTED, ACCEPTED]),
        ([LEFT, STOP], [LEFT, STOP, STOP], [REJECTED, ACCEPTED]),
        ([LEFT, RIGHT, STOP], [LEFT, STOP, STOP], [REJECTED, REJECTED, ACCEPTED]),
        ([LEFT, STOP, RIGHT, STOP], [LEFT, STOP, STOP, STOP], [REJECTED, REJECTED, ACCEPTED]),
    ],
)
def test_last_command_counts_while_one_before_is_not_answered(
    given: list[Any], asked: list[Any], results: list[int]
) -> None:
    """The operator corrects the box, or stops, while the tracker still starts; a stop is never overtaken.

    No rectangle's answer stands for another one: the last answer to a kind is that of the last command of the kind.
    """
    ground = Ground()
    ground.answer = None
    for repeat, (name, *parameters) in enumerate(given):
        ground.command(NUMBERS[name], *parameters)
        if repeat == len(given) - 1:
            before = len(ground.asked)
            ground.command(NUMBERS[name], *parameters, confirmation=1)
            assert len(ground.asked) == before, "a repeat of the last one"
    while ground.waiting:
        ground.waiting.pop(0)(CommandAnswer(True))
    assert ground.asked == asked
    found = [one.result for one in ground.take("COMMAND_ACK")]
    assert sorted(one for one in found if one != common.MAV_RESULT_IN_PROGRESS) == sorted(results)


def test_no_answer_to_one_rectangle_stands_for_another() -> None:
    ground = Ground()
    ground.answer = None
    for name, *parameters in (LEFT, RIGHT):
        ground.command(NUMBERS[name], *parameters)
    assert ground.result() == common.MAV_RESULT_IN_PROGRESS and ground.drawn == [LEFT, RIGHT], "of its own image"
    ground.waiting.pop(0)(CommandAnswer(True))
    assert ground.take("COMMAND_ACK") == []
    ground.waiting.pop(0)(CommandAnswer(False, "nothing there"))
    assert ground.result() == common.MAV_RESULT_DENIED


def test_repeats_of_two_ground_stations_do_not_replace_each_other() -> None:
    ground = Ground()
    ground.answer = None
    other = common.MAVLink(None, 254, 190)
    for _ in range(3):
        ground.command(NUMBERS["rectangle"], *LEFT[1:])
        message = common.MAVLink_command_long_message(*CAMERA, NUMBERS["rectangle"], 0, *RIGHT[1:], 0, 0, 0)
        message.pack(other)
        ground.camera.on_message(common.MAVLink(None).parse_buffer(message.get_msgbuf())[0])
    while ground.waiting:
        ground.waiting.pop(0)(CommandAnswer(True))
    assert ground.asked == [LEFT, RIGHT]


def test_request_that_fails_does_not_block_the_next() -> None:
    ground = Ground()
    ground.rectangle = lambda *edges: lambda done: 1 / 0  # type: ignore[assignment, method-assign]
    ground.command(NUMBERS["rectangle"], *LEFT[1:])
    assert ground.result() == common.MAV_RESULT_DENIED
    ground.command(NUMBERS["point"], *MIDDLE[1:])
    assert ground.result() == ACCEPTED and ground.asked == [MIDDLE]


@pytest.mark.parametrize("ticks", [False, True], ids=["read first", "ticked first"])
@pytest.mark.parametrize(("pause", "taken"), [(1.4, True), (1.6, False), (900.0, False)])
def test_start_that_waited_while_the_process_was_paused_is_rejected(pause: float, taken: bool, ticks: bool) -> None:
    ground = Ground()
    ground.camera.tick()
    ground.now += pause
    if ticks:
        ground.camera.tick()
    for name, *parameters in (LEFT, MIDDLE):
        ground.command(NUMBERS[name], *parameters)
        assert ground.result() == (ACCEPTED if taken else REJECTED)
    ground.command(NUMBERS["stop"])
    assert ground.result() == ACCEPTED and ground.asked == ([LEFT, MIDDLE, STOP] if taken else [STOP])
    ground.now += 0.3
    ground.command(NUMBERS["point"], *MIDDLE[1:])
    assert ground.result() == ACCEPTED


def test_start_that_is_refused_leaves_no_target_that_was_stopped() -> None:
    ground = Ground()
    ground.answer = None
    for name, *parameters in (LEFT, STOP, RIGHT):
        ground.command(NUMBERS[name], *parameters)
    for answer in (True, True, False):
        ground.waiting.pop(0)(CommandAnswer(answer))
    assert ground.asked == [LEFT, STOP, RIGHT, STOP]


def test_repeated_command_in_progress_is_not_carried_out_twice() -> None:
    ground = Ground()
    ground.answer = None
    ground.command(common.MAV_CMD_CAMERA_TRACK_RECTANGLE, 0.1, 0.1, 0.2, 0.2)
    assert ground.take("COMMAND_ACK") == []
    ground.command(common.MAV_CMD_CAMERA_TRACK_RECTANGLE, 0.1, 0.1, 0.2, 0.2, confirmation=1)
    assert ground.result() == common.MAV_RESULT_IN_PROGRESS and len(ground.asked) == 1
    ground.waiting.pop()(CommandAnswer(True))
    assert ground.result() == common.MAV_RESULT_ACCEPTED
    ground.command(common.MAV_CMD_CAMERA_TRACK_RECTANGLE, 0.1, 0.1, 0.2, 0.2)
    assert len(ground.asked) == 2, "the next command is a new one"


@pytest.mark.parametrize("seconds", [0.3, 30.0])
@pytest.mark.parametrize("later", [[STOP], [RIGHT], [MIDDLE], [RIGHT, STOP], [STOP, RIGHT]])
@pytest.mark.parametrize("first", [LEFT, ("point", 0.25, 0.25)])
@pytest.mark.parametrize("sender", [GROUND, (254, 190)])
def test_late_repeat_of_a_start_does_not_undo_what_came_after_it(
    first: Any, later: list[Any], seconds: float, sender: tuple[int, int]
) -> None:
    ground = Ground()
    ground.give(first)
    for one in later:
        ground.give(one, sender=sender)
    ground.wait(seconds)
    ground.received.clear()
    for confirmation in (1, 255):
        ground.give(first, confirmation)
        assert ground.result() == REJECTED and ground.asked == [first, *later]
    ground.give(first)
    assert ground.result() == ACCEPTED, "a new command"


@pytest.mark.parametrize(
    "answer", [CommandAnswer(True), CommandAnswer(False, "nothing there"), CommandAnswer(False, "no tracker", True)]
)
def test_repeat_after_the_answer_gets_the_answer_again(answer: CommandAnswer) -> None:
    ground = Ground()
    for start in (LEFT, MIDDLE):
        ground.answer = answer
        ground.give(start)
        texts = [one.text for one in ground.received if one.get_type() == "STATUSTEXT"]
        result = ground.result()
        ground.answer = CommandAnswer(True)
        for confirmation in (1, 2, 1):
            ground.wait(50.0)
            ground.give(start, confirmation)
            assert [one.text for one in ground.received if one.get_type() == "STATUSTEXT"] == texts
            assert ground.result() == result and ground.asked[-1] == start
    assert ground.asked == [LEFT, MIDDLE]


@pytest.mark.parametrize(("given", "asked"), [([LEFT, RIGHT], [LEFT, RIGHT]), ([LEFT, STOP], [LEFT, STOP, STOP])])
def test_repeat_of_a_start_that_is_open_starts_nothing_after_what_has_come_since(given: list[Any], asked: Any) -> None:
    ground = Ground()
    ground.answer = None
    for one in given:
        ground.give(one)
    ground.received.clear()
    ground.give(LEFT, 1)
    assert ground.result() == common.MAV_RESULT_IN_PROGRESS
    ground.waiting.pop(0)(CommandAnswer(True))
    ground.received.clear()
    ground.give(LEFT, 2)
    assert ground.result() == (REJECTED if STOP in given else common.MAV_RESULT_IN_PROGRESS), "the other one's is open"
    while ground.waiting:
        ground.waiting.pop(0)(CommandAnswer(True))
    assert ground.asked == asked


@pytest.mark.parametrize(("since_stop", "taken"), [(None, True), (0.3, False), (9.9, False), (10.1, True)])
def test_repeat_of_a_start_that_was_lost_is_a_start_but_after_a_stop(since_stop: float | None, taken: bool) -> None:
    ground = Ground()
    if since_stop is not None:
        ground.give(STOP, sender=(254, 190))
        ground.wait(since_stop)
    for start in (LEFT, MIDDLE):
        ground.received.clear()
        ground.give(start, 1)
        assert ground.result() == (ACCEPTED if taken else REJECTED)
    assert (MIDDLE in ground.asked) == taken
    if not taken:
        ground.wait(11.0)
        ground.give(MIDDLE, 2)
        assert ground.result() == REJECTED, "it is no other one"


def test_repeat_of_a_start_that_waited_during_a_pause_is_rejected_like_it() -> None:
    ground = Ground()
    ground.camera.tick()
    ground.now += 5.0
    for confirmation, seconds in ((0, 0.1), (1, 0.3), (2, 20.0)):
        ground.give(LEFT, confirmation)
        assert ground.result() == REJECTED and ground.asked == []
        ground.wait(seconds)


def test_every_stop_is_passed_on() -> None:
    ground = Ground()
    for start in (LEFT, None, MIDDLE):
        if start:
            ground.give(start)
        for confirmation in (0, 1, 2, 1):
            ground.received.clear()
            ground.give(STOP, confirmation)
            assert ground.result() == ACCEPTED and ground.asked[-1] == STOP
    assert ground.asked.count(STOP) == 12


def test_what_is_remembered_of_starts_is_of_a_minute_and_a_thousand() -> None:
    ground = Ground()
    ground.give(LEFT)
    ground.give(LEFT, 1, sender=(254, 190))
    assert ground.asked == [LEFT, LEFT], "another station's is another one"
    ground.wait(61.0)
    ground.give(LEFT, 1)
    assert ground.asked == [LEFT] * 3
    for number in range(1000):
        ground.give(("point", number / 1000, 0.5))
    ground.give(LEFT, 1)
    assert ground.asked[-1] == LEFT and len(ground.camera._tracking._heard) == 1000


@pytest.mark.parametrize("to", [(2, 100), (1, 101), (1, 0), (0, 100), (0, 0), (1, 1)])
def test_command_to_another_system_or_component_is_ignored(to: tuple[int, int]) -> None:
    ground = Ground()
    ground.command(common.MAV_CMD_CAMERA_TRACK_RECTANGLE, 0.1, 0.1, 0.2, 0.2, to=to)
    ground.command(common.MAV_CMD_CAMERA_STOP_TRACKING, to=to)
    assert ground.asked == [] and ground.received == []


def test_unknown_command_is_unsupported() -> None:
    ground = Ground()
    ground.command(common.MAV_CMD_COMPONENT_ARM_DISARM, 1.0)
    assert ground.result() == common.MAV_RESULT_UNSUPPORTED and ground.asked == []


def test_camera_information_tells_what_the_camera_can() -> None:
    ground = Ground(vendor="acme", model="eye", stream_uri="rtsp://127.0.0.1/live")
    ground.camera.on_estimate(None, (640, 480))
    ground.command(common.MAV_CMD_REQUEST_MESSAGE, common.MAVLINK_MSG_ID_CAMERA_INFORMATION)
    (information,) = ground.take("CAMERA_INFORMATION")
    assert bytes(information.vendor_name).rstrip(b"\0") == b"acme" and bytes(information.model_name)[:4] == b"eye\0"
    assert (information.resolution_h, information.resolution_v) == (640, 480)
    for flag in ("HAS_TRACKING_RECTANGLE", "HAS_TRACKING_POINT", "HAS_VIDEO_STREAM"):
        assert information.flags & getattr(common, f"CAMERA_CAP_FLAGS_{flag}")
    assert not information.flags & common.CAMERA_CAP_FLAGS_CAPTURE_IMAGE
    ground.command(common.MAV_CMD_REQUEST_VIDEO_STREAM_INFORMATION, 1)
    (stream,) = ground.take("VIDEO_STREAM_INFORMATION")
    assert stream.uri == "rtsp://127.0.0.1/live" and stream.type == common.VIDEO_STREAM_TYPE_RTSP


@pytest.mark.parametrize("size", [(65536, 70000), (2**32 - 1, 2**32 - 1)])
@pytest.mark.parametrize("name", ["CAMERA_INFORMATION", "VIDEO_STREAM_INFORMATION", "VIDEO_STREAM_STATUS"])
def test_image_size_beyond_16_bits_is_sent_as_the_largest(name: str, size: tuple[int, int]) -> None:
    ground = Ground(stream_uri="rtsp://10.0.0.2/live")
    ground.camera.on_estimate(None, size)
    ground.command(common.MAV_CMD_REQUEST_MESSAGE, getattr(common, f"MAVLINK_MSG_ID_{name}"))
    (message,) = ground.take(name)
    assert 65535 in (getattr(message, "resolution_h", 0), getattr(message, "resolution_v", 0))


@pytest.mark.parametrize(
    "name", ["CAMERA_INFORMATION", "CAMERA_SETTINGS", "CAMERA_CAPTURE_STATUS", "STORAGE_INFORMATION"]
)
def test_every_request_of_a_ground_station_is_answered(name: str) -> None:
    for number, first in (
        (common.MAV_CMD_REQUEST_MESSAGE, getattr(common, f"MAVLINK_MSG_ID_{name}")),
        (getattr(common, f"MAV_CMD_REQUEST_{name}"), 1),
    ):
        ground = Ground()
        ground.command(number, first)
        assert [message.get_type() for message in ground.received] == ["COMMAND_ACK", name]


@pytest.mark.parametrize("wanted", [30.0, math.nan, math.inf, -5.0, 1e30, 269.0])
def test_request_for_a_message_it_has_not_is_denied(wanted: float) -> None:
    ground = Ground()
    ground.command(common.MAV_CMD_REQUEST_MESSAGE, wanted)
    assert ground.result() == common.MAV_RESULT_DENIED and ground.received == []


def test_broadcast_request_is_answered_only_where_it_is_known() -> None:
    ground = Ground()
    ground.command(common.MAV_CMD_REQUEST_MESSAGE, common.MAVLINK_MSG_ID_CAMERA_INFORMATION, to=(1, 0))
    assert ground.take("CAMERA_INFORMATION")
    ground.command(common.MAV_CMD_REQUEST_MESSAGE, common.MAVLINK_MSG_ID_ATTITUDE, to=(1, 0))
    assert ground.received == []


def test_status_follows_the_target_without_box_if_lost() -> None:
    ground = Ground()
    assert ground.status().tracking_status == common.CAMERA_TRACKING_STATUS_FLAGS_ERROR, "nothing heard of the tracker"
    ground.camera.on_estimate(None, (640, 480))
    status = ground.status()
    assert status.tracking_status == common.CAMERA_TRACKING_STATUS_FLAGS_IDLE and all(
        map(math.isnan, rectangle(status))
    )
    ground.camera.on_estimate(TargetEstimate("t", TargetState.TRACKING, Box(64, 48, 128, 96)), (640, 480))
    status = ground.status()
    assert status.tracking_status == common.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE
    assert status.tracking_mode == common.CAMERA_TRACKING_MODE_RECTANGLE
    assert rectangle(status) == pytest.approx((0.1, 0.1, 0.3, 0.3))
    ground.camera.on_estimate(TargetEstimate("t", TargetState.LOST), (640, 480))
    status = ground.status()
    assert status.tracking_status == common.CAMERA_TRACKING_STATUS_FLAGS_ERROR
    assert status.tracking_mode == common.CAMERA_TRACKING_MODE_NONE and all(map(math.isnan, rectangle(status)))


def test_silent_tracker_ends_the_rectangle_within_a_second() -> None:
    ground = Ground()
    ground.camera.on_estimate(TargetEstimate("t", TargetState.TRACKING, Box(64, 48, 128, 96)), (640, 480))
    ground.now += 1.0
    assert ground.status().tracking_status == common.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE
    ground.now += 0.01
    assert ground.status().tracking_status == common.CAMERA_TRACKING_STATUS_FLAGS_ERROR


def test_rectangle_beyond_the_image_is_clipped_to_it() -> None:
    ground = Ground()
    ground.camera.on_estimate(TargetEstimate("t", TargetState.UNCERTAIN, Box(-64, -48, 1000, 1000)), (640, 480))
    assert rectangle(ground.status()) == (0.0, 0.0, 1.0, 1.0)


def sent_in(ground: Ground, seconds: float) -> dict[str, int]:
    """Count what the camera sends by itself."""
    ground.received.clear()
    for _ in range(round(seconds * 100)):
        ground.now += 0.01
        ground.camera.tick()
    kinds = [message.get_type() for message in ground.received]
    return {kind: kinds.count(kind) for kind in set(kinds)}


def test_heartbeat_and_status_are_sent_at_their_rates() -> None:
    ground = Ground()
    sent = sent_in(ground, 4.0)
    assert sent["HEARTBEAT"] == pytest.approx(4, abs=1)
    assert sent["CAMERA_TRACKING_IMAGE_STATUS"] == pytest.approx(20, abs=1)


@pytest.mark.parametrize(("microseconds", "expected"), [(100_000, 40), (0, 20), (-1, 0), (1, 200)])
def test_message_interval_sets_the_rate_within_bounds(microseconds: int, expected: int) -> None:
    ground = Ground()
    status = common.MAVLINK_MSG_ID_CAMERA_TRACKING_IMAGE_STATUS
    ground.command(common.MAV_CMD_SET_MESSAGE_INTERVAL, status, microseconds)
    assert ground.result() == common.MAV_RESULT_ACCEPTED
    found = sent_in(ground, 4.0).get("CAMERA_TRACKING_IMAGE_STATUS", 0)
    assert found == pytest.approx(expected, abs=max(1, expected // 10))


@pytest.mark.parametrize("parameters", [(common.MAVLINK_MSG_ID_HEARTBEAT, 1000), (275, math.nan), (math.nan, 1000)])
def test_message_interval_of_anything_else_is_denied(parameters: tuple[float, float]) -> None:
    ground = Ground()
    ground.command(common.MAV_CMD_SET_MESSAGE_INTERVAL, *parameters)
    assert ground.result() == common.MAV_RESULT_DENIED


def test_a_late_clock_sends_no_burst() -> None:
    ground = Ground()
    ground.camera.tick()
    ground.received.clear()
    ground.now += 60.0
    for _ in range(10):
        ground.camera.tick()
    kinds = [message.get_type() for message in ground.received]
    assert kinds.count("HEARTBEAT") <= 2 and kinds.count("CAMERA_TRACKING_IMAGE_STATUS") <= 2
