# SPDX-License-Identifier: Apache-2.0
"""What an operator does in a ground station, by pymavlink: arm, select a mode, draw a box, and watch."""

from __future__ import annotations

import os
import time
from typing import Any

os.environ["MAVLINK20"] = "1"  # read by pymavlink when it is imported

from pymavlink import mavutil
from pymavlink.dialects.v20 import common

SYSTEM, AUTOPILOT, CAMERA = 1, 1, 100
GUIDED = 4
ANSWER_SECONDS = 15.0


class GroundStation:
    """A ground station that listens on a UDP port of the loopback interface.

    :param port: 0 takes a free one; see `port`.
    """

    def __init__(self, port: int = 0) -> None:
        self._link: Any = mavutil.mavlink_connection(
            f"udpin:127.0.0.1:{port}", source_system=255, source_component=190, dialect="common"
        )
        self.port = int(self._link.port.getsockname()[1])
        """The port."""

    def wait_for(self, component: int, seconds: float = 60.0) -> None:
        """Wait for the heartbeat of a component of the vehicle.

        :raises TimeoutError: if none comes.
        """
        self._next(lambda one: one.get_type() == "HEARTBEAT" and one.get_srcComponent() == component, seconds)

    def command(self, component: int, number: int, *parameters: float) -> int:
        """Send a command, and return the result that is acknowledged (MAV_RESULT).

        :raises TimeoutError: if nobody answers.
        """
        values = [*parameters, *[0.0] * (7 - len(parameters))]
        self._link.mav.command_long_send(SYSTEM, component, number, 0, *values)
        answer = self._next(
            lambda one: (
                one.get_type() == "COMMAND_ACK" and one.command == number and one.get_srcComponent() == component
            ),
            ANSWER_SECONDS,
        )
        return int(answer.result)

    def arm(self) -> int:
        """Arm the vehicle."""
        return self.command(AUTOPILOT, common.MAV_CMD_COMPONENT_ARM_DISARM, 1.0)

    def select_mode(self, custom_mode: float) -> int:
        """Select one of the autopilot's modes."""
        flag = float(common.MAV_MODE_FLAG_CUSTOM_MODE_ENABLED)
        return self.command(AUTOPILOT, common.MAV_CMD_DO_SET_MODE, flag, custom_mode)

    def track(self, left: float, top: float, right: float, bottom: float) -> int:
        """Draw a box on the video, in fractions of the image."""
        return self.command(CAMERA, common.MAV_CMD_CAMERA_TRACK_RECTANGLE, left, top, right, bottom)

    def _next(self, wanted: Any, seconds: float) -> Any:
        """Return the next message that is wanted."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message = self._link.recv_match(blocking=True, timeout=0.2)
            if message is not None and wanted(message):
                return message
        raise TimeoutError(f"the ground station has waited for {seconds:g} s in vain")

    def close(self) -> None:
        """Close the port."""
        self._link.close()
