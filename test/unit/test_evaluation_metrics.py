# SPDX-License-Identifier: Apache-2.0
"""Success and precision against hand-computed cases."""

import numpy as np
import pytest

from dimp_ros.evaluation.metrics import (
    annotated,
    center_error,
    counted_overlaps,
    normalized_error,
    normalized_precision,
    normalized_precision_curve,
    overlap,
    precision,
    precision_curve,
    success_auc,
    success_curve,
)

SQUARE = [0.0, 0.0, 10.0, 10.0]
HALF = [0.0, 0.0, 10.0, 5.0]
AWAY = [50.0, 0.0, 10.0, 10.0]
ABSENT = [np.nan] * 4


def test_perfect_track_has_auc_20_of_21() -> None:
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


def test_precision_curve_passes_through_p20() -> None:
    truth = [SQUARE] * 2
    predicted = [[3.0, 4.0, 10.0, 10.0], [30.0, 40.0, 10.0, 10.0]]  # 5 and 50 pixels away

    curve = precision_curve(predicted, truth)

    assert curve.tolist() == [0.0] * 5 + [0.5] * 45 + [1.0]
    assert precision(predicted, truth) == curve[20]


def test_normalised_error_is_in_units_of_the_true_box() -> None:
    truth = [[0.0, 0.0, 20.0, 10.0]] * 3
    predicted = [[6.0, 4.0, 20.0, 10.0], [6.0, 4.0, 200.0, 100.0], ABSENT]  # centres off by (6, 4) and (96, 49)

    assert normalized_error(predicted, truth) == pytest.approx([0.5, np.hypot(96 / 20, 49 / 10), np.inf])


def test_normalised_precision_is_the_area_up_to_half_a_target() -> None:
    assert normalized_precision([SQUARE], [SQUARE]) == 1
    assert normalized_precision([[2.5, 0.0, 10.0, 10.0]], [SQUARE]) == pytest.approx(26 / 51)  # 0.25 ... 0.5
    assert normalized_precision([AWAY], [SQUARE]) == 0
    assert normalized_precision_curve([SQUARE, AWAY, AWAY], [SQUARE, SQUARE, ABSENT]).tolist() == [0.5] * 51


def test_normalised_precision_is_scale_invariant() -> None:
    truth = np.random.default_rng(1).uniform(10, 90, (50, 4))
    predicted = truth + np.random.default_rng(2).normal(0, 8, (50, 4))

    assert normalized_precision(3 * predicted, 3 * truth) == pytest.approx(normalized_precision(predicted, truth))
    assert precision(3 * predicted, 3 * truth) < precision(predicted, truth)


def test_average_overlap_skips_first_and_absent_frames() -> None:
    overlaps = counted_overlaps([SQUARE, HALF, AWAY, SQUARE], [SQUARE, SQUARE, ABSENT, SQUARE])

    assert overlaps.tolist() == [0.5, 1.0]
    assert len(counted_overlaps([SQUARE], [SQUARE])) == 0
    assert counted_overlaps([AWAY, SQUARE], [ABSENT, SQUARE]).tolist() == [1.0]  # the first frame, not the first box


def test_average_overlap_clips_boxes_like_the_toolkit() -> None:
    truth = [SQUARE, [-5.0, 0.0, 10.0, 10.0], [15.0, 15.0, 10.0, 10.0], [25.0, 0.0, 5.0, 5.0]]
    predicted = [SQUARE, [0.0, 0.0, 10.0, 10.0], [15.0, 15.0, 5.0, 5.0], [25.0, 0.0, 5.0, 5.0]]

    # a corner outside moves onto the edge and keeps its side; a side ends at the edge; a box outside is empty
    assert counted_overlaps(predicted, truth, (20, 20)).tolist() == [1, 1, 0]
    assert counted_overlaps(predicted, truth)[:2].tolist() == pytest.approx([50 / 150, 25 / 100])
    # in 1-based coordinates the same image ends one pixel earlier
    assert counted_overlaps([SQUARE, [15.0, 0.0, 4.0, 9.0]], [SQUARE, [15.0, 0.0, 9.0, 9.0]], (20, 20), 1) == [1]
    assert counted_overlaps([SQUARE, [15.0, 0.0, 4.0, 9.0]], [SQUARE, [15.0, 0.0, 9.0, 9.0]], (20, 20), 0) == [0.8]


def test_invalid_predicted_box_is_a_miss() -> None:
    for nothing in (ABSENT, [0.0, 0.0, 0.0, 0.0], [10.0, 10.0, -10.0, -10.0], [0.0, 0.0, np.inf, 10.0]):
        assert overlap([nothing], [SQUARE]).tolist() == [0]
    assert precision([ABSENT], [SQUARE]) == 0


def test_figures_are_refused_where_they_mean_nothing() -> None:
    with pytest.raises(ValueError, match="no annotated frame"):
        success_auc([SQUARE], [ABSENT])
    with pytest.raises(ValueError, match="no annotated frame"):
        precision([SQUARE], [ABSENT])
    with pytest.raises(ValueError, match="no annotated frame"):
        normalized_precision([SQUARE], [ABSENT])
    with pytest.raises(ValueError, match="2 boxes for 1 frames"):
        overlap([SQUARE, SQUARE], [SQUARE])
    with pytest.raises(ValueError, match=r"\(4,\)"):
        overlap(SQUARE, SQUARE)
