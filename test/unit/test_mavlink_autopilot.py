# SPDX-License-Identifier: Apache-2.0
"""Velocities for an autopilot: frames and signs, and all that must hold before a vehicle gets one."""

from __future__ import annotations

import contextlib
import itertools
import math
import socket
import time
from typing import Any

import pytest

from dimp_ros.apps.mavlink.autopilot import HEARTBEAT_TIMEOUT, SETPOINT_SECONDS, STOP_SECONDS, AutopilotControl
from dimp_ros.apps.mavlink.link import MavlinkLink
from dimp_ros.ros_utils.steady_clock import steady_seconds

common = pytest.importorskip(
    "pymavlink.dialects.v20.common", reason="pymavlink is not installed: pip install pymavlink"
)

QUADROTOR, PLANE, ROVER, VTOL = 2, 1, 10, 22
GUIDED, ROVER_GUIDED, LOITER, OFFBOARD, POSCTL = 4, 15, 5, 6 << 16, 3 << 16
ARMED = common.MAV_MODE_FLAG_SAFETY_ARMED
FORWARD = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
TURNING = (0.0, 0.0, 0.0, 0.0, 0.2, 0.3)
PERIOD = 0.05


class Bench:
    """An `AutopilotControl` with a clock of its own, a follower and an autopilot that are played."""

    def __init__(self, *, px4: bool = False, kind: int = QUADROTOR, watched: bool = True, **options: Any) -> None:
        """:param watched: the vehicle is heard before a person arms it and selects the mode."""
        self.now, self.sent, self.px4 = 100.0, [], px4
        self.connected = True
        self.control = AutopilotControl(7, 100, self._send, clock=lambda: self.now, **options)
        self.kind, self.mode = kind, OFFBOARD if px4 else GUIDED
        self.autopilot, self.flags, self.status = (12 if px4 else 3), ARMED | 1, common.MAV_STATE_ACTIVE
        self.twist: tuple[float, ...] | None = FORWARD
        self.frame, self.age = "base_link", 0.0
        self.beats, self._next_beat = True, self.now
        if watched:
            self.receive(common.MAVLink_heartbeat_message(self.kind, self.autopilot, 1, LOITER, self.status, 3))

    def _send(self, message: Any) -> bool:
        if self.connected:
            self.sent.append(message)
        return self.connected

    def receive(self, message: Any, system: int = 7, component: int = 1) -> None:
        """Hand over a message of a sender."""
        message._header.srcSystem, message._header.srcComponent = system, component
        self.control.on_message(message)

    def heartbeat(self, system: int = 7, component: int = 1) -> None:
        """Send the autopilot's heartbeat."""
        message = common.MAVLink_heartbeat_message(self.kind, self.autopilot, self.flags, self.mode, self.status, 3)
        self.receive(message, system, component)

    def run(self, seconds: float = PERIOD, publishers: int = 1) -> list[Any]:
        """Let time pass; return what was sent in it."""
        before = len(self.sent)
        for _ in range(round(seconds / PERIOD)):
            self.now += PERIOD
            if self.now >= self._next_beat:
                self._next_beat = self.now + 1.0
                if self.beats and self.connected:
                    self.heartbeat()
            if self.twist is not None:
                self.control.on_command(self.twist, self.now, self.frame, self.age)
            self.control.tick(publishers)
        return self.sent[before:]

    def pause(self, seconds: float) -> None:
        """Stop the process for a while; the heartbeats that waited for it are read first."""
        self.now += seconds
        while self.now >= self._next_beat:
            self._next_beat += 1.0
            self.heartbeat()

    def change(self, **values: Any) -> None:
        """Change what the autopilot reports, at once."""
        for name, value in values.items():
            setattr(self, name, value)
        self.heartbeat()


def velocities(messages: list[Any]) -> list[tuple[float, ...]]:
    return [(one.vx, one.vy, one.vz, one.yaw_rate) for one in messages]


