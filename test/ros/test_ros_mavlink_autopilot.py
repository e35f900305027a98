# SPDX-License-Identifier: Apache-2.0
"""Following through an autopilot: the simulated vehicle, the MAVLink node and a ground station over UDP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from harness.ros_harness import RELIABLE, Node, Parameter, ScriptedTracker, context, spinning, tracker_node, wait_until
from rclpy.duration import Duration

pytest.importorskip("pymavlink", reason="pymavlink is not installed: pip install pymavlink")

from ground_station import AUTOPILOT, CAMERA, GUIDED, GroundStation
from loop_film import simulator_values
from run_drone_demo import DroneRecorder
from run_loop_demo import free_port

from dimp_ros.apps.mavlink.node import MavlinkNode
from dimp_ros.apps.simulator.node import Simulator
from dimp_ros.apps.simulator.recorder import LoopPlan
from dimp_ros.apps.simulator.settings import configs, simulator_parameters
from dimp_ros.apps.simulator.world import World
from dimp_ros.apps.steering.follower import Follower

LOITER = 5


class Pilot:
    """Publishes velocities as a follower does, and notes what the vehicle obeys and what the node reports."""

    def __init__(self) -> None:
        self.node = Node("follower")
        self.forward, self.alive, self.frame = 0.0, True, ""
        self.age = Duration()
        self.obeyed: list[TwistStamped] = []
        self.texts: list[str] = []
        self._commands = self.node.create_publisher(TwistStamped, "cmd_vel", RELIABLE)
        self.node.create_subscription(TwistStamped, "obeyed", self.obeyed.append, RELIABLE)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE)
        self.node.create_timer(0.02, self._publish)

    def _publish(self) -> None:
        if self.alive:
            message = TwistStamped()
            message.header.frame_id = self.frame
            message.header.stamp = (self.node.get_clock().now() - self.age).to_msg()
            message.twist.linear.x, message.twist.angular.z = self.forward, 0.25 * self.forward
            self._commands.publish(message)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        self.texts += [status.message for status in array.status if status.name.endswith("autopilot")]

    def speed(self) -> float:
        """Return the forward speed that the vehicle is told now."""
        return float(self.obeyed[-1].twist.linear.x)

    def reports(self, text: str) -> bool:
        """Whether the latest report contains ``text``."""
        return bool(self.texts) and text in self.texts[-1]


@contextmanager
def flight(firmware: str = "ardupilot", steer: str = "vehicle") -> Iterator[SimpleNamespace]:
    """Run simulator, MAVLink node, pilot and ground station."""
    station, port = GroundStation(), free_port()
    world = {"width": 80, "height": 64, "lag": 0.05, "autopilot": firmware}
    links = {
        "ground_connection": f"udpout:127.0.0.1:{station.port}",
        "companion_connection": f"udpin:127.0.0.1:{port}",
    }
    camera = {"connection": f"udpout:127.0.0.1:{port}", "steer": steer}
    try:
        with context():
            simulator = Simulator(lambda code: None, parameter_overrides=parameters(**world, **links))
            mavlink, pilot = MavlinkNode(parameter_overrides=parameters(**camera)), Pilot()
            with spinning(simulator, mavlink, pilot.node):
                try:
                    station.wait_for(CAMERA)
                    wait_until(lambda: pilot.obeyed, "the autopilot's commands")
                    yield SimpleNamespace(simulator=simulator, pilot=pilot, station=station, mavlink=mavlink)
                finally:
                    mavlink.close()
                    simulator.close()
    finally:
        station.close()


def test_drone_demo_ends_with_figures_and_a_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("run_drone_demo.RATE", 2.0)
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: the plot needs it")
    station, port, codes, dead = GroundStation(), free_port(), [], []
    links = {
        "ground_connection": f"udpout:127.0.0.1:{station.port}",
        "companion_connection": f"udpin:127.0.0.1:{port}",
    }
    world = {
        **simulator_values("simulator_drone.yaml"),
        "width": 160,
        "height": 120,
        "path": "static",
        "hide_until": 0.0,
    }
    plan = LoopPlan(
        "vehicle", "follower", tmp_path, kill_tracker=lambda: dead.append(True), seconds=1.2, after=0.5, patience=60.0
    )
    script = ScriptedTracker()
    try:
        with context():
            simulator = Simulator(lambda code: None, parameter_overrides=parameters(**world, **links))
            follower = Follower(parameter_overrides=parameters(camera_pitch=18.0, distance=6.3))
            camera = MavlinkNode(parameter_overrides=parameters(connection=f"udpout:127.0.0.1:{port}", steer="vehicle"))
            recorder = DroneRecorder(plan, codes.append, station, cli_args=["--ros-args", "-r", "cmd_vel:=obeyed"])
            with spinning(simulator, follower, camera, tracker_node(script), recorder):
                wait_until(lambda: codes, "the end of the recording", 90.0)
                assert recorder.close() and camera.close() and simulator.close()
    finally:
        station.close()
    assert codes[0] in (0, 1) and dead == [True], "on a busy machine the figures may be bad, but there are some"
    (_, box, name), *_ = script.inits
    assert name == "mavlink" and box == pytest.approx(simulator_box(world), abs=1.5)
    result = json.loads((tmp_path / "result.json").read_text())
    assert min(result["images"], result["states"], result["commands"]) > 5
    assert (tmp_path / "film.mp4").stat().st_size > 1000 and (tmp_path / "plot.png").stat().st_size > 1000


def simulator_box(world: dict[str, Any]) -> Any:
    """Return the target's box in the first image of a world."""
    values = {row.name: row.default for row in simulator_parameters()}
    return World(configs(values | world)[0]).truth().box


