# SPDX-License-Identifier: Apache-2.0
"""The simulated autopilot against the MAVLink control of this package: who moves the vehicle, and where to."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dimp_ros.apps.mavlink.autopilot import AutopilotControl
from dimp_ros.apps.simulator.autopilot import SimulatedAutopilot
from dimp_ros.apps.simulator.config import WorldConfig
from dimp_ros.apps.simulator.world import World

common = pytest.importorskip(
    "pymavlink.dialects.v20.common", reason="pymavlink is not installed: pip install pymavlink"
)

MODES = {"ardupilot": (4.0, 0.0), "px4": (6.0, 0.0)}
STEP = 0.05


class Flight:
    """A world whose vehicle has an autopilot, an `AutopilotControl` that talks to it, and an operator."""

    def __init__(self, firmware: str) -> None:
        self.now = 1000.0
        self.world = World(WorldConfig(width=64, height=64, lag=0.1))
        self.told: list[Any] = []
        self.autopilot = SimulatedAutopilot(firmware, self._tell, self.world.command, clock=lambda: self.now)
        self.control = AutopilotControl(1, 100, self._send, clock=lambda: self.now)
        self.firmware, self.twist = firmware, (0.0,) * 6

    def _send(self, message: Any) -> bool:
        self.autopilot.on_message(message)
        return True

    def _tell(self, message: Any) -> None:
        message._header.srcSystem, message._header.srcComponent = 1, 1
        self.told.append(message)
        self.control.on_message(message)

    def operate(self, number: int, *parameters: float) -> int:
        """Send a command of the ground station; return its result."""
        values = [*parameters, *[0.0] * (7 - len(parameters))]
        message = common.MAVLink_command_long_message(1, 1, number, 0, *values)
        message._header.srcSystem, message._header.srcComponent = 255, 190
        self.autopilot.on_message(message)
        return int(self.last("COMMAND_ACK").result)

    def arm(self) -> int:
        """Arm the vehicle."""
        return self.operate(common.MAV_CMD_COMPONENT_ARM_DISARM, 1.0)

    def select_mode(self) -> int:
        """Select the mode that takes setpoints."""
        return self.operate(common.MAV_CMD_DO_SET_MODE, 1.0, *MODES[self.firmware])

    def last(self, kind: str) -> Any:
        """Return the last message of a type."""
        return next(one for one in reversed(self.told) if one.get_type() == kind)

    def run(self, seconds: float, *, follower: bool = True) -> None:
        """Let time pass."""
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            if follower:
                self.control.on_command(self.twist, self.now)
            self.control.tick()
            self.world.step(STEP)
            self.autopilot.on_truth(self.world.truth())
            self.autopilot.tick()


@pytest.mark.parametrize("firmware", MODES)
def test_vehicle_goes_where_the_follower_wants_it(firmware: str) -> None:
    flight = Flight(firmware)
    assert flight.arm() == 0
    flight.run(2.0)
    assert flight.select_mode() == 0
    flight.twist = (1.0, 0.5, 0.25, 0.0, 0.0, 0.0)
    flight.run(2.0)
    x, y, z = flight.world.truth().camera_position - (0.0, 0.0, flight.world.config.camera_height)
    assert 1.5 < x < 2.0 and y == pytest.approx(x / 2, rel=0.01) and z == pytest.approx(x / 4, rel=0.01)
    place = flight.last("LOCAL_POSITION_NED")
    assert (place.x, place.y) == pytest.approx((x, -y), abs=0.1) and place.vz == pytest.approx(-0.25, abs=0.01)
    flight.twist = (0.0, 0.0, 0.0, 0.0, 0.0, 0.5)
    flight.run(2.0)
    assert -1.1 < flight.last("ATTITUDE").yaw < -0.7, "to the left is counter-clockwise"
    ahead = flight.world.truth().camera_rotation[:, 2]
    assert math.atan2(ahead[1], ahead[0]) == pytest.approx(-flight.last("ATTITUDE").yaw, abs=0.05)


@pytest.mark.parametrize("firmware", MODES)
def test_vehicle_stands_still_without_the_operator(firmware: str) -> None:
    flight = Flight(firmware)
    flight.twist = (1.0, 0.0, 0.0, 0.0, 0.0, 0.5)
    flight.run(3.0)
    flight.arm()
    flight.run(3.0)
    assert not flight.world.truth().velocity.any()


def test_px4_enters_offboard_only_by_a_stream_and_leaves_it_without() -> None:
    flight = Flight("px4")
    flight.arm()
    assert flight.select_mode() == common.MAV_RESULT_TEMPORARILY_REJECTED
    flight.run(2.0)
    assert flight.select_mode() == 0
    flight.twist = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    flight.run(1.0)
    assert flight.world.truth().velocity[0] > 0.5 and flight.autopilot.mode == "OFFBOARD"
    flight.run(4.0, follower=False)
    assert flight.autopilot.mode == "POSCTL" and abs(flight.world.truth().velocity[0]) < 1e-3


def test_killed_follower_stops_the_vehicle_and_leaves_guided_to_the_operator() -> None:
    flight = Flight("ardupilot")
    flight.arm()
    flight.select_mode()
    flight.twist = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    flight.run(1.0)
    flight.run(1.0, follower=False)
    assert abs(flight.world.truth().velocity[0]) < 0.01 and flight.autopilot.mode == "GUIDED"


def test_setpoint_of_another_kind_is_ignored() -> None:
    flight = Flight("ardupilot")
    flight.arm()
    flight.select_mode()
    fields = [0, 1, 1, 8, 1479, 0, 0, 0, 1.0, 0, 0, 0, 0, 0, 0, 0.5]
    for name, value in (("coordinate_frame", 1), ("type_mask", 3527), ("vx", math.nan), ("target_system", 2)):
        message = common.MAVLink_set_position_target_local_ned_message(*fields)
        setattr(message, name, value)
        flight.autopilot.on_message(message)
        flight.run(0.2, follower=False)
        assert not flight.world.truth().velocity.any(), name


def test_unknown_modes_and_commands_are_answered() -> None:
    flight = Flight("ardupilot")
    for mode in (99.0, -1.0, math.nan, math.inf):
        assert flight.operate(common.MAV_CMD_DO_SET_MODE, 1.0, mode) == common.MAV_RESULT_DENIED
    assert flight.operate(common.MAV_CMD_NAV_TAKEOFF) == common.MAV_RESULT_UNSUPPORTED