def moves(message: Any) -> bool:
    names = ("vx", "vy", "vz", "yaw_rate", "pitch_rate")
    return any(getattr(message, name, 0.0) for name in names)


def moving(messages: list[Any]) -> list[Any]:
    return [one for one in messages if moves(one)]


def test_setpoint_is_a_velocity_in_the_body_frame() -> None:
    bench = Bench()
    bench.twist = (1.0, 0.5, 0.25, 0.1, 0.2, 0.3)
    message = bench.run()[-1]
    assert message.get_type() == "SET_POSITION_TARGET_LOCAL_NED"
    assert (message.target_system, message.target_component, message.coordinate_frame) == (7, 1, 8)
    assert message.type_mask == 0b010111000111, "position, acceleration and yaw are ignored"
    assert velocities([message]) == [(1.0, -0.5, -0.25, -0.3)], "forward, right, down, clockwise"


@pytest.mark.parametrize(
    ("twist", "pitch", "yaw"),
    [((0, 0, 0, 0, 0.2, 0), -0.2, 0.0), ((0, 0, 0, 0, 0, 0.3), 0.0, -0.3), ((1, 1, 1, 1, 0.1, 0), -0.1, 0.0)],
)
def test_gimbal_gets_rates_up_and_to_the_right(twist: tuple[float, ...], pitch: float, yaw: float) -> None:
    bench = Bench(gimbal=True, gimbal_manager=154)
    bench.twist = twist
    claim, rates = bench.run()
    assert claim.command == common.MAV_CMD_DO_GIMBAL_MANAGER_CONFIGURE
    assert (claim.target_system, claim.target_component, claim.param1, claim.param2) == (7, 154, 7, 100)
    assert rates.get_type() == "GIMBAL_MANAGER_SET_PITCHYAW" and math.isnan(rates.pitch) and math.isnan(rates.yaw)
    assert (rates.target_component, rates.pitch_rate, rates.yaw_rate) == (154, pitch, yaw)
    again = bench.run()
    assert len(again) == 1, "control of the gimbal is claimed once"


@pytest.mark.parametrize("gimbal", [True, False])
def test_velocity_that_moves_nothing_here_is_no_motion(gimbal: bool) -> None:
    """Of a gimbal, the linear ones and the rate about the forward axis; of a vehicle, roll and pitch."""
    bench = Bench(gimbal=gimbal)
    for bench.twist in [(1.0, 1.0, 1.0, 1.0, 0.0, 0.0)] if gimbal else [(0, 0, 0, 1.0, 0, 0), (0, 0, 0, 0, 1.0, 0)]:
        assert bench.run(0.5) == [], "no claim and no zeros"


def test_gimbal_stops_with_the_follower_and_is_claimed_anew() -> None:
    bench = Bench(gimbal=True)
    bench.twist = TURNING
    bench.run(0.5)
    bench.twist = (0.0,) * 6
    rates = bench.run(2.0)
    assert rates and all(one.yaw_rate == 0.0 and one.pitch_rate == 0.0 for one in rates)
    assert bench.run(1.0) == []
    bench.twist = TURNING
    assert [one.get_type() for one in bench.run()] == ["COMMAND_LONG", "GIMBAL_MANAGER_SET_PITCHYAW"]


def test_gimbal_may_be_turned_in_any_mode() -> None:
    for any_mode in (True, False):
        bench = Bench(gimbal=True, any_mode=any_mode)
        bench.mode, bench.flags, bench.twist = LOITER, 1, TURNING
        assert bool(bench.run(0.5)) is any_mode


