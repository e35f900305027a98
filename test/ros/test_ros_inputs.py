# SPDX-License-Identifier: Apache-2.0
"""The node's subscriptions match the QoS of publishers, and missing messages are explained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from harness.ros_harness import (
    BEST_EFFORT,
    HEIGHT,
    LATCHED,
    RELIABLE,
    WIDTH,
    Client,
    Image,
    ScriptedTracker,
    State,
    numbered_image,
    running,
    spinning,
    start_target,
    tracker_node,
    wait_until,
)
from harness.ros_harness import context as ros_context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from dimp_ros.node.tracker_node import TrackerNode
from dimp_ros.ros_utils import namesakes

INFO = CameraInfo(width=WIDTH, height=HEIGHT, k=[60.0, 0.0, 32.0, 0.0, 60.0, 24.0, 0.0, 0.0, 1.0])
QUICK = {"diagnostics_period": 0.1, "no_image_warning": 0.3}


def asked_for(client: Client, topic: str = "/image") -> QoSProfile | None:
    """Return the quality of service with which the node subscribes a topic."""
    found = client.node.get_subscriptions_info_by_topic(topic)
    return found[0].qos_profile if len(found) == 1 else None


def asks_for(client: Client, reliability: ReliabilityPolicy, topic: str = "/image") -> bool:
    qos = asked_for(client, topic)
    return qos is not None and qos.reliability == reliability


@contextmanager
def messages(client: Client) -> Iterator[dict[str, str]]:
    """Collect the newest message of each diagnostic status, by kind."""
    found: dict[str, str] = {}

    def take(array: DiagnosticArray) -> None:
        found.update({status.name.rpartition(": ")[2]: status.message for status in array.status})

    subscription = client.node.create_subscription(DiagnosticArray, "/diagnostics", take, 10)
    yield found
    client.node.destroy_subscription(subscription)


def test_images_are_reliable_where_every_publisher_offers_it():
    with running(ScriptedTracker(), RELIABLE, **QUICK) as client:
        wait_until(lambda: asks_for(client, ReliabilityPolicy.RELIABLE), "the reliable subscription")
        assert asked_for(client).durability == DurabilityPolicy.VOLATILE
        second = client.node.create_publisher(Image, "image", BEST_EFFORT)
        wait_until(lambda: asks_for(client, ReliabilityPolicy.BEST_EFFORT), "the best-effort subscription")
        client.node.destroy_publisher(second)
        wait_until(lambda: asks_for(client, ReliabilityPolicy.RELIABLE), "the reliable subscription again")
        assert start_target(client).state == State.TRACKING


def test_a_best_effort_camera_is_subscribed_best_effort():
    with running(ScriptedTracker(), BEST_EFFORT, **QUICK) as client:
        assert start_target(client).state == State.TRACKING
        assert asks_for(client, ReliabilityPolicy.BEST_EFFORT)


@pytest.mark.parametrize("wanted", ["best_effort", "reliable"])
def test_reliability_override_stays_whatever_is_offered(wanted):
    override = {"qos_overrides./image.subscription.reliability": wanted}
    with running(ScriptedTracker(), RELIABLE, **QUICK, **override) as client, messages(client) as said:
        wait_until(lambda: len(said) == 3, "diagnostics")
        assert start_target(client).state == State.TRACKING
        assert asks_for(client, ReliabilityPolicy[wanted.upper()])


@pytest.mark.parametrize("policy", ["reliability", "durability"])
def test_unknown_override_is_refused_with_the_choices(policy, capfd):
    name = f"qos_overrides./camera_info.subscription.{policy}"
    with ros_context():
        node = tracker_node(ScriptedTracker(), autostart=False, **{name: "sometimes"})
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() != TransitionCallbackReturn.SUCCESS
        assert not list(node.subscriptions), "nothing stays open"
        node.destroy_node()
    assert "'sometimes', but must be one of automatic, " in capfd.readouterr().err


def test_override_without_effect_is_reported_with_the_nearest(capfd):
    overrides = {"qos_overrides./camera_inf.subscription.depth": 2, "qos_overrides./image.subscription.depth": 2}
    with running(ScriptedTracker(), **overrides):
        pass
    lines = [line for line in capfd.readouterr().err.splitlines() if "has no effect" in line]
    assert len(lines) == 1 and "did you mean qos_overrides./camera_info.subscription.depth?" in lines[0]


def test_latched_camera_info_is_received():
    with ros_context():
        client = Client()
        latched = client.node.create_publisher(CameraInfo, "camera_info", LATCHED)
        latched.publish(INFO)
        node = tracker_node(ScriptedTracker(), **QUICK)
        with spinning(node, client.node):
            client.wait_for(node)
            start_target(client)
            number = iter(range(2, 100))
            wait_until(lambda: client.show(numbered_image(next(number))).bearing.z > 0, "a bearing")


def test_camera_info_sent_once_before_the_start_is_explained():
    with ros_context():
        client = Client()
        volatile = client.node.create_publisher(CameraInfo, "camera_info", RELIABLE)
        volatile.publish(INFO)
        node = tracker_node(ScriptedTracker(), **QUICK)
        with spinning(node, client.node), messages(client) as said:
            wait_until(lambda: "camera_info: nothing has come" in said.get("node", ""), "the explanation")
            assert "TRANSIENT_LOCAL" in said["node"]
            volatile.publish(INFO)
            wait_until(lambda: said["node"] == "active", "the end of it")


@pytest.mark.parametrize(
    ("topic", "kind", "qos", "words"),
    [
        ("camera_info", CameraInfo, BEST_EFFORT, "camera_info: a publisher on /camera_info"),
        ("depth", Image, BEST_EFFORT, "depth: a publisher on /depth"),
        ("init_detections", Detection2DArray, BEST_EFFORT, "init_detections: a publisher on /init_detections"),
        ("depth", Image, RELIABLE, "depth: nothing has come"),
    ],
)
def test_an_input_that_does_not_come_is_explained(topic, kind, qos, words):
    override = {f"qos_overrides./{topic}.subscription.reliability": "reliable"}
    with running(ScriptedTracker(), **QUICK, use_depth=True, **override) as client, messages(client) as said:
        wait_until(lambda: "depth: nobody publishes on /depth" in said.get("node", ""), "word of the depth")
        client.node.create_publisher(kind, topic, qos)
        wait_until(lambda: words in said.get("node", ""), "the explanation")


def test_unused_inputs_are_not_reported_as_missing():
    with running(ScriptedTracker(), **QUICK) as client, messages(client) as said:
        client.node.create_publisher(Detection2DArray, "init_detections", RELIABLE)
        client.show(numbered_image(1))
        wait_until(lambda: said.get("node") == "active", "a node that is well")


def test_a_second_tracker_of_the_same_name_is_reported(monkeypatch):
    monkeypatch.setattr(namesakes, "GHOST_SECONDS", 0.0)
    with running(ScriptedTracker(), **QUICK) as client, messages(client) as said:
        other = rclpy.Context()
        rclpy.init(context=other)  # as in another process
        second = TrackerNode(tracker_factory=lambda _parameters: ScriptedTracker(), context=other)
        wait_until(lambda: "nodes are called /tracker_node" in said.get("node", ""), "word of the second")
        second.destroy_node()
        rclpy.shutdown(context=other)


def detection(
    score: float | None = 0.9, *, theta: float = 0.0, box: tuple[float, ...] = (20.0, 10.0, 16.0, 12.0)
) -> Any:
    """Return a detection; without a hypothesis where ``score`` is None."""
    found = Detection2D()
    found.bbox.center.position.x, found.bbox.center.position.y = box[0] + box[2] / 2, box[1] + box[3] / 2
    found.bbox.size_x, found.bbox.size_y, found.bbox.center.theta = box[2], box[3], theta
    if score is not None:
        found.results = [ObjectHypothesisWithPose()]
        found.results[0].hypothesis.class_id, found.results[0].hypothesis.score = "person", score
    return found


def detector(client: Client, found: list[Any]) -> Callable[[], None]:
    """Show an image; return what publishes the detections in it."""
    detections = client.node.create_publisher(Detection2DArray, "init_detections", RELIABLE)
    wait_until(detections.get_subscription_count, "the subscription")
    image = numbered_image(1)
    client.show(image)
    return lambda: detections.publish(Detection2DArray(header=image.header, detections=found))


USABLE = detection(0.6, box=(8.0, 8.0, 12.0, 12.0))


@pytest.mark.parametrize("name", ["detection", ""])
def test_a_target_of_detections_that_was_dropped_does_not_come_back_by_itself(name):
    tracker = ScriptedTracker()
    with running(tracker) as client:
        detect = detector(client, [USABLE])
        wait_until(lambda: detect() or tracker.inits, "the target", 5.0)
        wait_until(lambda: client.drop(name).success, "the drop")
        for _ in range(10):
            detect()
            time.sleep(0.02)
        assert len(tracker.inits) == 1
        assert client.set_enabled(True).success
        wait_until(lambda: detect() or tracker.inits[1:], "the target", 5.0)


@pytest.mark.parametrize(
    "best",
    [
        detection(box=(900.0, 900.0, 50.0, 50.0)),
        detection(theta=0.4),
        detection(box=(20.0, 10.0, 1.0, 1.0)),
        detection(box=(20.0, 10.0, -16.0, 12.0)),
        detection(box=(float("nan"), 10.0, 16.0, 12.0)),
        detection(float("nan")),
        detection(None),
    ],
    ids=["outside", "turned", "tiny", "negative", "nan box", "nan score", "no hypothesis"],
)
def test_a_detection_that_cannot_be_used_does_not_block_the_next(best):
    tracker = ScriptedTracker()
    with running(tracker) as client:
        detect = detector(client, [best, USABLE])
        wait_until(lambda: detect() or tracker.inits, "the target", 5.0)
        assert tracker.inits[0][1] == pytest.approx((8.0, 8.0, 12.0, 12.0))


@pytest.mark.parametrize(
    ("unusable", "words"),
    [
        (detection(None), "no hypothesis"),
        (detection(float("nan")), "score is not finite"),
        (detection(theta=0.4), "theta"),
    ],
)
def test_detections_of_which_none_can_be_used_are_explained(unusable, words, capfd):
    tracker = ScriptedTracker()
    with running(tracker) as client:
        detections = client.node.create_publisher(Detection2DArray, "init_detections", RELIABLE)
        wait_until(detections.get_subscription_count, "the subscription")
        image = numbered_image(1)
        client.show(image)
        log = ""

        def told() -> bool:
            nonlocal log
            detections.publish(Detection2DArray(header=image.header, detections=[unusable]))
            log += capfd.readouterr().err
            return words in log

        wait_until(told, "the explanation")
        assert tracker.inits == []


@pytest.mark.parametrize("theta", [1e-9, 3.1415927, -3.1415927])
def test_a_detection_turned_by_nothing_or_half_a_turn_is_taken(theta):
    tracker = ScriptedTracker()
    with running(tracker) as client:
        detections = client.node.create_publisher(Detection2DArray, "init_detections", RELIABLE)
        wait_until(detections.get_subscription_count, "the subscription")
        image = numbered_image(1)
        client.show(image)
        message = Detection2DArray(header=image.header, detections=[detection(theta=theta)])
        wait_until(lambda: detections.publish(message) or tracker.inits, "the target", 5.0)


def test_stamp_of_a_detection_selects_the_image():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        detections = client.node.create_publisher(Detection2DArray, "init_detections", RELIABLE)
        wait_until(detections.get_subscription_count, "the subscription")
        first = numbered_image(1)
        for image in (first, numbered_image(2), numbered_image(3)):
            client.show(image)
        one = detection()
        one.header.stamp = first.header.stamp
        message = Detection2DArray(detections=[one])
        assert message.header.stamp == Time()
        wait_until(lambda: detections.publish(message) or tracker.inits, "the target", 5.0)
        assert tracker.inits[0][0] == 1