def parameters(**values: Any) -> list[Parameter]:
    return [Parameter(name, value=value) for name, value in values.items()]


def test_vehicle_follows_in_guided_mode_and_stops_with_the_follower(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with flight() as f:
        f.pilot.forward = 0.5
        wait_until(lambda: f.pilot.reports("not in GUIDED"), "the report of the mode")
        assert f.station.select_mode(GUIDED) == 0
        wait_until(lambda: f.pilot.reports("not armed"), "the report that it is not armed")
        assert f.pilot.speed() == 0.0
        assert f.station.arm() == 0
        wait_until(lambda: f.pilot.speed() == pytest.approx(0.5), "motion")
        assert f.pilot.obeyed[-1].twist.angular.z == pytest.approx(0.125), "to the left, there and back"
        wait_until(lambda: f.simulator.world.truth().camera_position[0] > 0.1, "the way ahead")
        f.pilot.alive = False
        begin = time.monotonic()
        wait_until(lambda: f.pilot.speed() == 0.0, "standstill")
        assert time.monotonic() - begin < 2.0, "well before the autopilot's own 3 s"
        f.pilot.alive = True
        wait_until(lambda: f.pilot.speed() > 0.0, "motion again")
        f.pilot.frame = "map"
        wait_until(lambda: f.pilot.speed() == 0.0 and f.pilot.reports("frame_id 'map'"), "no motion in another frame")
        f.pilot.frame = "base_link"
        wait_until(lambda: f.pilot.speed() > 0.0, "motion in the body's frame")
        f.pilot.age = Duration(seconds=3600.0)
        wait_until(lambda: f.pilot.speed() == 0.0 and f.pilot.reports("is it a replay"), "no motion by a replay")
        f.pilot.age = Duration()
        wait_until(lambda: f.pilot.speed() > 0.0, "motion by new commands")
        assert f.station.select_mode(LOITER) == 0
        wait_until(lambda: f.pilot.speed() == 0.0 and f.pilot.reports("not in GUIDED"), "the person in control")
        assert f.station.select_mode(GUIDED) == 0
        wait_until(lambda: f.pilot.speed() > 0.0, "motion in the mode")
        f.simulator.close()
        monkeypatch.setattr("dimp_ros.apps.mavlink.autopilot.HEARTBEAT_TIMEOUT", 0.0)
        monkeypatch.setattr("dimp_ros.apps.mavlink.autopilot.LAST_SECONDS", 0.1)
        f.mavlink.close()
    assert "may not have arrived" in capfd.readouterr().err


def test_px4_enters_offboard_on_zero_setpoints() -> None:
    with flight("px4") as f:
        f.pilot.alive = False
        assert f.station.arm() == 0
        assert f.station.command(AUTOPILOT, 176, 1.0, 6.0) == 1, "without a stream, temporarily rejected"
        f.pilot.alive = True
        wait_until(lambda: f.station.command(AUTOPILOT, 176, 1.0, 6.0) == 0, "OFFBOARD")
        assert f.pilot.speed() == 0.0
        f.pilot.forward = 0.5
        wait_until(lambda: f.pilot.speed() == pytest.approx(0.5), "motion")


def test_nothing_is_steered_by_default() -> None:
    with flight(steer="none") as f:
        f.pilot.forward = 0.5
        assert f.station.select_mode(GUIDED) == 0 and f.station.arm() == 0
        time.sleep(1.0)
        assert f.mavlink.count_subscribers("cmd_vel") == 0
        assert not any(one.twist.linear.x for one in f.pilot.obeyed) and not f.pilot.texts


def test_arm_has_no_autopilot() -> None:
    values = {row.name: row.default for row in simulator_parameters()}
    with pytest.raises(ValueError, match="autopilot is 'px4' and mode 'arm'"):
        configs(values | {"mode": "arm", "autopilot": "px4"})