@pytest.mark.parametrize(
    ("px4", "kind", "mode"),
    [
        (False, QUADROTOR, GUIDED),
        (False, 12, GUIDED),
        (False, ROVER, ROVER_GUIDED),
        (True, QUADROTOR, OFFBOARD),
        (True, VTOL, OFFBOARD),
        (True, ROVER, OFFBOARD),
    ],
)
def test_vehicle_moves_in_the_mode_of_its_kind(px4: bool, kind: int, mode: int) -> None:
    bench = Bench(px4=px4, kind=kind)
    bench.mode = mode
    assert velocities(bench.run(0.5))[-1] == (1.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"mode": LOITER}, "not in GUIDED mode"),
        ({"mode": ROVER_GUIDED}, "not in GUIDED mode"),
        ({"mode": OFFBOARD}, "not in GUIDED mode"),
        ({"flags": ARMED}, "not in GUIDED mode"),
        ({"flags": 1}, "not armed"),
        ({"status": common.MAV_STATE_STANDBY}, "system status"),
        ({"status": common.MAV_STATE_CRITICAL}, "system status"),
        ({"kind": PLANE, "mode": 15}, "not known"),
        ({"autopilot": 0}, "not known"),
        ({"autopilot": common.MAV_AUTOPILOT_INVALID}, "not known"),
    ],
)
def test_nothing_is_sent_where_no_person_has_made_ready(change: dict[str, int], word: str) -> None:
    bench = Bench()
    for name, value in change.items():
        setattr(bench, name, value)
    assert bench.run(2.0) == [] and word in bench.control.refusal()


def test_only_zero_is_sent_once_a_condition_goes() -> None:
    for change in ({"flags": 1}, {"status": common.MAV_STATE_CRITICAL}):
        bench = Bench()
        assert moving(bench.run(1.0))
        bench.change(**change)
        after = bench.run(3.0)
        assert after and not moving(after) and len(after) <= (STOP_SECONDS + 1.0) / PERIOD + 1
        assert bench.run(3.0) == []


@pytest.mark.parametrize(
    "frame", ["map", "odom", "camera_optical_frame", "base_link_optical", "base_link/", "BASE_LINK"]
)
@pytest.mark.parametrize("options", [{}, {"px4": True}, {"gimbal": True}, {"gimbal": True, "any_mode": True}])
def test_velocity_of_another_frame_moves_nothing(frame: str, options: dict[str, bool]) -> None:
    bench = Bench(**options)
    for body in ("", "base_link", "robot/base_link"):
        bench.twist, bench.frame = TURNING, body
        assert any(map(moves, bench.run(0.5)))
        bench.frame = frame
        after = bench.run(2.5)
        assert after and not any(map(moves, after)) and repr(frame) in bench.control.refusal()


def test_nothing_is_sent_in_a_mode_that_a_person_selects() -> None:
    bench = Bench()
    assert moving(bench.run(1.0))
    bench.change(mode=LOITER)
    assert bench.run(3.0) == []
    bench.change(mode=GUIDED)
    assert moving(bench.run(0.5))


def test_zero_of_the_follower_ends_in_silence() -> None:
    bench = Bench()
    bench.run(1.0)
    bench.twist = (0.0,) * 6
    after = bench.run(3.0)
    assert after and not moving(after) and bench.run(1.0) == [], "the operator's own commands in GUIDED are left alone"


@pytest.mark.parametrize("options", [{}, {"gimbal": True}], ids=["vehicle", "gimbal"])
@pytest.mark.parametrize("seconds", [0.3, 0.7, 1.1, 1.5, 2.4, 3.0, 5.0])
@pytest.mark.parametrize("follower", ["stopped", "dead"])
def test_zero_follows_a_pause_in_which_the_motion_ended(
    options: dict[str, bool], seconds: float, follower: str
) -> None:
    bench = Bench(**options)
    bench.twist = TURNING
    assert moving(bench.run(1.3))
    bench.twist = None
    bench.pause(seconds)
    bench.twist = (0.0,) * 6 if follower == "stopped" else None
    first = bench.run(0.25)
    assert len(first) >= 4 and not any(map(moves, first))
    rest = bench.run(1.75)
    assert not any(map(moves, rest)) and bench.run(5.0) == []


