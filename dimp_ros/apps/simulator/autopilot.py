# SPDX-License-Identifier: Apache-2.0
"""A simulated autopilot: what ArduPilot or PX4 tell of a vehicle over MAVLink, and what they obey. No ROS.

The world's x axis is north. MAVLink's frames are x forward or north, y right or east, z down; the world's and a
vehicle's y and z point the other way. The vehicle counts as flying once it is armed.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dimp_ros.apps.mavlink.link import MavlinkLink, dialect
from dimp_ros.apps.simulator.world import Truth

SYSTEM, COMPONENT = 1, 1
QUADROTOR = 2
HEARTBEAT_SECONDS = 1.0
TELEMETRY_SECONDS = 0.05
REPEAT_SECONDS = 0.1
ZERO = (0.0,) * 6


class Firmware(NamedTuple):
    """How an autopilot's kind differs.

    :param number: MAV_AUTOPILOT. :param modes: custom modes by name. :param obeys: the one that takes setpoints.
    :param timeout: seconds after the last setpoint until it stops. :param streams: it enters that mode only while
        setpoints have come for a second, and leaves it for the first one when they end.
    """

    number: int
    modes: dict[str, int]
    obeys: str
    timeout: float
    streams: bool


FIRMWARES = {
    "ardupilot": Firmware(3, {"LOITER": 5, "GUIDED": 4, "STABILIZE": 0}, "GUIDED", 3.0, False),
    "px4": Firmware(12, {"POSCTL": 3 << 16, "OFFBOARD": 6 << 16, "ALTCTL": 2 << 16}, "OFFBOARD", 1.0, True),
}


class SimulatedAutopilot:
    """Answers MAVLink messages for a vehicle of a `World`, without sockets. Not thread-safe.

    :param firmware: a key of `FIRMWARES`. :param send: sends a message to everybody. :param obey: called with the
        velocity that the vehicle is to have, in its body frame (x forward, y left, z up): for each setpoint that is
        taken, when it changes otherwise, and again `REPEAT_SECONDS` after the last time.
    """

    def __init__(
        self,
        firmware: str,
        send: Callable[[Any], None],
        obey: Callable[[tuple[float, ...]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._m = dialect()
        self._firmware, self._send, self._obey, self._clock = FIRMWARES[firmware], send, obey, clock
        self._start = self._next_heartbeat = self._next_telemetry = clock()
        self._truth: Truth | None = None
        self._twist: tuple[float, ...] = ZERO
        self._obeyed: tuple[float, tuple[float, ...]] = (-math.inf, ZERO)  # when `obey` was called, and with what
        self._heard = self._streaming_since = -math.inf  # the last setpoint; the first of those in a row
        self.mode = next(iter(self._firmware.modes))
        """Name of the mode."""
        self.armed = False

    def on_truth(self, truth: Truth) -> None:
        """Take where the vehicle is."""
        self._truth = truth

    def on_message(self, message: Any) -> None:
        """Obey a message to this system."""
        kind, m = message.get_type(), self._m
        if getattr(message, "target_system", 0) != SYSTEM or getattr(message, "target_component", 0) not in (0, 1):
            return
        if kind == "SET_POSITION_TARGET_LOCAL_NED":
            self._on_setpoint(message)
        elif kind == "SET_MODE":
            self._select(message.custom_mode)
        elif kind == "COMMAND_LONG":
            if message.command == m.MAV_CMD_DO_SET_MODE:
                result = self._select(self._custom_mode(message))
            elif message.command == m.MAV_CMD_COMPONENT_ARM_DISARM:
                self.armed, result = message.param1 == 1.0, m.MAV_RESULT_ACCEPTED
                self._next_heartbeat = self._clock()
            else:
                result = m.MAV_RESULT_UNSUPPORTED
            sender = message.get_srcSystem(), message.get_srcComponent()
            self._send(m.MAVLink_command_ack_message(message.command, result, 0, 0, *sender))

    def _custom_mode(self, message: Any) -> int:
        """Return the custom mode of MAV_CMD_DO_SET_MODE: PX4 has main and sub mode apart."""
        values = message.param2, message.param3
        if not all(0.0 <= value < 256.0 for value in values):
            return -1
        return int(values[0]) << 16 | int(values[1]) << 24 if self._firmware.streams else int(values[0])

    def _select(self, custom_mode: int) -> int:
        """Enter a mode; return the MAV_RESULT."""
        names = [name for name, number in self._firmware.modes.items() if number == custom_mode]
        if not names:
            return int(self._m.MAV_RESULT_DENIED)
        if names[0] == self._firmware.obeys and self._firmware.streams and not self._streamed():
            return int(self._m.MAV_RESULT_TEMPORARILY_REJECTED)
        self.mode, self._twist, self._next_heartbeat = names[0], ZERO, self._clock()
        return int(self._m.MAV_RESULT_ACCEPTED)

    def _streamed(self) -> bool:
        now = self._clock()
        return now - self._heard <= 0.5 and now - self._streaming_since >= 1.0

    def _on_setpoint(self, message: Any) -> None:
        """Take a setpoint of velocity and yaw rate in the body frame; others are ignored, as PX4 does."""
        m, now = self._m, self._clock()
        used = m.POSITION_TARGET_TYPEMASK_VX_IGNORE | m.POSITION_TARGET_TYPEMASK_VY_IGNORE
        used |= m.POSITION_TARGET_TYPEMASK_VZ_IGNORE | m.POSITION_TARGET_TYPEMASK_YAW_RATE_IGNORE
        twist = (message.vx, -message.vy, -message.vz, 0.0, 0.0, -message.yaw_rate)
        frames = m.MAV_FRAME_BODY_NED, m.MAV_FRAME_BODY_OFFSET_NED
        if message.coordinate_frame not in frames or message.type_mask & used or not all(map(math.isfinite, twist)):
            return
        if now - self._heard > 0.5:
            self._streaming_since = now
        self._heard = now
        if self.mode == self._firmware.obeys and self.armed:
            self._twist = twist
            self._tell_vehicle(now)

    def tick(self) -> None:
        """Send what is due, and stop where no setpoint comes."""
        now = self._clock()
        if now - self._heard > self._firmware.timeout or not self.armed or self.mode != self._firmware.obeys:
            self._twist = ZERO
            if self.mode == self._firmware.obeys and self._firmware.streams and now - self._heard > 1.0:
                self._select(next(iter(self._firmware.modes.values())))
        if self._twist != self._obeyed[1] or now - self._obeyed[0] >= REPEAT_SECONDS:
            self._tell_vehicle(now)
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + HEARTBEAT_SECONDS
            self._send(self._heartbeat())
            m = self._m
            landed = m.MAV_LANDED_STATE_IN_AIR if self.armed else m.MAV_LANDED_STATE_ON_GROUND
            self._send(m.MAVLink_extended_sys_state_message(m.MAV_VTOL_STATE_UNDEFINED, landed))
        if now >= self._next_telemetry and self._truth is not None:
            self._next_telemetry = max(self._next_telemetry + TELEMETRY_SECONDS, now)
            self._send_telemetry(now, self._truth)

    def _tell_vehicle(self, now: float) -> None:
        self._obeyed = now, self._twist
        self._obey(self._twist)

    def _heartbeat(self) -> Any:
        m = self._m
        flags = m.MAV_MODE_FLAG_CUSTOM_MODE_ENABLED | (m.MAV_MODE_FLAG_SAFETY_ARMED if self.armed else 0)
        status = m.MAV_STATE_ACTIVE if self.armed else m.MAV_STATE_STANDBY
        custom = self._firmware.modes[self.mode]
        return m.MAVLink_heartbeat_message(QUADROTOR, self._firmware.number, flags, custom, status, 3)

    def _send_telemetry(self, now: float, truth: Truth) -> None:
        m, boot = self._m, int((now - self._start) * 1e3) & 0xFFFFFFFF
        ahead = truth.camera_rotation[:, 2]
        left_turn = math.atan2(ahead[1], ahead[0])
        c, s = math.cos(left_turn), math.sin(left_turn)
        forward, left, up, _, _, rate = truth.velocity
        velocity = np.array([c * forward - s * left, s * forward + c * left, up])
        north, west, height = truth.camera_position
        self._send(m.MAVLink_attitude_message(boot, 0.0, 0.0, -left_turn, 0.0, 0.0, -rate))
        down = (velocity[0], -velocity[1], -velocity[2])
        self._send(m.MAVLink_local_position_ned_message(boot, north, -west, -height, *down))


class AutopilotLinks:
    """The two connections of a `SimulatedAutopilot`, between which it passes messages on, as autopilots do.

    :param ground: connection to the ground station, as for `MavlinkLink`. :param companion: to the MAVLink camera.
    :param obey: see `SimulatedAutopilot`; called in the threads of the links. :param log: takes texts.
    """

    def __init__(
        self,
        firmware: str,
        ground: str,
        companion: str,
        obey: Callable[[tuple[float, ...]], None],
        log: Callable[[str], None],
    ) -> None:
        self._lock = threading.Lock()  # guards the autopilot
        self._autopilot = SimulatedAutopilot(firmware, self._send, obey)
        self._links: list[MavlinkLink] = []
        for where, other in ((ground, 1), (companion, 0)):
            receive = partial(self._receive, other)
            link = MavlinkLink(where, 57600, SYSTEM, COMPONENT, receive=receive, tick=self._tick, log=log, types=None)
            self._links.append(link)
        for link in self._links:
            link.start()

    def _send(self, message: Any) -> None:
        for link in self._links:
            link.send(message)

    def _receive(self, other: int, message: Any) -> None:
        self._links[other].forward(message)
        with self._lock:
            self._autopilot.on_message(message)

    def _tick(self) -> None:
        with self._lock:
            self._autopilot.tick()

    def on_truth(self, truth: Truth) -> None:
        """Take where the vehicle is."""
        with self._lock:
            self._autopilot.on_truth(truth)

    def close(self) -> bool:
        """Close both connections; return whether their threads have ended."""
        return all([link.close() for link in self._links])
