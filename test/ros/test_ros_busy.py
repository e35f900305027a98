# SPDX-License-Identifier: Apache-2.0
"""Ages on a busy machine: the figures of a stream, and what is wanted of them."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")
from benchmark.busy import acceptance_criteria, summarize, text


def images(ages):
    return [{"age": age, "inference": 20.0} for age in ages]


def test_growing_and_late_ages_are_not_met():
    steady = summarize(0, 2, 3.0, 45, images([40.0] * 30))
    late = summarize(1, 2, 3.0, 45, images([40.0, 160.0] * 15))
    queued = summarize(2, 2, 3.0, 45, images([float(10 * n) for n in range(30)]))
    assert steady.published == 30 and steady.processed == 30 and steady.age_ms == (40.0, 40.0, 40.0)
    assert [[goal.met for goal in acceptance_criteria([run])] for run in (steady, late, queued)] == [
        [True, True],
        [False, True],
        [False, False],
    ]
    assert "| 0 | 2 | 0.60, 0.60, 0.60 | 20.0 | 30 of 30 | 3.0 |" in text([steady])


def test_a_stream_without_results_is_an_error():
    with pytest.raises(RuntimeError, match="0 of 45 images"):
        summarize(0, 2, 3.0, 45, [])