@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.0, 1.5, 2.0, 2.4, 3.0, 5.0])
@pytest.mark.parametrize("phase", [0.0, 0.25, 0.5, 0.75, 0.95])
def test_zero_follows_a_link_that_broke_before_the_stop(seconds: float, phase: float) -> None:
    bench = Bench()
    bench.run(1.0 + phase)
    bench.connected = False
    bench.run()
    bench.twist = (0.0,) * 6
    bench.run(seconds)
    bench.connected = True
    zeros = bench.run(3.5)
    assert zeros and not moving(zeros) and bench.run(2.0) == []
    if seconds > HEARTBEAT_TIMEOUT + 1.0:
        assert len(zeros) * PERIOD >= SETPOINT_SECONDS - seconds - PERIOD


def test_gimbal_gets_its_zero_in_every_mode_and_however_late() -> None:
    bench = Bench(gimbal=True)
    bench.twist = TURNING
    assert moving(bench.run(1.0))
    bench.change(mode=LOITER)
    zeros = bench.run(2.1)
    assert zeros and not moving(zeros) and bench.run(2.0) == []
    bench.change(mode=GUIDED)
    assert moving(bench.run(1.0))
    bench.twist = None
    bench.pause(60.0)
    zeros = bench.run(2.1)
    assert zeros and not moving(zeros) and bench.run(2.0) == []


@pytest.mark.parametrize("options", [{}, {"gimbal": True}], ids=["vehicle", "gimbal"])
def test_what_waits_in_the_link_at_the_end_is_sent_only_if_a_zero_is_last_in_it(options: dict[str, bool]) -> None:
    def taken(connected: bool) -> bool:
        bench = Bench(**options)
        assert bench.control.at_rest, "nothing has moved"
        bench.twist = TURNING
        assert moving(bench.run(1.3)) and not bench.control.at_rest
        bench.connected = connected
        assert bool(bench.control.close(lambda seconds: bench.run(seconds) and None)) != connected
        return bench.control.at_rest

    assert taken(True) and not taken(False)
    bench = Bench(**options)
    bench.twist = TURNING
    bench.run(1.3)
    bench.connected = False
    bench.twist = (0.0,) * 6
    bench.run(9.0)
    assert not bench.control.at_rest, "however long ago it moved"


def test_zero_reaches_the_autopilot_after_a_reconnection() -> None:
    control: AutopilotControl
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        link = MavlinkLink(
            f"tcp:127.0.0.1:{port}", 57600, 7, 100, receive=lambda one: control.on_message(one), tick=int, log=str
        )
        control = AutopilotControl(7, 100, link.send)
        link.start()
        try:
            assert any(map(moves, heard_by_autopilot(server, control, FORWARD, 0.5)))
            server.close()
            end = time.monotonic() + STOP_SECONDS + 0.3
            while time.monotonic() < end:
                control.on_command((0.0,) * 6, steady_seconds())
                control.tick()
                time.sleep(PERIOD)
            with socket.create_server(("127.0.0.1", port)) as again:
                after = heard_by_autopilot(again, control, (0.0,) * 6, 0.5)
            assert after and not moving(after)
        finally:
            assert link.close()


def heard_by_autopilot(
    server: socket.socket, control: AutopilotControl, twist: tuple[float, ...], seconds: float
) -> list[Any]:
    """Play an autopilot behind a socket for a while after the node has connected; return what it has heard."""
    codec, heard = common.MAVLink(None, srcSystem=7, srcComponent=1), []
    codec.robust_parsing = True
    server.settimeout(10.0)
    with server.accept()[0] as stream:
        for mode in (LOITER, GUIDED):
            beat = common.MAVLink_heartbeat_message(QUADROTOR, 3, ARMED | 1, mode, common.MAV_STATE_ACTIVE, 3)
            stream.sendall(beat.pack(codec))
        stream.settimeout(PERIOD)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            control.on_command(twist, steady_seconds())
            control.tick()
            with contextlib.suppress(TimeoutError):
                heard += codec.parse_buffer(stream.recv(4096)) or []
    return [one for one in heard if one.get_type() == "SET_POSITION_TARGET_LOCAL_NED"]


