# SPDX-License-Identifier: Apache-2.0
"""The bound of docs/follower.md: zero `timeout` + 0.25 s after the newest image was first reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from builtin_interfaces.msg import Time
from harness.ros_harness import RELIABLE, WAIT, context, spinning, wait_until
from helpers.steering_operator import Operator, camera_info, steering
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo

from dimp_ros.apps.steering.follower import Follower
from dimp_ros.apps.steering.safety import STOP_SECONDS
from dimp_ros.apps.steering.servo import Servo
from dimp_ros.images.stamps import NANOSECONDS
from dimp_ros.msg import TargetStateArray
from dimp_ros.ros_utils.steady_clock import steady_seconds

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 0.5
SLACK = 0.3
"""Seconds that delivery of a command to the test may take on a busy machine."""

BOUND = TIMEOUT + STOP_SECONDS + SLACK
REPEATS = 50
"""Images of 0.04 s each, twice as long as the bound."""

OF_FOLLOWER, OF_SERVO = (Follower, "cmd_vel"), (Servo, "delta_twist_cmds")
KINDS = pytest.mark.parametrize(("kind", "topic"), [OF_FOLLOWER, OF_SERVO], ids=["follower", "servo"])


def stamp_at(seconds: float) -> Time:
    """Return seconds as a stamp."""
    whole, part = divmod(round(seconds * NANOSECONDS), NANOSECONDS)
    return Time(sec=whole, nanosec=part)


class SimulatedTime:
    """Publishes /clock; tells the operator to stamp images with it."""

    def __init__(self, operator: Operator) -> None:
        self.operator, self.seconds = operator, 100.0
        self._publisher = operator.node.create_publisher(Clock, "/clock", RELIABLE)
        operator.telling = False

    def tell(self, seconds: float, stamp: float) -> None:
        """Publish the time, and an image's state with a stamp."""
        self.seconds = seconds
        self._publisher.publish(Clock(clock=stamp_at(seconds)))
        self.operator.tell(stamp_at(stamp))

    def run(self, seconds: float) -> None:
        """Let time and images go on for some seconds."""
        end = steady_seconds() + seconds
        while steady_seconds() < end:
            self.tell(self.seconds + 0.04, self.seconds + 0.03)
            time.sleep(0.04)

    def run_until_motion(self) -> None:
        """Let time and images go on until the robot moves."""
        end = steady_seconds() + WAIT
        while not (self.operator.commands and any(self.operator.last())):
            self.run(0.1)
            assert steady_seconds() < end, "no motion"


@contextmanager
def enabled_in_simulated_time(kind: type, topic: str) -> Iterator[SimulatedTime]:
    """Run a steering node in simulated time until it moves."""
    with steering(kind, topic, timeout=TIMEOUT, use_sim_time=True) as operator:
        simulated = SimulatedTime(operator)
        assert operator.set_enabled(True).success
        simulated.run_until_motion()
        yield simulated


def assert_zero_after(operator: Operator, newest: float) -> None:
    """Assert that no command that arrived later than the bound after ``newest`` moves the robot."""
    late = [vector for at, vector in list(operator.arrivals) if at > newest + BOUND]
    assert len(late) > 10 and not any(any(vector) for vector in late)


def test_old_states_in_turn_under_a_stopped_clock_stop():
    with enabled_in_simulated_time(*OF_FOLLOWER) as simulated:
        now = simulated.seconds
        newest = steady_seconds()
        for repeat in range(REPEATS):
            simulated.tell(now, now - (0.01, 0.03)[repeat % 2])
            time.sleep(0.04)
        assert_zero_after(simulated.operator, newest + 0.08)


def test_advancing_stamps_under_a_stopped_clock_stop():
    with enabled_in_simulated_time(*OF_SERVO) as simulated:
        now, newest = simulated.seconds, steady_seconds()
        for repeat in range(REPEATS):
            simulated.tell(now, now - 0.01 + repeat * 1e-6)
            time.sleep(0.04)
        assert_zero_after(simulated.operator, newest + 0.04)


