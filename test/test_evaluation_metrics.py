# SPDX-License-Identifier: Apache-2.0
"""Success and precision against cases worked by hand."""

import numpy as np
import pytest

from dimp_ros.evaluation.metrics import annotated, center_error, overlap, precision, success_auc, success_curve

SQUARE = [0.0, 0.0, 10.0, 10.0]
HALF = [0.0, 0.0, 10.0, 5.0]
AWAY = [50.0, 0.0, 10.0, 10.0]
ABSENT = [np.nan] * 4


def test_perfect_track_scores_20_of_21_because_no_overlap_is_greater_than_1() -> None:
    truth = np.random.default_rng(0).uniform(1, 300, (2000, 4))  # fractions that do not add up exactly in binary

    assert success_auc(truth, truth) == pytest.approx(20 / 21, abs=1e-12)
    assert success_curve(truth, truth)[-1] == 0
    assert precision(truth, truth) == 1


def test_overlap_of_boxes_worked_by_hand() -> None:
    truth = [SQUARE] * 5
    predicted = [SQUARE, HALF, AWAY, [5.0, 5.0, 10.0, 10.0], [10.0, 0.0, 10.0, 10.0]]

    assert overlap(predicted, truth) == pytest.approx([1, 0.5, 0, 25 / 175, 0])


def test_overlap_equal_to_a_threshold_does_not_exceed_it() -> None:
    curve = success_curve([HALF], [SQUARE])

    assert curve.tolist() == [1.0] * 10 + [0.0] * 11  # 0 ... 0.45 pass, 0.5 does not
    assert success_curve([AWAY], [SQUARE])[0] == 0  # no overlap is not greater than 0


def test_every_annotated_frame_counts_and_the_first_one_too() -> None:
    assert success_auc([SQUARE, HALF], [SQUARE, SQUARE]) == pytest.approx((20 + 10) / 42)
    assert success_auc([SQUARE, AWAY], [SQUARE, SQUARE]) == pytest.approx(10 / 21)


@pytest.mark.parametrize("anything", [SQUARE, AWAY, ABSENT])
def test_frames_without_the_target_count_nowhere(anything: list[float]) -> None:
    truth = [SQUARE, ABSENT, SQUARE]
    predicted = [SQUARE, anything, AWAY]

    assert annotated(truth).tolist() == [True, False, True]
    assert success_auc(predicted, truth) == pytest.approx(10 / 21)
    assert precision(predicted, truth) == 0.5


def test_precision_counts_an_error_of_exactly_20_pixels() -> None:
    truth = [SQUARE] * 4
    predicted = [[20.0, 0.0, 10.0, 10.0], [12.0, 16.0, 10.0, 10.0], [20.01, 0.0, 10.0, 10.0], [18.0, -2.0, 14.0, 14.0]]

    assert center_error(predicted, truth) == pytest.approx([20, 20, 20.01, 20])
    assert precision(predicted, truth) == 0.75


def test_a_prediction_that_is_no_box_is_a_miss() -> None:
    for nothing in (ABSENT, [0.0, 0.0, 0.0, 0.0], [10.0, 10.0, -10.0, -10.0], [0.0, 0.0, np.inf, 10.0]):
        assert overlap([nothing], [SQUARE]).tolist() == [0]
    assert precision([ABSENT], [SQUARE]) == 0


def test_figures_are_refused_where_they_mean_nothing() -> None:
    with pytest.raises(ValueError, match="no annotated frame"):
        success_auc([SQUARE], [ABSENT])
    with pytest.raises(ValueError, match="no annotated frame"):
        precision([SQUARE], [ABSENT])
    with pytest.raises(ValueError, match="2 boxes for 1 frames"):
        overlap([SQUARE, SQUARE], [SQUARE])
    with pytest.raises(ValueError, match=r"\(4,\)"):
        overlap(SQUARE, SQUARE)
