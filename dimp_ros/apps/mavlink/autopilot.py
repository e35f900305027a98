# SPDX-License-Identifier: Apache-2.0
"""Velocity commands as setpoints of an autopilot or rates of a gimbal, without ROS and without sockets.

Commands are in the body frame of REP 103 (x forward, y left, z up), MAVLink's in its own (x forward, y right, z down):
the signs of y, z and of the rates about them change. Setpoints are SET_POSITION_TARGET_LOCAL_NED with a velocity and a
yaw rate in MAV_FRAME_BODY_NED, which ArduPilot takes in GUIDED and PX4 in OFFBOARD mode.

Nothing here arms a vehicle, lets it take off, or changes its mode. Commands are passed on only while `refusal` has
nothing against it: a person has armed the vehicle and selected the mode, the latter of both while its heartbeats were
heard here, they come, and the command is new.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from dimp_ros.apps.mavlink.heartbeat import GROUND, AutopilotHeartbeat
from dimp_ros.apps.mavlink.link import AUTOPILOT_COMPONENT, dialect
from dimp_ros.ros_utils.steady_clock import EARLY_SECONDS, steady_seconds

HEARTBEAT_TIMEOUT = 2.5
"""The autopilot counts as lost this long after its last heartbeat, seconds; it sends one a second."""

STOP_SECONDS = 1.0
"""After motion, zero is sent until a heartbeat comes that is this much later than the first zero, then nothing."""

LAST_ZEROS, LAST_PERIOD, LAST_SECONDS = 5, 0.05, 1.2
"""A node that ends sends so many zeros, so many seconds apart: one may be lost. Over a broken link it tries so long."""

SETPOINT_SECONDS = 6.0
"""No setpoint moves a vehicle for longer: GUID_TIMEOUT of ArduPilot is 5 s at most."""

ZERO = (0.0,) * 6
BODY_FRAME = "base_link"
"""frame_id of commands, of one robot or of one among several (``robot/base_link``); an empty one is taken for it."""

LARGEST_COMMAND = 100.0
"""m/s or rad/s; a larger one is an error, and may not even fit into the message."""


def frame_trouble(frame: str) -> str:
    """Return why commands of this frame_id move nothing; empty if they are the body's."""
    if not frame or frame.rsplit("/", 1)[-1] == BODY_FRAME:
        return ""
    return (
        f"the velocities on cmd_vel have the frame_id {frame[:60]!r}, expected {BODY_FRAME!r} or none: set the "
        "follower's parameter frame_id, or transform them to the body's frame"
    )


