# SPDX-License-Identifier: Apache-2.0
"""Processes that stop: a stalled subscriber, a killed node, signals in every phase of a node's life."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from harness.ros_harness import (
    Client,
    InitTarget,
    ScriptedTracker,
    State,
    context,
    numbered_image,
    running,
    spinning,
    start_target,
    wait_until,
)
from helpers.consumer_rule import rule
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters


@contextmanager
def program(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``code`` in an interpreter of its own; it is killed in the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.communicate()


SUBSCRIBER = """
import sys
from harness.ros_harness import *
rclpy.init()
node = Node("reader")
for kind, topic, qos in ((TargetState, "target", MANY), (TargetStateArray, "targets", LATCHED),
                         (Detection2DArray, "detections", RELIABLE), (Image, "debug_image", RELIABLE)):
    node.create_subscription(kind, topic, lambda message, topic=topic: print(topic), qos)
rclpy.spin(node)
"""


def test_stalled_reliable_subscriber_does_not_block_others():
    with running(ScriptedTracker()) as client, program(SUBSCRIBER) as reader:
        start_target(client, target_id="cup")
        number = iter(range(2, 10**6))
        wait_until(lambda: client.node.count_subscribers("debug_image") > 0, "the reader")
        seen: set[str] = set()
        while len(seen) < 4:
            client.show(numbered_image(next(number), width=320, height=240))
            seen.add(reader.stdout.readline().strip())
        reader.send_signal(signal.SIGSTOP)
        times = []
        for _ in range(150):  # 45 MB of debug images, more than any buffer between the two holds
            image = numbered_image(next(number), width=320, height=240)
            begin = time.monotonic()
            assert client.show(image).state == State.TRACKING
            times.append(time.monotonic() - begin)
        assert sorted(times)[len(times) // 2] < 0.1 and max(times) < 2.0, times


NODE = """
import sys, threading, time
from harness.ros_harness import ScriptedTracker
from dimp_ros.node.tracker_node import main

class Slow(ScriptedTracker):
    def init(self, *arguments, **more):
        if sys.argv[1] == "request":
            print("init begins", flush=True)
            time.sleep(60)
        return super().init(*arguments, **more)

arguments = ["--ros-args", "-p", f"autostart:={str(sys.argv[1] != 'unconfigured').lower()}"]
raise SystemExit(main(arguments, tracker_factory=lambda parameters: Slow()))
"""


def test_killed_node_is_silent_and_its_successor_has_no_target():
    with context():
        client = Client()
        with spinning(client.node):
            example = rule()
            guard = example.Guard("cup")
            with program(NODE, "idle") as node:
                wait_until(lambda: client.states, "the node", 30.0)
                wait_until(client.images.get_subscription_count, "its subscription", 30.0)
                start_target(client, target_id="cup")
                image = numbered_image(2)
                image.header.stamp = client.node.get_clock().now().to_msg()
                guard.hear(client.show(image))
                assert guard.may_follow(), "so far all is well"
                node.kill()
                node.wait(10)
                heard = len(client.states)
                client.images.publish(numbered_image(3))
                time.sleep(example.MAX_DELAY + 0.1)
                assert len(client.states) == heard and client.states[-1].state == State.TRACKING
                assert not guard.may_follow(), "the last message still says TRACKING: only the silence tells"
            with program(NODE, "idle"):
                wait_until(lambda: len(client.states) > heard, "the successor", 30.0)
                assert client.states[-1].state == State.UNINITIALIZED
                guard.hear(client.states[-1])
                assert not guard.may_follow()


def test_targets_are_reported_gone_when_a_signal_ends_the_node():
    with context():
        client = Client()
        with spinning(client.node), program(NODE, "idle") as node:
            wait_until(lambda: client.states, "the node", 30.0)
            wait_until(client.images.get_subscription_count, "its subscription", 30.0)
            start_target(client, target_id="cup")
            client.show(numbered_image(2))
            node.send_signal(signal.SIGTERM)
            wait_until(lambda: client.states[-1].state == State.UNINITIALIZED, "the last message", 10.0)
            assert client.states[-1].id == "cup" and node.wait(10) == 0


@pytest.mark.parametrize("phase", ["unconfigured", "request", "twice"])
def test_signal_in_any_phase_ends_the_node_in_two_seconds(phase):
    with program(NODE, phase) as process, context():
        client = Client()
        with spinning(client.node):
            assert client._init.wait_for_service(30.0)
            if phase == "request":
                wait_until(client.images.get_subscription_count, "its subscription", 30.0)
                client.show(numbered_image(1))
                request = InitTarget.Request()
                request.bbox.center.position.x = request.bbox.center.position.y = 20.0
                request.bbox.size_x = request.bbox.size_y = 10.0
                client._init.call_async(request)
                assert "init begins" in process.stdout.readline()
            begin = time.monotonic()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT)[: 3 if phase == "twice" else 1]:
                process.send_signal(number)
            _, errors = process.communicate(timeout=20)
            assert time.monotonic() - begin < 2.0
            assert process.returncode == 0 and "Traceback" not in errors, errors


FAILING = """
import sys
from rclpy.node import Node
from dimp_ros.ros_utils.spin import run

class Failing(Node):
    def __init__(self):
        super().__init__("failing")
        self.create_timer(0.0, self.fail)
    def fail(self):
        raise RuntimeError("nobody has foreseen this")
    def close(self):
        return True

raise SystemExit(run(lambda finish: Failing(), []))
"""


def test_error_in_the_executor_ends_the_program_with_traceback():
    with program(FAILING) as process:
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 1 and "nobody has foreseen this" in errors


PLAIN = """
from rclpy.node import Node
from dimp_ros.ros_utils.spin import run

class Plain(Node):
    def __init__(self):
        super().__init__("plain")
        self.declare_parameter("speed", 1.0)
    def close(self):
        return True

raise SystemExit(run(lambda finish: Plain(), []))
"""


def test_program_survives_parameter_of_unknown_type():
    with program(PLAIN) as process, context():
        asker = Client()
        with spinning(asker.node):
            setter = asker.node.create_client(SetParameters, "plain/set_parameters")
            for kind, taken in ((255, False), (3, True)):
                value = ParameterValue(type=kind, double_value=2.0)
                request = SetParameters.Request(parameters=[Parameter(name="speed", value=value)])
                (result,) = asker._call(setter, request).results
                assert result.successful == taken, result.reason
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0 and "255 is not a valid" in errors