@pytest.mark.parametrize("gimbal", [True, False])
@pytest.mark.parametrize("every", [2, 20])
def test_zeros_end_over_a_link_that_drops_some(every: int, gimbal: bool) -> None:
    bench = Bench(gimbal=gimbal)
    bench.twist = (1.0, 0.0, 0.0, 0.0, 0.2, 0.3)
    assert moving(bench.run(1.0))
    count, taken = itertools.count(), bench._send
    bench.control._send = lambda message: next(count) % every != 0 and taken(message)
    bench.twist = (0.0,) * 6
    assert bench.run(4.0) and not bench.run(2.0)


def test_a_zero_that_no_link_took_is_sent_when_one_does() -> None:
    bench = Bench(gimbal=True)
    bench.twist = (0.0, 0.0, 0.0, 0.0, 0.2, 0.3)
    bench.run(1.0)
    bench.twist, taken = (0.0,) * 6, bench._send
    bench.control._send = lambda message: False
    bench.run(5.0)
    bench.control._send = taken
    after = bench.run(1.0)
    assert after and not moving(after) and not bench.run(4.0)[60:]


def test_zero_ends_without_an_autopilot() -> None:
    bench = Bench()
    bench.run(1.0)
    bench.beats = False
    bench.twist = (0.0,) * 6
    assert len(bench.run(20.0)) * PERIOD <= SETPOINT_SECONDS
    bench = Bench()
    bench.run(1.0)
    bench.twist = None
    bench.pause(SETPOINT_SECONDS + 0.1)
    assert bench.run(5.0) == [], "ArduPilot has stopped by itself, and may have another command"


def test_motion_sent_after_a_pause_is_followed_by_zero() -> None:
    bench, paused = Bench(), []
    bench.run(1.0)
    send = bench.sent.append

    def late(message: Any) -> bool:  # the process is stopped between the decision and the sending
        if not paused:
            paused.append(True)
            bench.pause(20.0)
        send(message)
        return True

    bench.control = AutopilotControl(7, 100, late, clock=lambda: bench.now)
    bench.change(mode=LOITER)
    bench.change(mode=GUIDED)
    sent = bench.run(1.0)
    assert len(moving(sent)) == 1 and sent[0] in moving(sent) and len(sent) >= 10


def test_silent_follower_stops_the_vehicle() -> None:
    bench = Bench(command_timeout=0.25)
    bench.run(1.0)
    bench.twist = None
    after = bench.run(3.0)
    assert len(moving(after)) <= 0.25 / PERIOD and not moving(after[-1:]) and "no command" in bench.control.refusal()


def test_command_of_unknown_age_moves_nothing() -> None:
    bench = Bench()
    bench.twist = None
    bench.run()
    bench.control.on_command(FORWARD, math.nan)
    bench.control.tick()
    assert bench.sent == []


@pytest.mark.parametrize("age", [3600.0, 0.26, -0.11, -86400.0, 1.8e9, math.nan, math.inf])
@pytest.mark.parametrize("options", [{}, {"px4": True}, {"gimbal": True, "any_mode": True}], ids=str)
def test_command_with_a_stamp_of_another_time_moves_nothing(options: dict[str, Any], age: float) -> None:
    """It is sent now, as a bag's is that is replayed."""
    bench = Bench(command_timeout=0.25, **options)
    bench.twist, bench.age = (1.0, 0.0, 0.0, 0.0, 0.2, 0.3), age
    assert not moving(bench.run(1.0)) and "is it a replay" in bench.control.refusal()
    for bench.age in (0.0, 0.24, -0.09):
        assert moving(bench.run(0.5)), bench.age
    bench.age = age
    assert not moving(bench.run(1.0))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -101.0])
def test_command_that_is_not_finite_is_zero(value: float) -> None:
    bench = Bench()
    bench.run(1.0)
    bench.twist = (value, *FORWARD[1:])
    assert not moving(bench.run(0.5))
    assert "above 100 m/s" in bench.control.refusal()
    bench.twist = FORWARD
    assert moving(bench.run(0.5)) and bench.control.refusal() == ""


