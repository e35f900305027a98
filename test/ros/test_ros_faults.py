# SPDX-License-Identifier: Apache-2.0
"""What breaks around the tracker node, over real DDS: what it says then, and how long until all is well again.

docs/reliability.md lists these and the other tests of faults; the times in it are the bounds asserted here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from harness.ros_harness import (
    BOX,
    RELIABLE,
    Client,
    DropTarget,
    Image,
    InitTarget,
    ScriptedTracker,
    State,
    context,
    is_zero,
    numbered_image,
    running,
    spinning,
    start_target,
    tracker_node,
    wait_until,
)
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.lifecycle import TransitionCallbackReturn
from rosgraph_msgs.msg import Clock

RECOVERY_SECONDS = 3.0
"""Asserted where the table says "the next image" or "at once": milliseconds, and time for a machine that is busy."""


class Diagnostics:
    """The last status of each kind that a node tells."""

    def __init__(self, client: Client) -> None:
        self._last: dict[str, DiagnosticStatus] = {}
        client.node.create_subscription(DiagnosticArray, "/diagnostics", self._receive, RELIABLE)

    def _receive(self, array: DiagnosticArray) -> None:
        for status in array.status:
            self._last[status.name.split(": ")[-1]] = status

    def said(self, kind: str, level: bytes, words: str) -> bool:
        """Tell whether this is the last status of ``kind``: input, tracking or node."""
        status = self._last.get(kind)
        return status is not None and status.level == level and words in status.message

    def wait(self, kind: str, level: bytes, words: str = "") -> None:
        """Wait for a status."""
        wait_until(lambda: self.said(kind, level, words), f"diagnostics of {kind} at {level!r} with {words!r}")


def image_of_now(client: Client, number: int) -> Image:
    """Return a `numbered_image` with the time as its stamp."""
    image = numbered_image(number)
    image.header.stamp = client.node.get_clock().now().to_msg()
    return image


def seconds_until(condition: Callable[[], Any], what: str) -> float:
    """Return how long it takes until ``condition`` holds."""
    begin = time.monotonic()
    wait_until(condition, what)
    return time.monotonic() - begin


# Images


def test_camera_that_stops_is_reported_and_may_start_again():
    tracker = ScriptedTracker()
    with running(tracker, no_image_warning=0.3, diagnostics_period=0.1) as client:
        told = Diagnostics(client)
        client.show(image_of_now(client, 1))
        assert client.init(target_id="cup").success
        told.wait("input", DiagnosticStatus.ERROR, "no image for")
        said = len(client.states)
        client.node.destroy_publisher(client.images)
        told.wait("input", DiagnosticStatus.ERROR, "nobody publishes on /image")
        assert len(client.states) == said, "without images nothing is published: consumers need a timeout"
        begin = time.monotonic()
        client.images = client.node.create_publisher(Image, "image", RELIABLE)
        wait_until(lambda: client.images.get_subscription_count() > 0, "discovery")
        assert client.show(image_of_now(client, 2)).state == State.TRACKING
        assert time.monotonic() - begin < RECOVERY_SECONDS
        told.wait("input", DiagnosticStatus.OK)


def test_resolution_or_encoding_may_change_while_tracking():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client, target_id="cup")
        for number, shape in enumerate(
            ({"width": 320, "height": 200}, {"encoding": "mono8"}, {"width": 16, "height": 12}, {}), 2
        ):
            image = numbered_image(number, **shape)
            assert client.show(image).state == State.TRACKING
            assert client.detections_of(image).detections[0].bbox.size_x == BOX[2]
        client.show(numbered_image(6, width=320, height=200))
        assert client.init((250.0, 150.0, 30.0, 20.0)).success, "a box that only the new size has room for"
        assert tracker.updates == [2, 3, 4, 5, 6]


# Stamps


def test_images_with_one_and_the_same_stamp_are_each_worked_on():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client, target_id="cup")
        for pixel in (2, 3, 4):
            image = numbered_image(pixel)
            image.header = numbered_image(1).header
            client.images.publish(image)
            wait_until(lambda pixel=pixel: tracker.updates[-1:] == [pixel], "update")
        assert client.show(numbered_image(5)).seconds_since_seen == 0.0


def test_clock_set_forward_and_back_drops_no_target():
    tracker = ScriptedTracker()
    with running(tracker, give_up_after=1.0) as client:
        start_target(client, target_id="cup")
        tracker.state = State.LOST
        client.show(numbered_image(2))
        future = numbered_image(3)
        future.header.stamp.sec += (
            50 * 365 * 86400
        )  # a computer without a battery for its clock, when the network is up
        assert client.show(future).state == State.LOST
        assert client.show(numbered_image(4)).state == State.LOST and tracker.dropped == []
        tracker.state = State.TRACKING
        state = client.show(numbered_image(5))
        assert state.state == State.TRACKING and state.id == "cup" and state.seconds_since_seen == 0.0
        assert client.init(stamp=numbered_image(5).header.stamp).success


def test_simulated_time_that_stands_or_jumps_stops_nothing():
    tracker = ScriptedTracker()
    with running(tracker, use_sim_time=True, diagnostics_period=0.1) as client:
        told = Diagnostics(client)
        start_target(client, target_id="cup")
        clock = client.node.create_publisher(Clock, "/clock", RELIABLE)
        wait_until(lambda: clock.get_subscription_count() > 0, "subscription of /clock")
        for number, now in ((2, 1001), (3, 1002), (4, 900), (5, 900)):
            message = Clock()
            message.clock.sec = now

            def aged(number: int = number, message: Clock = message) -> bool:
                clock.publish(message)
                image = numbered_image(number)
                stamp = image.header.stamp.sec + image.header.stamp.nanosec / 1e9
                return client.show(image).age == pytest.approx(message.clock.sec - stamp, abs=1e-3)

            wait_until(aged, "an age by the simulated clock")
            assert client.init(target_id="cup").success
        told.wait("tracking", DiagnosticStatus.OK)


# The tracker


def test_failing_tracker_is_lost_until_it_works_again():
    tracker = ScriptedTracker()
    with running(tracker, diagnostics_period=0.1) as client:
        told = Diagnostics(client)
        start_target(client, target_id="cup")
        tracker.failure = RuntimeError("the matrix is singular")
        for number in range(2, 8):
            state = client.show(numbered_image(number))
            assert state.state == State.LOST and is_zero(state.bbox) and state.frames_since_seen == number - 1
            assert client.detections_of(numbered_image(number)).detections == []
        told.wait("tracking", DiagnosticStatus.ERROR, "the matrix is singular")
        refused = client.init(target_id="ball")
        assert not refused.success and "the matrix is singular" in refused.message
        tracker.failure = None
        assert client.show(numbered_image(8)).state == State.TRACKING
        assert list(client.targets_of(numbered_image(8))) == ["cup"]


class OnGpu(ScriptedTracker):
    """A tracker that has run out of memory on its GPU, for good."""

    def __init__(self, recovers: bool) -> None:
        super().__init__()
        self.device = "cuda:0"
        self._recovers = recovers

    def to(self, device: str) -> None:
        """Move, or have no memory for that either."""
        if not self._recovers:
            raise RuntimeError("out of memory, even for moving")
        self.device, self.failure = device, None


@pytest.mark.parametrize("recovers", [True, False], ids=["moves", "cannot move"])
def test_gpu_out_of_memory_costs_one_image_then_the_cpu_runs(recovers, capfd):
    tracker = OnGpu(recovers)
    with running(tracker, diagnostics_period=0.1) as client:
        told = Diagnostics(client)
        start_target(client, target_id="cup")
        tracker.failure = RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        assert client.show(numbered_image(2)).state == State.LOST
        if recovers:
            assert client.show(numbered_image(3)).state == State.TRACKING and tracker.device == "cpu"
            told.wait("node", DiagnosticStatus.WARN, "the CPU is used since the GPU has failed")
        else:
            assert client.show(numbered_image(3)).state == State.LOST
            tracker.failure = None
            assert client.show(numbered_image(4)).state == State.TRACKING
            assert client.init(target_id="ball").success
    assert recovers or "even for moving" in capfd.readouterr().err


class Dying(ScriptedTracker):
    """A tracker that ends its thread, once."""

    dies_in = ""

    def _die(self, moment: str) -> None:
        if self.dies_in == moment:
            self.dies_in = ""
            raise SystemExit(1)

    def init(self, *arguments: Any, **more: Any) -> Any:
        """Take the target, or die."""
        self._die("init")
        return super().init(*arguments, **more)

    def update_all(self, *arguments: Any) -> Any:
        """Follow, or die."""
        self._die("update")
        return super().update_all(*arguments)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("moment", ["update", "init"])
def test_worker_thread_that_dies_is_replaced(moment, capfd):
    tracker = Dying()
    with running(tracker, diagnostics_period=0.2) as client:
        start_target(client, target_id="cup")
        tracker.dies_in = moment
        begin = time.monotonic()
        if moment == "update":
            client.images.publish(numbered_image(2))
        else:
            answer = client.init(target_id="ball")
            assert not answer.success and "stopped" in answer.message
        wait_until(lambda: [s for s in list(client.states) if s.id == "cup" and s.state == State.UNINITIALIZED], "word")
        wait_until(lambda: client.images.get_subscription_count() > 0, "the new subscription")
        assert client.show(numbered_image(3)).state == State.UNINITIALIZED
        assert client.init(target_id="cup").success
        assert time.monotonic() - begin < 0.2 + RECOVERY_SECONDS
        assert client.show(numbered_image(4)).state == State.TRACKING
    assert "thread has ended by itself (SystemExit(1))" in capfd.readouterr().err


@pytest.mark.parametrize("box", [(math.nan, 1.0, 5.0, 5.0), (1.0, 1.0, math.inf, 5.0), (1.0, 1.0, 0.0, 5.0)], ids=str)
def test_nan_result_is_published_as_lost(box, capfd):
    tracker = ScriptedTracker()
    with running(tracker, diagnostics_period=0.1) as client:
        told = Diagnostics(client)
        start_target(client, target_id="cup")
        assert client.init(target_id="ball").success
        tracker.boxes["cup"] = box
        client.show(numbered_image(2))
        states = client.targets_of(numbered_image(2))
        assert states["cup"].state == State.LOST and is_zero(states["cup"].bbox)
        assert states["ball"].state == State.TRACKING
        told.wait("tracking", DiagnosticStatus.ERROR, "'cup' is invalid")
        tracker.boxes["cup"] = BOX
        client.show(numbered_image(3))
        assert client.targets_of(numbered_image(3))["cup"].state == State.TRACKING


def test_hanging_tracker_is_reported_and_requests_answered(monkeypatch):
    monkeypatch.setattr("dimp_ros.node.diagnostics.stream_checks.WINDOW_SECONDS", 0.6)  # 5 s
    tracker = ScriptedTracker()
    with running(tracker, diagnostics_period=0.1, request_timeout=0.3) as client:
        told = Diagnostics(client)
        start_target(client, target_id="cup")
        tracker.seconds = 3.2
        client.images.publish(image_of_now(client, 2))
        assert tracker.busy.wait(10)
        heard, begin = len(client.states), time.monotonic()
        while tracker.busy.is_set():
            client.images.publish(image_of_now(client, 3))
            refused = client.init(target_id="ball")
            assert not refused.success and "has not answered for 0.3 s" in refused.message
            if told.said("tracking", DiagnosticStatus.ERROR, "the tracker hangs"):
                break
        assert tracker.busy.is_set() and time.monotonic() - begin < 0.6 + 2.0
        assert len(client.states) == heard, "nothing is published: consumers need a timeout"
        tracker.seconds = 0.0
        assert client.show(image_of_now(client, 4)).state == State.TRACKING


def test_deactivation_answers_a_waiting_request():
    tracker = ScriptedTracker()
    with context():
        node = tracker_node(tracker)
        client = Client()
        with spinning(node, client.node):
            client.wait_for(node)
            client.show(numbered_image(1))
            tracker.init_seconds = 1.0
            future = client._init.call_async(_request())
            time.sleep(0.3)
            begin = time.monotonic()
            assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
            wait_until(future.done, "answer")
            assert time.monotonic() - begin < 1.0 + RECOVERY_SECONDS
            assert not future.result().success and "stopped" in future.result().message


def _request() -> InitTarget.Request:
    """Return a request that is fine."""
    request = InitTarget.Request()
    request.bbox.center.position.x, request.bbox.center.position.y = 28.0, 16.0
    request.bbox.size_x, request.bbox.size_y = 16.0, 12.0
    return request


# The node itself


def test_unexpected_error_in_a_callback_is_logged(monkeypatch, capfd):
    from dimp_ros.node.image_buffer import ImageBuffer

    with running(ScriptedTracker(), diagnostics_period=0.1) as client:
        told = Diagnostics(client)
        start_target(client)

        def fail(*_: Any) -> None:
            raise RuntimeError("nobody has foreseen this")

        with monkeypatch.context() as patch:
            patch.setattr(ImageBuffer, "add", fail)
            patch.setattr("dimp_ros.node.diagnostics.publisher.diagnostics", fail)
            log = ""

            def both_logged() -> bool:
                nonlocal log
                client.images.publish(numbered_image(2))  # again: a subscription may have been made anew meanwhile
                log += capfd.readouterr().err
                return "Pipeline.receive failed" in log and "_on_watch failed" in log

            wait_until(both_logged, "both errors in the log")
        assert client.show(numbered_image(3)).state == State.TRACKING
        told._last.clear()
        told.wait("tracking", DiagnosticStatus.OK)


@pytest.mark.parametrize("topic", ["camera_info.subscription", "target.publisher"])
def test_invalid_qos_override_fails_the_transition(topic):
    overrides = {f"qos_overrides./{topic}.reliability": "perhaps"}
    with context():
        node = tracker_node(ScriptedTracker(), autostart=False, **overrides)
        before = len(list(node.publishers))
        with spinning(node):
            results = [node.trigger_configure()]
            if results[-1] == TransitionCallbackReturn.SUCCESS:
                results.append(node.trigger_activate())
            assert results[-1] == TransitionCallbackReturn.FAILURE and "perhaps" in node.status_error
            assert not [one for one in node.subscriptions if one.topic_name == "/image"]
            if topic.startswith("target"):
                assert len(list(node.publishers)) == before


def test_a_flood_of_requests_is_answered_and_the_images_go_on():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client, target_id="cup")
        begin = time.monotonic()
        futures = [client._drop.call_async(DropTarget.Request(id="nobody")) for _ in range(300)]
        assert client.show(numbered_image(2)).state == State.TRACKING
        assert time.monotonic() - begin < RECOVERY_SECONDS
        wait_until(lambda: all(future.done() for future in futures[-5:]), "the last answers")
        assert all(not future.result().success for future in futures if future.done())
        assert client.show(numbered_image(3)).state == State.TRACKING


def test_parameter_of_unknown_type_is_refused(capfd):
    """The services are rclpy's, which raise for it: that would end the executor."""
    good = Parameter(name="give_up_after", value=ParameterValue(type=3, double_value=5.0))
    strange = Parameter(name="give_up_after", value=ParameterValue(type=255))
    with running(ScriptedTracker()) as client:
        setter = client.node.create_client(SetParameters, "tracker_node/set_parameters")
        atomic = client.node.create_client(SetParametersAtomically, "tracker_node/set_parameters_atomically")
        result = client._call(atomic, SetParametersAtomically.Request(parameters=[strange, good])).result
        assert not result.successful and "255" in result.reason
        results = client._call(setter, SetParameters.Request(parameters=[good, strange, good])).results
        assert [one.successful for one in results] == [True, False, False] and "255" in results[1].reason
        start_target(client)
        assert client.show(numbered_image(2)).state == State.TRACKING
    assert "a request failed" in capfd.readouterr().err
