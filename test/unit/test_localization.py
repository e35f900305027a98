# SPDX-License-Identifier: Apache-2.0
"""Localisation: each outcome, and the thresholds between them."""

import numpy as np
import pytest

from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.localization import Outcome, localize

CONFIG = TrackerConfig()
TARGET = (3.6, 3.6)  # cells
CENTRE = (9.0, 9.0)


def scores(*peaks):
    """Make a 19 x 19 score map that is zero but at ``(row, column, score)``."""
    values = np.zeros((19, 19), np.float32)
    for row, column, score in peaks:
        values[row, column] = score
    return values


def run(*peaks, last=CENTRE, config=CONFIG):
    return localize(scores(*peaks), TARGET, last, config)


def test_one_peak_is_normal_and_where_it_is():
    place = run((7, 12, 0.9))
    assert (place.outcome, place.cell, place.peak) == (Outcome.NORMAL, (7, 12), pytest.approx(0.9))
    assert place.distractor_ratio == 0


@pytest.mark.parametrize(("peak", "outcome"), [(0.249, Outcome.NOT_FOUND), (0.251, Outcome.NORMAL)])
def test_below_the_threshold_the_target_is_not_found(peak, outcome):
    assert run((9, 9, peak)).outcome is outcome


def test_scores_that_are_not_numbers_are_not_a_target():
    assert localize(np.full((19, 19), np.nan, np.float32), TARGET, CENTRE, CONFIG).outcome is Outcome.NOT_FOUND


def test_a_second_peak_close_to_the_first_is_the_same_target():
    assert run((9, 9, 0.9), (11, 11, 0.85)).outcome is Outcome.NORMAL
    assert run((9, 9, 0.9), (9, 14, 0.85)).outcome is not Outcome.NORMAL


def test_far_distractor_is_a_hard_negative_near_peak_is_taken():
    place = run((9, 10, 0.9), (1, 2, 0.85))
    assert (place.outcome, place.cell) == (Outcome.HARD_NEGATIVE, (9, 10))
    place = run((1, 2, 0.9), (9, 10, 0.85))
    assert (place.outcome, place.cell) == (Outcome.HARD_NEGATIVE, (9, 10))
    assert place.peak == pytest.approx(0.9)
    assert place.distractor_ratio == pytest.approx(0.85 / 0.9)


def test_distances_are_measured_from_where_the_target_was():
    assert run((1, 2, 0.9), (9, 10, 0.85), last=(1.0, 2.0)).cell == (1, 2)


def test_two_peaks_both_near_or_both_far_are_uncertain():
    near = run((9, 6, 0.9), (9, 12, 0.85))
    assert (near.outcome, near.cell) == (Outcome.UNCERTAIN, (9, 6))
    assert run((0, 0, 0.9), (18, 18, 0.85)).outcome is Outcome.UNCERTAIN


def test_a_weaker_distractor_is_learned_as_background():
    assert run((9, 9, 0.9), (2, 2, 0.6)).outcome is Outcome.HARD_NEGATIVE
    assert run((9, 9, 0.9), (2, 2, 0.4)).outcome is Outcome.NORMAL


def test_distractor_below_not_found_threshold_is_ignored():
    assert run((9, 9, 0.4), (2, 2, 0.24)).outcome is Outcome.NORMAL
    assert run((9, 9, 0.4), (2, 2, 0.26)).outcome is Outcome.HARD_NEGATIVE


def test_the_whole_map_may_belong_to_a_large_target():
    place = localize(scores((9, 9, 0.9), (0, 0, 0.89)), (40.0, 40.0), CENTRE, CONFIG)
    assert place.outcome is Outcome.NORMAL
    assert place.distractor_ratio == 0
