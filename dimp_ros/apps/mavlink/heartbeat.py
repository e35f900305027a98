# SPDX-License-Identifier: Apache-2.0
"""What an autopilot's heartbeat says: its kind, whether it is armed, and whether it takes setpoints."""

from __future__ import annotations

from typing import NamedTuple

from dimp_ros.apps.mavlink.link import dialect

ARDUPILOT, PX4 = 3, 12
"""MAV_AUTOPILOT of the autopilots that are known."""

_COPTERS = (2, 3, 4, 13, 14, 15, 29, 35)
_SUBMARINE, GROUND = 12, (10, 11)
_GUIDED = {**dict.fromkeys((*_COPTERS, _SUBMARINE), 4), **dict.fromkeys(GROUND, 15)}
"""MAV_TYPE -> number of ArduPilot's mode GUIDED; those that it does not steer by velocity are missing."""

_PX4_OFFBOARD = 6
"""Main mode of PX4, in bits 16 to 23 of the custom mode."""

_PX4_TYPES = (*_COPTERS, *GROUND, 19, 20, 21, 22, 23, 24, 25)
"""Those and VTOLs: OFFBOARD takes velocities of them."""


class AutopilotHeartbeat(NamedTuple):
    """The fields of the autopilot's last HEARTBEAT, and when it came."""

    autopilot: int
    kind: int
    custom_mode: int
    base_mode: int
    status: int
    heard: float

    @property
    def mode_name(self) -> str:
        """Name of the mode in which the vehicle takes setpoints; empty if there is none that is known."""
        if self.autopilot == ARDUPILOT and self.kind in _GUIDED:
            return "GUIDED"
        return "OFFBOARD" if self.autopilot == PX4 and self.kind in _PX4_TYPES else ""

    @property
    def armed(self) -> bool:
        """Whether the vehicle is armed."""
        return bool(self.base_mode & dialect().MAV_MODE_FLAG_SAFETY_ARMED)

    @property
    def in_mode(self) -> bool:
        """Whether the vehicle is in that mode."""
        if self.mode_name == "GUIDED":
            return bool(self.base_mode & dialect().MAV_MODE_FLAG_CUSTOM_MODE_ENABLED) and (
                self.custom_mode == _GUIDED[self.kind]
            )
        return self.mode_name == "OFFBOARD" and (self.custom_mode >> 16) & 0xFF == _PX4_OFFBOARD
