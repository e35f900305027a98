# SPDX-License-Identifier: Apache-2.0
"""The newest image is skipped for the next one only if inference is slower than the camera, and never for long."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimp_ros.node.worker import LATE, WaitPolicy


def made(interval=0.1, duration=0.15, images=5):
    """Make a pace whose last image has come at time 0."""
    pace = WaitPolicy()
    for number in range(images):
        pace.arrived((number + 1 - images) * interval)
        pace.worked(duration)
    return pace


def test_the_next_image_is_waited_for_only_when_it_is_due_soon():
    pace = made()
    assert pace.wait_time(0.01, 0.5) == pace.wait_time(0.049, 0.5) == 0
    assert pace.wait_time(0.06, 0.5) == pytest.approx(0.04 + LATE * 0.1)
    assert pace.wait_time(0.06, 0.3) == 0 and pace.wait_time(0.01, 1.0) > 0.09


def test_an_image_that_is_overdue_is_not_waited_for():
    assert made().wait_time(0.11, 1.0) == 0
    assert made().wait_time(5.0, 1.0) == 0


def test_where_inference_keeps_up_every_image_is_used():
    assert made(duration=0.099).wait_time(0.09, 1.0) == 0


def test_one_slow_image_among_fast_ones_changes_nothing():
    pace = made(duration=0.05, images=8)
    pace.worked(3.0)
    assert pace.wait_time(0.09, 1.0) == 0


def test_no_wait_before_enough_is_known_or_if_switched_off():
    assert WaitPolicy().wait_time(0.0, 1.0) == 0
    assert made(images=2).wait_time(0.09, 1.0) == 0
    assert made().wait_time(0.09, 0.0) == 0


def ages(share, interval, duration, images=400):
    """Return the ages of images at the end of inference, and how many a second, of a worker with a pace."""
    pace, now, arrived, found = WaitPolicy(), 0.0, 0, []

    def receive(until):
        nonlocal arrived
        while arrived * interval <= until + 1e-12:
            pace.arrived(arrived * interval)
            arrived += 1

    used = -1
    while arrived < images:
        receive(now)
        if arrived - 1 == used:  # nothing new
            now = arrived * interval
            continue
        if pace.wait_time(now, share) > 0:
            now = arrived * interval
            receive(now)
        used = arrived - 1
        now += duration
        pace.worked(duration)
        found.append(now - used * interval)
    return np.array(found[10:]), len(found) / now


@given(st.floats(1.05, 6.0))
def test_waiting_gives_fresher_boxes_at_most_a_quarter_fewer(slower):
    """A duration of so many intervals; all in intervals."""
    with_wait, rate = ages(0.5, 1.0, slower)
    without, full = ages(0.0, 1.0, slower)
    assert with_wait.max() <= slower + 0.5 + 1e-6
    assert np.median(with_wait) <= slower + 0.5 and with_wait.mean() <= without.mean() + 1e-6
    assert rate > 0.74 * full