def test_second_publisher_of_commands_stops_the_vehicle() -> None:
    bench = Bench()
    bench.run(1.0)
    assert not moving(bench.run(0.5, publishers=2))
    assert "2 nodes" in bench.control.refusal(2)


def test_lost_heartbeat_ends_it_until_the_mode_is_selected_anew() -> None:
    bench = Bench()
    bench.run(1.0)
    bench.beats = False
    after = bench.run(HEARTBEAT_TIMEOUT + 3.0)
    assert (
        len(moving(after)) <= HEARTBEAT_TIMEOUT / PERIOD
        and not moving(after[-1:])
        and "heartbeat" in (bench.control.refusal())
    )
    bench.beats = True
    assert not moving(bench.run(3.0)) and bench.run(1.0) == [] and "was lost" in bench.control.refusal()
    bench.change(mode=LOITER)
    bench.change(mode=GUIDED)
    assert moving(bench.run(0.5))


@pytest.mark.parametrize("options", [{}, {"px4": True}, {"kind": ROVER}, {"gimbal": True}], ids=str)
@pytest.mark.parametrize("act", ["mode", "arming"])
def test_vehicle_found_armed_in_the_mode_is_not_moved(options: dict[str, Any], act: str) -> None:
    """A person has not asked this node for it, which may have been started anew while a follower was enabled."""
    bench = Bench(watched=False, **options)
    bench.twist = (1.0, 0.0, 0.0, 0.0, 0.2, 0.3)
    bench.mode = mode = ROVER_GUIDED if bench.kind == ROVER else bench.mode
    assert not any(map(moves, bench.run(3.0))) and "before this node heard it" in bench.control.refusal()
    bench.beats = False
    bench.run(HEARTBEAT_TIMEOUT + 1.0)
    bench.beats = True
    assert not any(map(moves, bench.run(3.0))) and "was lost" in bench.control.refusal()
    if act == "mode":
        bench.change(mode=LOITER)
        bench.change(mode=mode)
    else:
        bench.change(flags=1)
        bench.change(flags=ARMED | 1)
    assert any(map(moves, bench.run(0.5)))


@pytest.mark.parametrize(("system", "component"), [(8, 1), (7, 2), (7, 100), (255, 190)])
def test_heartbeat_of_another_sender_does_not_count(system: int, component: int) -> None:
    bench = Bench(watched=False)
    bench.beats = False
    for _ in range(20):
        bench.heartbeat(system, component)
        assert bench.run() == []
    assert "no heartbeat" in bench.control.refusal()


@pytest.mark.parametrize(("state", "moves"), [(0, True), (1, False), (2, True), (3, False), (4, False)])
def test_vehicle_on_the_ground_is_not_steered(state: int, moves: bool) -> None:
    bench = Bench()
    bench.receive(common.MAVLink_extended_sys_state_message(0, state))
    assert bool(moving(bench.run(0.5))) is moves


def test_px4_gets_zero_until_a_person_selects_offboard() -> None:
    bench = Bench(px4=True)
    bench.mode = POSCTL
    before = bench.run(2.0)
    assert len(before) == 2.0 / PERIOD and not moving(before), "PX4 enters OFFBOARD only while setpoints come"
    bench.change(mode=OFFBOARD)
    assert moving(bench.run(0.5))
    bench.twist = (0.0,) * 6
    hold = bench.run(5.0)
    assert len(hold) == 5.0 / PERIOD and not moving(hold), "without setpoints PX4 leaves OFFBOARD"
    bench.twist = None
    bench.run(2.0)
    assert bench.run(2.0) == [], "the follower is dead: PX4's failsafe acts"


def test_px4_with_a_gimbal_keeps_the_vehicle_still() -> None:
    bench = Bench(px4=True, gimbal=True)
    bench.twist = TURNING
    sent = bench.run(0.5)
    setpoints = [one for one in sent if one.get_type() == "SET_POSITION_TARGET_LOCAL_NED"]
    assert len(setpoints) == 0.5 / PERIOD and not moving(setpoints)
    assert any(one.get_type() == "GIMBAL_MANAGER_SET_PITCHYAW" for one in sent)