@KINDS
def test_replay_in_a_loop_moves_nothing_after_its_first_pass(kind, topic):
    with enabled_in_simulated_time(kind, topic) as simulated:
        start = simulated.seconds
        simulated.run(1.0)
        steps, newest = round((simulated.seconds - start) / 0.04), steady_seconds()
        for _ in range(2):
            for step in range(steps):
                simulated.tell(start + step * 0.04, start + step * 0.04 - 0.01)
                time.sleep(0.04)
        assert_zero_after(simulated.operator, newest)
        wait_until(lambda: any("went back" in s.message for s in simulated.operator.statuses), "the reason")
        assert simulated.operator.set_enabled(True).success
        simulated.run_until_motion()


@KINDS
def test_second_publisher_of_targets_stops_the_motion(kind, topic):
    with steering(kind, topic) as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()
        second = operator.node.create_publisher(TargetStateArray, "targets", RELIABLE)
        wait_until(lambda: operator.steering.count_publishers("targets") == 2, "both publishers")
        operator.wait_for_rest()
        wait_until(lambda: any("2 nodes publish" in status.message for status in operator.statuses), "the reason")
        operator.node.destroy_publisher(second)
        operator.wait_for_motion()


@KINDS
@pytest.mark.parametrize("place", [0, 1], ids=["focal length", "skew"])
def test_second_publisher_of_another_camera_info_stops_the_motion(kind, topic, place):
    with steering(kind, topic) as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()
        second = operator.node.create_publisher(CameraInfo, "camera_info", RELIABLE)
        other = camera_info()
        other.k[place] = 300.0
        timer = operator.node.create_timer(0.07, lambda: second.publish(other))
        wait_until(lambda: any("2 nodes publish camera_info" in one.message for one in operator.statuses), "the reason")
        operator.wait_for_rest()
        operator.node.destroy_timer(timer)
        operator.node.destroy_publisher(second)
        operator.wait_for_motion()


@pytest.mark.parametrize(("script", "simulated_time"), [("follower_node", False), ("servo_node", True)])
def test_stopped_process_moves_nothing_by_what_it_finds(script, simulated_time):
    name = script.removesuffix("_node")
    topic = {"follower": "cmd_vel", "servo": "delta_twist_cmds"}[name]
    with context():
        operator = Operator(None, name, topic)
        clock = SimulatedTime(operator) if simulated_time else None
        arguments = ["--ros-args", "-p", f"timeout:={TIMEOUT}", "-p", f"use_sim_time:={str(simulated_time).lower()}"]
        process = subprocess.Popen([sys.executable, str(ROOT / "scripts" / script), *arguments], env=os.environ)
        try:
            with spinning(operator.node):
                wait_until(lambda: operator.commands, "the first command", 2 * WAIT)
                assert operator.set_enabled(True).success
                for pause in (0.5, 2.0):
                    if clock is not None:
                        clock.run_until_motion()
                    else:
                        operator.telling = True
                        operator.wait_for_motion()
                    os.kill(process.pid, signal.SIGSTOP)
                    if clock is not None:
                        clock.run(pause)  # is what it finds
                    else:
                        time.sleep(pause)
                    operator.telling = False
                    time.sleep(0.1)
                    before, woken = len(operator.arrivals), steady_seconds()
                    os.kill(process.pid, signal.SIGCONT)
                    wait_until(lambda at=before: len(operator.arrivals) > at + 50, "commands")
                    moving = [at - woken for at, vector in list(operator.arrivals)[before:] if any(vector)]
                    # One command may have been on its way when the process was stopped.
                    assert len(moving) <= 1 and all(at < 0.1 for at in moving), moving
        finally:
            process.kill()
            process.wait(10.0)


def test_messages_of_a_wrong_wall_clock_move_nothing(monkeypatch):
    with steering(Follower, timeout=TIMEOUT) as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()
        wall = time.time_ns
        for offset in (-3600, 3600):
            monkeypatch.setattr(
                "dimp_ros.ros_utils.steady_clock.time.time_ns", lambda by=offset: wall() + by * NANOSECONDS
            )
            operator.wait_for_rest()
            monkeypatch.undo()
            operator.wait_for_motion()