class AutopilotControl:
    """Passes velocity commands on to an autopilot, or to a gimbal. Thread-safe.

    While commands may not be passed on, or are zero, or none comes, zero is sent after motion, and then nothing:
    ArduPilot holds still then, and other commands of the operator in GUIDED are not overruled. Zero is sent until a
    heartbeat `STOP_SECONDS` after the first zero shows that the link carries it, whatever was paused or broken,
    but to a vehicle no longer than `SETPOINT_SECONDS` after the last motion: ArduPilot has stopped by itself then. A
    gimbal gets it in every mode, since its rates may hold until another comes.
    PX4 enters OFFBOARD only while setpoints come, and leaves it when they end: it gets zero velocity as long as
    commands come, whatever its mode, and nothing once they have ended, so that its own failsafe acts.

    :param system: of the vehicle. :param component: of the sender. :param gimbal: commands turn the gimbal instead.
    :param gimbal_manager: component of the gimbal manager: the autopilot, or a gimbal that is its own.
    :param any_mode: gimbal rates are sent in all modes, armed or not, and nothing to the vehicle.
    :param command_timeout: age of a command from which on it is zero, seconds.
    :param send: sends a message, and returns whether the link took it; may be called from any thread.
    """

    def __init__(
        self,
        system: int,
        component: int,
        send: Callable[[Any], bool],
        *,
        gimbal: bool = False,
        gimbal_manager: int = AUTOPILOT_COMPONENT,
        any_mode: bool = False,
        command_timeout: float = 0.25,
        clock: Callable[[], float] = steady_seconds,
    ) -> None:
        self._m = dialect()
        self._system, self._component, self._send, self._clock = system, component, send, clock
        self._gimbal, self._manager, self._any_mode = gimbal, gimbal_manager, gimbal and any_mode
        self._timeout = command_timeout
        self._start = clock()
        self._lock = threading.Lock()  # guards all that follows
        self._heartbeat: AutopilotHeartbeat | None = None
        self._unwatched = ""  # why a person has to select the mode anew
        self._delivered = False  # whether the link took all that the last tick sent
        self._landed_state = 0
        self._twist: tuple[float, ...] = ZERO
        self._fits = True  # that command was one
        self._frame = ""
        self._sent = -math.inf
        self._age = 0.0
        self._moved = -math.inf  # when motion was last sent, as long as zero may have to follow it
        self._still_since = math.inf  # first tick without motion
        self._stopped = False  # whether the link took a zero since the last motion
        self._claimed = False  # the gimbal, for the present motion
        self._closed = False

    def on_message(self, message: Any) -> None:
        """Take a message; only the autopilot's state is read."""
        if (message.get_srcSystem(), message.get_srcComponent()) != (self._system, AUTOPILOT_COMPONENT):
            return
        with self._lock:
            if message.get_type() == "EXTENDED_SYS_STATE":
                self._landed_state = message.landed_state
            elif message.get_type() == "HEARTBEAT":
                now, before = self._clock(), self._heartbeat
                self._heartbeat = beat = AutopilotHeartbeat(
                    message.autopilot, message.type, message.custom_mode, message.base_mode, message.system_status, now
                )
                if before is None:
                    self._unwatched = "the vehicle was armed and in the mode before this node heard it"
                elif now - before.heard > HEARTBEAT_TIMEOUT:
                    self._unwatched = "the autopilot's heartbeat was lost"
                    self._still_since, self._stopped = math.inf, False  # the zeros until now have gone nowhere
                if not (beat.in_mode and beat.armed):
                    self._unwatched = ""

    def on_command(self, twist: Sequence[float], sent: float, frame: str = "", age: float = 0.0) -> None:
        """Take a command: linear x, y, z in m/s and angular x, y, z in rad/s; one beyond `LARGEST_COMMAND` is zero.

        :param sent: when it was sent, by the clock; NaN if that is not known: then it moves nothing.
        :param frame: its frame_id; in another than `BODY_FRAME` it moves nothing.
        :param age: seconds from its stamp until now by ROS time: one that is sent again, as from a bag, is old.
        """
        with self._lock:
            fits = len(twist) == 6 and all(abs(value) <= LARGEST_COMMAND for value in twist)
            self._twist, self._fits = tuple(twist) if fits else ZERO, fits
            self._sent = sent
            self._frame = frame
            self._age = age

    def refusal(self, publishers: int = 1) -> str:
        """Return why commands are not passed on now; empty if they are. :param publishers: of commands."""
        with self._lock:
            return self._refusal(self._clock(), publishers)

    def tick(self, publishers: int = 1) -> str:
        """Send what is due, and return `refusal`; to be called some tens of times a second."""
        with self._lock:
            now, beat = self._clock(), self._heartbeat
            reason = self._refusal(now, publishers)
            linear, (_, pitch, yaw) = (ZERO[:3], ZERO[3:]) if reason else (self._twist[:3], self._twist[3:])
            twist = (*ZERO[:4], pitch, yaw) if self._gimbal else (*linear, 0.0, 0.0, yaw)
            moving = any(twist)
            self._moved = now if moving else self._moved
            self._still_since = math.inf if moving else min(self._still_since, now)
            stopping = self._stopping(now)
            if beat is not None and beat.heard - self._still_since > STOP_SECONDS:
                self._moved = -math.inf  # this zero is the last one
            streaming = beat is not None and beat.mode_name == "OFFBOARD" and not self._trouble(now, publishers)
            if self._gimbal:
                due = [self._gimbal_rates(twist)] if stopping else []
                if moving and not self._claimed:
                    due.insert(0, self._gimbal_claim())
                self._claimed = bool(due)
                due += [self._setpoint(now, ZERO)] if streaming and not self._any_mode else []
            else:
                ours = stopping and beat is not None and beat.in_mode
                due = [self._setpoint(now, twist)] if streaming or ours else []
        delivered = all([self._send(message) for message in due])
        with self._lock:
            self._delivered = delivered
            if moving:
                self._stopped = False
            elif due and delivered:
                self._stopped = True
            elif due and not self._stopped:
                self._still_since = math.inf  # this zero has gone nowhere
            if moving:  # this process may have been stopped before it was sent
                self._moved = self._clock()
        return reason

    def close(self, wait: Callable[[float], None] = time.sleep) -> str:
        """Send zeros where something moves, until the link has taken `LAST_ZEROS` while heartbeats come, or for
        `LAST_SECONDS`; return why they may not have arrived. Commands are ignored from now on.
        """
        with self._lock:
            self._twist, self._closed = ZERO, True
            end = self._clock() + LAST_SECONDS
        sent = 0
        while sent < LAST_ZEROS:
            self.tick()
            with self._lock:
                now = self._clock()
                heard = self._heartbeat is not None and now - self._heartbeat.heard <= HEARTBEAT_TIMEOUT
                if not self._stopping(now):
                    return ""
                if now > end:
                    why = "no heartbeat comes" if self._delivered else "the link is broken"
                    what = "gimbal may turn on until others command it" if self._gimbal else "vehicle may move on"
                    return f"the last zero may not have arrived, since {why}: the {what}"
                sent += heard and self._delivered
            wait(LAST_PERIOD)
        with self._lock:
            self._moved = -math.inf
        return ""

    @property
    def at_rest(self) -> bool:
        """Whether the link has taken no motion, or a zero after it."""
        with self._lock:
            return self._moved == -math.inf or self._stopped

    def _stopping(self, now: float) -> bool:
        """Return whether motion was sent that zero may have to follow."""
        return now - self._moved < (math.inf if self._gimbal else SETPOINT_SECONDS)

    def _trouble(self, now: float, publishers: int) -> str:
        """Return what is wrong with the autopilot's heartbeat or with the commands; empty if nothing."""
        beat = self._heartbeat
        if self._closed:
            return "closed"
        if beat is None:
            return f"no heartbeat has come of system {self._system}, component {AUTOPILOT_COMPONENT}, the autopilot"
        if not 0.0 <= now - beat.heard <= HEARTBEAT_TIMEOUT:
            return f"the autopilot's last heartbeat is {now - beat.heard:.3g} s old, more than {HEARTBEAT_TIMEOUT:g} s"
        if not beat.mode_name:
            return f"vehicles of type {beat.kind} with an autopilot of type {beat.autopilot} are not known here"
        if publishers > 1:
            return f"{publishers} nodes publish commands and one is expected: stop the others"
        if not now - self._sent <= self._timeout:
            return f"no command was sent for {self._timeout:g} s: does the follower run?"
        if not -EARLY_SECONDS <= self._age <= self._timeout:
            return (
                f"the stamp of the velocity on cmd_vel is {self._age:.3g} s old, and must be -{EARLY_SECONDS:g} to "
                f"{self._timeout:g} s: is it a replay, or do clocks or use_sim_time differ from the follower's?"
            )
        return ""

    def _refusal(self, now: float, publishers: int) -> str:
        if trouble := self._trouble(now, publishers):
            return trouble
        if trouble := frame_trouble(self._frame):
            return trouble
        if not self._fits:
            return f"a velocity is not a number, or above {LARGEST_COMMAND:g} m/s or rad/s"
        beat, m = self._heartbeat, self._m
        assert beat is not None
        if self._any_mode:
            return ""
        if not beat.in_mode:
            return f"the vehicle is not in {beat.mode_name} mode, which a person has to select"
        if self._unwatched:
            return f"{self._unwatched}: leave {beat.mode_name} mode, and enter it again"
        if not beat.armed:
            return "the vehicle is not armed"
        if beat.status != m.MAV_STATE_ACTIVE:
            return f"the autopilot's system status is {beat.status} and must be {m.MAV_STATE_ACTIVE}, active"
        if beat.kind not in GROUND and self._landed_state not in (0, m.MAV_LANDED_STATE_IN_AIR):
            return "the vehicle is on the ground, or takes off or lands"
        return ""

    def _setpoint(self, now: float, twist: Sequence[float]) -> Any:
        m = self._m
        unused = m.POSITION_TARGET_TYPEMASK_X_IGNORE | m.POSITION_TARGET_TYPEMASK_Y_IGNORE
        unused |= m.POSITION_TARGET_TYPEMASK_Z_IGNORE | m.POSITION_TARGET_TYPEMASK_YAW_IGNORE
        unused |= m.POSITION_TARGET_TYPEMASK_AX_IGNORE | m.POSITION_TARGET_TYPEMASK_AY_IGNORE
        unused |= m.POSITION_TARGET_TYPEMASK_AZ_IGNORE
        forward, left, up, _, _, left_turn = twist
        boot = int((now - self._start) * 1e3) & 0xFFFFFFFF
        place = acceleration = (0.0, 0.0, 0.0)
        velocity = (forward, -left, -up)
        return m.MAVLink_set_position_target_local_ned_message(
            boot,
            self._system,
            AUTOPILOT_COMPONENT,
            m.MAV_FRAME_BODY_NED,
            unused,
            *place,
            *velocity,
            *acceleration,
            0.0,
            -left_turn,
        )

    def _gimbal_rates(self, twist: Sequence[float]) -> Any:
        """Return rates, pitch positive up and yaw positive right, with the axes locked to the horizon and the north."""
        m, unknown, (down_turn, left_turn) = self._m, math.nan, twist[4:]
        locks = m.GIMBAL_MANAGER_FLAGS_ROLL_LOCK | m.GIMBAL_MANAGER_FLAGS_PITCH_LOCK | m.GIMBAL_MANAGER_FLAGS_YAW_LOCK
        address, every_gimbal = (self._system, self._manager), 0
        return m.MAVLink_gimbal_manager_set_pitchyaw_message(
            *address, locks, every_gimbal, unknown, unknown, -down_turn, -left_turn
        )

    def _gimbal_claim(self) -> Any:
        """Return the command that takes primary control of the gimbal, without which a manager ignores rates."""
        primary, unchanged = (self._system, self._component), (-1, -1)
        number = self._m.MAV_CMD_DO_GIMBAL_MANAGER_CONFIGURE
        return self._m.MAVLink_command_long_message(
            self._system, self._manager, number, 0, *primary, *unchanged, 0, 0, 0
        )
