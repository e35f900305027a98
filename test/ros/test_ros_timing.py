# SPDX-License-Identifier: Apache-2.0
"""The tracker node under load: it takes the newest image, answers requests, ends on signals, explains silence."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from harness.ros_harness import (
    BEST_EFFORT,
    BOX,
    Client,
    Node,
    ScriptedTracker,
    State,
    context,
    numbered_image,
    rclpy,
    running,
    spinning,
    tracker_node,
    wait_until,
)

from dimp_ros.node.tracker_loader import load_tracker


def stream(client: Client, seconds: float, rate: float, **shape: int) -> int:
    """Publish images with the time as their stamp; return how many."""
    begin = time.monotonic()
    number = 0
    while time.monotonic() - begin < seconds:
        image = numbered_image(number, **shape)
        image.header.stamp = client.node.get_clock().now().to_msg()
        client.images.publish(image)
        number += 1
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
    return number


def followed(client: Client) -> list:
    return [state for state in list(client.states) if state.state != State.UNINITIALIZED]


def test_slow_model_takes_the_newest_image_and_ages_stay():
    tracker = ScriptedTracker(seconds=0.1)
    with running(tracker) as client:
        client.show(numbered_image(0))
        assert client.init().success
        published = stream(client, seconds=2.0, rate=50.0)
        wait_until(lambda: published - 1 in tracker.updates, "the very last image")
        ages = [state.age for state in followed(client)[1:]]
        assert 5 <= len(tracker.updates) <= published / 2, "a model that takes 0.1 s does at most 10 of 50 in a second"
        assert tracker.updates == sorted(set(tracker.updates)), (
            "an image was taken twice, or an older one after a newer"
        )
        # An image waits for at most one inference and takes another: a queue of ten would take ten times that.
        assert statistics.median(ages) < 0.3 and max(ages[-5:]) < 0.6, ages


@pytest.mark.slow
def test_real_network_at_triple_rate_keeps_ages_bounded():
    pytest.importorskip("torch", reason="torch is not installed: the real network cannot be tried")
    with running(load_tracker, BEST_EFFORT, weights="random", **{"tracker.not_found_threshold": -1.0}) as client:
        client.show(numbered_image(0, width=320, height=240))
        answer = client.init((100.0, 80.0, 60.0, 50.0))
        assert answer.success, answer.message
        stream(client, seconds=1.0, rate=30.0, width=320, height=240)
        begin, before = time.monotonic(), len(followed(client))
        stream(client, seconds=2.0, rate=60.0, width=320, height=240)
        states = followed(client)[before:]
        each = (time.monotonic() - begin) / max(len(states), 1)
        assert len(states) >= 3
        assert statistics.median(state.age for state in states) < 2.5 * each + 0.05
        assert all(state.bbox.size_x > 0 for state in states if state.state != State.LOST)


def test_requests_during_inference_discard_its_result():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        client.show(numbered_image(1))
        assert client.init(target_id="ball").success
        tracker.seconds = 2.5
        client.images.publish(numbered_image(2))
        assert tracker.busy.wait(10)
        begin = time.monotonic()
        refused = client.init((500.0, 500.0, 10.0, 10.0))
        assert not refused.success and "inside" in refused.message
        assert client.set_enabled(False).success
        assert client.drop("ball").success
        assert time.monotonic() - begin < 2.4 and tracker.busy.is_set(), "the answers waited for the inference"
        wait_until(lambda: client.states[-1].state == State.UNINITIALIZED, "the drop")
        assert tracker.updates == [2]
        about = [state for state in client.states if state.header == numbered_image(2).header]
        assert about and all(state.state in (State.LOST, State.UNINITIALIZED) for state in about)
        client.show(numbered_image(3))
        assert not any(array.detections for array in client.detections if array.header == numbered_image(2).header)


def test_request_that_waits_too_long_is_refused():
    tracker = ScriptedTracker()
    with running(tracker, request_timeout=0.3) as client:
        client.show(numbered_image(1))
        assert client.init(target_id="old").success
        tracker.seconds = 1.0
        client.images.publish(numbered_image(2))
        assert tracker.busy.wait(10)
        answer = client.init(target_id="new")
        assert not answer.success and "0.3 s" in answer.message
        assert client.state_of(numbered_image(2)).id == "old"
        tracker.seconds = 0.0
        assert client.show(numbered_image(3)).id == "old" and len(tracker.inits) == 1


@pytest.mark.parametrize("dropped", ["", "new", None], ids=["all", "by name", "refused only"])
@pytest.mark.parametrize("followed", [False, True], ids=["new", "started over"])
def test_drop_and_timeout_reach_a_target_that_is_being_started(dropped, followed):
    tracker = ScriptedTracker()
    started = threading.Event()
    release = threading.Event()
    init = tracker.init

    def slow_init(*args, **named):
        started.set()
        release.wait(10)
        return init(*args, **named)

    with running(tracker, request_timeout=0.3) as client:
        client.show(numbered_image(1))
        if followed:
            assert client.init(target_id="new").success
        tracker.init = slow_init
        answer = client.init(target_id="new")
        assert started.is_set() and not answer.success and "is not started; ask again" in answer.message
        assert client.drop("other").message.startswith("target 'other' is unknown")
        if dropped is not None:
            assert client.drop(dropped).success
        release.set()
        wait_until(lambda: len(tracker.inits) == 1 + followed, "the target is started after all")
        client.show(numbered_image(2))
        assert client.drop("new").message.endswith("no target is followed")
        tracker.init = init
        assert client.init(target_id="new").success and client.show(numbered_image(3)).id == "new"


SLOW_NODE = """
import sys, time
from harness.ros_harness import ScriptedTracker
from dimp_ros.node.tracker_node import main

