# SPDX-License-Identifier: Apache-2.0
"""Metrics of a closed loop, from recordings with known metrics."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest

from dimp_ros.apps.simulator.metrics import CommandRecord, ErrorRecord, LoopFigures, LoopRecording, StateRecord

os.environ.setdefault("MPLBACKEND", "Agg")
STILL, MOVING = (0.0,) * 6, (0.0, 0.0, 0.0, 0.0, 0.0, 0.2)


def recording(
    x: list[tuple[float, float]], *, hidden: tuple[float, float] = (0.0, 0.0), killed: float | None = None
) -> LoopRecording:
    """Return 10 seconds, ten images a second, with the error across as a function of time given by its corners.

    While the target is ``hidden``, the tracker says so 0.1 s later, and the command is zero 0.2 s later; after the end
    of it likewise. After ``killed`` the command is zero from 0.4 s on.
    """
    result = LoopRecording((200, 100), killed=killed)
    for tick in range(100):
        time = tick / 10
        error = float(np.interp(time, *zip(*x, strict=True)))
        seen = not hidden[0] <= time < hidden[1]
        result.errors.append(ErrorRecord(time, error, 0.0, 1.0 if seen else 0.0))
        lost = hidden[0] + 0.1 <= time + 1e-9 < hidden[1] + 0.1
        result.states.append(StateRecord(time, "LOST" if lost else "TRACKING", 0.0 if lost else 0.9, 0.05))
        stopped = hidden[0] + 0.2 <= time + 1e-9 < hidden[1] + 0.2
        stopped |= killed is not None and time + 1e-9 >= killed + 0.4
        result.commands.append(CommandRecord(time, STILL if stopped else MOVING))
    return result


def test_a_loop_has_settled_when_the_target_stays_in_the_band():
    figures = LoopFigures.of(recording([(0.0, 0.4), (2.0, 0.05), (10.0, 0.05)]))
    assert figures.settling_seconds == pytest.approx(1.8, abs=0.11)
    assert figures.within_share == 1.0 and figures.median_error == 0.05
    assert figures.final_error_px == pytest.approx(0.05 * 200)
    assert figures.losses == 0 and figures.stop_seconds is None and figures.kill_stop_seconds is None
    assert figures.age_ms_median == 50.0


def test_passing_through_the_band_is_not_settling():
    figures = LoopFigures.of(recording([(0.0, 0.4), (1.0, -0.4), (4.0, -0.4), (5.0, 0.0), (10.0, 0.0)]))
    assert figures.settling_seconds == pytest.approx(4.8, abs=0.11)


def test_images_outside_of_the_band_after_settling_count():
    figures = LoopFigures.of(recording([(0.0, 0.0), (5.95, 0.0), (5.96, 0.2), (7.95, 0.2), (7.96, 0.0), (10.0, 0.0)]))
    assert figures.settling_seconds == 0.0 and figures.within_share == pytest.approx(0.8)


def test_a_target_that_never_gets_there_has_no_share():
    figures = LoopFigures.of(recording([(0.0, 0.3), (10.0, 0.3)]))
    assert figures.settling_seconds is None and figures.within_share is None
    assert figures.final_error_px == pytest.approx(60.0)


def test_hidden_time_is_not_counted_but_stop_is_measured():
    corners = [(0.0, 0.0), (4.0, 0.0), (5.0, 0.4), (6.0, 0.4), (7.0, 0.0), (10.0, 0.0)]
    figures = LoopFigures.of(recording(corners, hidden=(4.0, 6.0)))
    assert figures.losses == 1
    assert figures.stop_seconds == pytest.approx(0.1) and figures.stop_after_hiding_seconds == pytest.approx(0.2)
    assert figures.resume_seconds == pytest.approx(0.1)
    assert figures.resettling_seconds == pytest.approx(0.7, abs=0.11)
    assert figures.within_share == 1.0


def test_target_at_rest_on_its_set_point_needs_no_motion():
    resting = recording([(0.0, 0.01), (10.0, 0.01)], hidden=(4.0, 6.0))
    resting.commands = [CommandRecord(one.time, STILL) for one in resting.commands]
    assert LoopFigures.of(resting).resume_seconds is None
    wandering = recording([(0.0, 0.01), (6.0, 0.01), (10.0, 0.09)], hidden=(4.0, 6.0))
    wandering.commands = [CommandRecord(one.time, STILL) for one in wandering.commands]
    assert LoopFigures.of(wandering).resume_seconds == math.inf


def test_lasting_command_is_reported_as_an_endless_stop():
    endless = recording([(0.0, 0.0), (10.0, 0.0)], hidden=(4.0, 9.0))
    endless.commands = [CommandRecord(one.time, MOVING) for one in endless.commands]
    assert LoopFigures.of(endless).stop_seconds == math.inf


def test_the_stop_after_a_kill_is_the_last_one():
    figures = LoopFigures.of(recording([(0.0, 0.0), (10.0, 0.0)], killed=8.0))
    assert figures.kill_stop_seconds == pytest.approx(0.4)
    relapse = recording([(0.0, 0.0), (10.0, 0.0)], killed=8.0)
    relapse.commands[95] = CommandRecord(9.5, MOVING)
    assert LoopFigures.of(relapse).kill_stop_seconds == pytest.approx(1.6)
    relapse.commands[99] = CommandRecord(9.9, MOVING)
    assert LoopFigures.of(relapse).kill_stop_seconds == math.inf


def test_final_error_is_split_between_controller_and_tracker():
    one = recording([(0.0, 0.03), (10.0, 0.03)])
    one.states = [said._replace(x=0.01, y=0.0) for said in one.states]  # 4 px to the left of where the target is
    for index, said in enumerate(one.states):  # as ROS has it: ages in seven digits, the image's time by its stamp
        one.states[index] = said._replace(time=said.time + 0.05 + 1e-8)
    figures = LoopFigures.of(one)
    assert figures.final_error_px == pytest.approx(6.0) and figures.final_seen_error_px == pytest.approx(2.0)
    assert figures.final_box_error_px == pytest.approx(4.0)
    one.states = [said._replace(x=math.nan, y=math.nan) for said in one.states]
    assert LoopFigures.of(one).final_seen_error_px is None and LoopFigures.of(one).final_box_error_px is None


def test_an_empty_recording_has_no_figures():
    figures = LoopFigures.of(LoopRecording((200, 100)))
    assert figures.settling_seconds is None and figures.final_error_px is None and figures.age_ms_median is None


@pytest.mark.parametrize("mode", ["vehicle", "arm"])
def test_a_plot_shows_all_that_was_recorded(mode: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: plots need it")
    import cv2

    from dimp_ros.apps.simulator.plots import plot_loop

    corners = [(0.0, 0.4), (2.0, 0.0), (10.0, 0.0)]
    pictures = []
    for name, hidden in (("plain", (0.0, 0.0)), ("hidden", (4.0, 6.0))):
        one = recording(corners, hidden=hidden)
        plot_loop(one, LoopFigures.of(one), tmp_path / "new" / f"{name}.png", mode=mode, title=name)
        pictures.append(cv2.imread(str(tmp_path / "new" / f"{name}.png")))
    assert pictures[0].shape == pictures[1].shape and (pictures[0] != pictures[1]).any()


def test_images_of_times_without_recent_states_do_not_count():
    one = recording([(0.0, 0.0), (5.0, 0.0), (5.01, 0.3), (6.0, 0.3), (6.01, 0.0), (10.0, 0.0)])
    assert LoopFigures.of(one).within_share == pytest.approx(0.9, abs=0.02)
    one.states = [said for said in one.states if not 4.7 < said.time < 5.9]
    figures = LoopFigures.of(one)
    assert figures.within_share == 1.0
    assert figures.uninformed_share == pytest.approx(0.15, abs=0.03)


def test_forward_acceleration_is_the_deviation_of_the_change():
    one = recording([(0.0, 0.0), (10.0, 0.0)])
    assert LoopFigures.of(one).forward_acceleration == 0.0
    one.commands = [CommandRecord(tick / 10, (0.1 * (tick % 2), 0.0, 0.0, 0.0, 0.0, 0.0)) for tick in range(100)]
    assert LoopFigures.of(one).forward_acceleration == pytest.approx(1.0, abs=0.01)