@pytest.mark.parametrize("options", [{}, {"px4": True}, {"gimbal": True}, {"gimbal": True, "any_mode": True}], ids=str)
@pytest.mark.parametrize("since", [0.0, 0.3, 1.2], ids="still for {} s".format)
def test_node_that_ends_sends_several_zeros(options: dict[str, Any], since: float) -> None:
    """Any one of them may be lost; the last ones come while no heartbeat does."""
    bench = Bench(**options)
    bench.twist = (1.0, 0.0, 0.0, 0.0, 0.2, 0.3)
    bench.run(1.0)
    bench.beats, bench.twist = since == 0.0, bench.twist if since == 0.0 else None
    bench.run(since)
    before, begin = len(bench.sent), bench.now
    bench.control.close(lambda seconds: vars(bench).update(now=bench.now + seconds))
    zeros = bench.sent[before:]
    assert len(zeros) == 5 and not moving(zeros) and bench.now - begin <= 0.3
    assert bench.run(3.0) == []


@pytest.mark.parametrize("options", [{}, {"px4": True}, {"gimbal": True}, {"gimbal": True, "any_mode": True}], ids=str)
@pytest.mark.parametrize("fault", ["link", "heartbeat"])
@pytest.mark.parametrize("back", [0.1, 0.6, 9.0], ids="back after {} s".format)
def test_node_that_ends_tries_to_send_zeros_over_a_broken_link(
    options: dict[str, Any], fault: str, back: float
) -> None:
    bench = Bench(**options)
    bench.twist = (1.0, 0.0, 0.0, 0.0, 0.2, 0.3)
    bench.run(1.0)
    bench.beats = False
    bench.connected = fault != "link"
    bench.now += 3.0 if fault == "heartbeat" else 1.0
    before, begin = len(bench.sent), bench.now

    def wait(seconds: float) -> None:
        bench.now += seconds
        if bench.now >= begin + back:
            bench.connected = True
            bench.heartbeat()

    trouble, zeros = bench.control.close(wait), bench.sent[before:]
    assert not moving(zeros) and bench.now - begin <= 1.3
    if back < 1.0:
        assert len(zeros) >= 5 and not trouble
    else:
        assert bench.now - begin >= 1.2 and "may not have arrived" in trouble
        assert ("the link is broken" in trouble) is (fault == "link") and bool(zeros) is (fault != "link")


@pytest.mark.parametrize("gimbal", [False, True])
def test_node_that_ends_at_rest_sends_nothing_and_waits_for_nothing(gimbal: bool) -> None:
    for seconds in (0.0, 3.5):
        bench = Bench(gimbal=gimbal)
        bench.run(1.0 if seconds else 0.0)
        bench.twist = (0.0,) * 6
        bench.run(seconds)
        before = len(bench.sent)
        bench.control.close(lambda _: pytest.fail("it waits"))
        assert bench.sent[before:] == []


def test_no_message_arms_takes_off_or_changes_the_mode() -> None:
    kinds, commands = set(), set()
    for options in ({}, {"gimbal": True}, {"gimbal": True, "any_mode": True}):
        for px4 in (False, True):
            bench = Bench(px4=px4, **options)
            bench.twist = (1.0, 0.0, 0.0, 0.0, 0.2, 0.3)
            for mode in (LOITER, bench.mode, POSCTL):
                bench.change(mode=mode)
                kinds |= {one.get_type() for one in bench.run(1.0)}
                commands |= {one.command for one in bench.sent if one.get_type() == "COMMAND_LONG"}
    assert kinds == {"SET_POSITION_TARGET_LOCAL_NED", "GIMBAL_MANAGER_SET_PITCHYAW", "COMMAND_LONG"}
    assert commands == {common.MAV_CMD_DO_GIMBAL_MANAGER_CONFIGURE}