class Slow(ScriptedTracker):
    def update_all(self, image, only=None):
        print("inference begins", flush=True)
        time.sleep(60)

def factory(parameters):
    if sys.argv[1] == "loading":
        print("loading begins", flush=True)
        time.sleep(60)
    return Slow()

raise SystemExit(main([], tracker_factory=factory))
"""


@pytest.mark.parametrize(
    ("moment", "number"), [("idle", signal.SIGINT), ("inference", signal.SIGTERM), ("loading", signal.SIGINT)]
)
def test_a_signal_ends_the_node_within_two_seconds(number, moment):
    command = [sys.executable, "-c", textwrap.dedent(SLOW_NODE), moment]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        if moment == "loading":
            assert "loading begins" in process.stdout.readline()
        else:
            with context():
                client = Client()
                with spinning(client.node):
                    wait_until(lambda: client.states, "state of the node", 30.0)
                    wait_until(lambda: client.images.get_subscription_count(), "its subscription", 30.0)
                    if moment == "inference":
                        client.show(numbered_image(1))
                        assert client.init(BOX).success
                        client.images.publish(numbered_image(2))
                        assert "inference begins" in process.stdout.readline()
        begin = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert time.monotonic() - begin < 2.0
        assert process.returncode == 0, errors
        assert "Traceback" not in errors, errors
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_end_of_the_node_is_published():
    tracker = ScriptedTracker()
    with context():
        node = tracker_node(tracker)
        client = Client()
        with spinning(node, client.node):
            client.wait_for(node)
            client.show(numbered_image(1))
            assert client.init().success
            assert node.close()
            wait_until(lambda: client.states[-1].state == State.UNINITIALIZED, "good-bye")
            assert client.states[-1].header == numbered_image(1).header


def test_silence_is_explained_when_nobody_publishes(capfd):
    with context():
        node = tracker_node(ScriptedTracker(), no_image_warning=0.2)
        with spinning(node):
            wait_until(lambda: "nobody publishes on /image" in capfd.readouterr().err, "the warning")


def test_silence_is_explained_when_the_qos_does_not_fit(capfd):
    overrides = {"qos_overrides./image.subscription.reliability": "reliable", "no_image_warning": 0.2}
    with context():
        node = tracker_node(ScriptedTracker(), **overrides)
        camera = Client(BEST_EFFORT)
        with spinning(node, camera.node):

            def warned() -> bool:
                text = capfd.readouterr().err
                return "/client" in text and "offers BEST_EFFORT" in text and "remove that QoS override" in text

            wait_until(warned, "the warning")


def test_silence_is_explained_when_the_topic_has_another_type(capfd):
    from sensor_msgs.msg import CompressedImage

    with context():
        # in a context of its own: DDS refuses a second type for a topic within one participant
        elsewhere = rclpy.Context()
        rclpy.init(context=elsewhere)
        camera = Node("camera", context=elsewhere)
        camera.create_publisher(CompressedImage, "image", 1)
        node = tracker_node(ScriptedTracker(), no_image_warning=0.2)
        with spinning(node):
            wait_until(lambda: "not sensor_msgs/msg/Image" in capfd.readouterr().err, "the warning")
        camera.destroy_node()
        rclpy.shutdown(context=elsewhere)


def test_full_hd_images_at_camera_rate_reach_the_tracker():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        image = numbered_image(1, width=1920, height=1080)
        client.show(image)
        assert client.init((900.0, 500.0, 100.0, 100.0)).success
        for number in range(2, 8):
            assert client.show(numbered_image(number, width=1920, height=1080)).state == State.TRACKING
        assert tracker.updates == list(range(2, 8))
