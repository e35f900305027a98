# SPDX-License-Identifier: Apache-2.0
"""Evaluation of confidence: metrics against brute force, targets that are hidden, and the command."""

import dataclasses
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.evaluation.confidence import cli as confidence
from dimp_ros.evaluation.confidence import occlusion
from dimp_ros.evaluation.confidence.metrics import (
    FrameLabels,
    alarms,
    auroc,
    brier_score,
    calibration_error,
    label_frames,
    pool,
    quantile,
    reactions,
    reliability,
)
from dimp_ros.evaluation.confidence.occlusion import (
    HiddenSequence,
    covered,
    find_cover_patch,
    hide,
    intervals,
    with_absences,
)
from dimp_ros.evaluation.confidence.report import summarize, table
from dimp_ros.evaluation.layouts.registry import load_sequences
from dimp_ros.evaluation.runner import SequenceResult
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.geometry.box import Box

SEQUENCES = Path(__file__).parents[3] / "shared" / "data" / "sequences"
NAN = math.nan


# Ranking and calibration


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=2, max_size=30))
def test_auroc_is_the_share_of_ordered_pairs(frames):
    right = [score for score, event in frames if event]
    wrong = [score for score, event in frames if not event]
    value = auroc([score for score, _ in frames], [event for _, event in frames])
    if not right or not wrong:
        assert math.isnan(value)
    else:
        pairs = [(a > b) + 0.5 * (a == b) for a in right for b in wrong]
        assert value == pytest.approx(np.mean(pairs))


def test_calibration_error_and_brier_score_by_hand():
    # Bin 0.2-0.3: mean confidence 0.25, half right; bin 0.9-1: mean 0.95, all right.
    sure, right = [0.2, 0.29, 0.22, 0.29, 0.9, 1.0], [True, False, True, False, True, True]
    assert calibration_error(sure, right) == pytest.approx((4 * 0.25 + 2 * 0.05) / 6)
    assert brier_score([0.2, 1.0], [True, False]) == pytest.approx((0.64 + 1.0) / 2)
    first, last = reliability(sure, right)
    assert (first.low, first.high, first.count, first.right) == (0.2, 0.3, 4, 0.5)
    assert (last.count, last.confidence, last.right) == (2, pytest.approx(0.95), 1.0)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_true_probabilities_have_little_calibration_error(seed):
    rng = np.random.default_rng(seed)
    sure = rng.random(20_000)
    assert calibration_error(sure, rng.random(20_000) < sure) < 0.02
    assert calibration_error(sure, rng.random(20_000) < sure**3) > 0.1


def test_a_confidence_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match=r"0\.\.1, got -0\.1 to 1\.0"):
        reliability([-0.1, 1.0], [True, False])


# False alarms and reactions


def _judged(present, right, found, confidence=None):
    bits = [np.array([c == "1" for c in text]) for text in (present, right, found)]
    return FrameLabels(*bits, np.full(len(present), NAN) if confidence is None else np.array(confidence))


def test_false_alarms_and_misses_are_shares_of_their_frames():
    #              present       right         found
    track = _judged("1111110000", "1111000000", "1101101000")
    figures = alarms(track)
    assert figures.missed == pytest.approx(1 / 4)
    assert figures.misplaced == pytest.approx(1 / 2)
    assert figures.absent == pytest.approx(1 / 4)
    assert math.isnan(alarms(_judged("11", "11", "11")).absent)


def test_a_threshold_replaces_what_the_tracker_calls_found():
    track = _judged("1110", "1110", "1111", [0.9, 0.5, 0.4, NAN]).at_threshold(0.5)
    assert track.found.tolist() == [True, True, False, False]


def test_reactions_count_from_start_and_end_of_an_absence():
    #                          1111111
    #                01234567890123456
    track = _judged("11100001111001110", "11100000011001110", "11110000011110111")
    figures = reactions(track)
    # Gone in 3-6: found once more, then LOST. Back in 7, the box on it from 9. Gone in 11-12: found all the time.
    # Back in 13, where it is not found, on it from 14. Gone in 16, the last frame.
    assert figures.lost_after == [1.0, math.inf, math.inf]
    assert figures.regained_after[:2] == [2.0, 1.0] and math.isnan(figures.regained_after[2])


def test_absence_does_not_count_if_the_tracker_was_off_target():
    assert reactions(_judged("1100011", "1000011", "1100011")).lost_after == []
    assert reactions(_judged("1100011", "1100011", "1000011")).lost_after == []


def test_a_quantile_is_a_value_that_so_many_do_not_exceed():
    assert quantile([3.0, 1.0, 2.0, math.inf], 0.5) == 2.0
    assert quantile([3.0, 1.0, 2.0, math.inf], 0.9) == math.inf
    assert quantile([1.0, NAN], 0.9) == 1.0
    assert math.isnan(quantile([NAN], 0.5))


def test_first_frame_and_absent_targets_are_never_right(tmp_path):
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [NAN] * 4, [0, 0, 10, 10]], dtype=float)
    sequence = VideoSequence("s", tuple(tmp_path / str(i) for i in range(4)), boxes)
    near, far = Box(1, 1, 10, 10), Box(6, 6, 10, 10)
    result = SequenceResult("t", "s", [near, near, near, far], [True] * 4, [None, 0.9, 0.2, None], [1.0] * 4)
    track = label_frames(result, sequence)
    assert track.present.tolist() == [True, False, True]
    assert track.right.tolist() == [True, False, False]
    assert track.confidence[:2].tolist() == [0.9, 0.2] and math.isnan(track.confidence[2])
    assert len(pool([track, track]).right) == 6


def test_tracker_without_confidence_has_no_auroc(tmp_path):
    boxes = np.array([[0, 0, 10, 10]] * 2 + [[NAN] * 4] * 2, dtype=float)
    sequence = VideoSequence("s", tuple(tmp_path / str(i) for i in range(4)), boxes)
    result = SequenceResult("kcf", "s", [Box(0, 0, 10, 10)] * 4, [True] * 4, [None] * 4, [1.0] * 4)
    (figures,) = summarize([result], [sequence])
    assert figures.default.absent == 1.0
    assert math.isnan(figures.auroc) and figures.bins == []
    assert "| never |" in table([figures]).replace("  ", " ").replace("  ", " ")


# Hiding

GROUND = cv2.resize(
    np.random.default_rng(3).integers(60, 190, (30, 40, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC
)
TARGET = cv2.resize(
    np.random.default_rng(4).integers(0, 255, (5, 4, 3), dtype=np.uint8), (32, 40), interpolation=cv2.INTER_NEAREST
)


def _frame(x, y):
    image = GROUND.copy()
    image[y : y + 40, x : x + 32] = TARGET
    return image


def _likeness(image, template):
    """Return the highest correlation of the template anywhere in the image."""
    return float(cv2.matchTemplate(image, template, cv2.TM_CCOEFF_NORMED).max())


@given(st.integers(0, 320 - 32), st.integers(0, 240 - 40))
@settings(max_examples=12, deadline=None)
def test_a_hidden_target_is_not_found_any_more_wherever_it_was(x, y):
    image, box = _frame(x, y), Box(x, y, 32, 40)
    source = find_cover_patch(image, box)
    hidden = hide(image, box, source)
    assert _likeness(image, TARGET) > 0.999
    assert _likeness(hidden, TARGET) < 0.6
    assert (np.abs(hidden[y : y + 40, x : x + 32].astype(int) - TARGET).max(-1) > 8).mean() > 0.8


def test_only_box_and_margin_are_covered_with_texture():
    image, box = _frame(140, 100), Box(140, 100, 32, 40)
    before = image.copy()
    hidden = hide(image, box, find_cover_patch(image, box))
    x0, y0, x1, y1 = covered(box, 320, 240)
    outside = np.ones(image.shape[:2], bool)
    outside[y0:y1, x0:x1] = False
    assert (hidden[outside] == before[outside]).all()
    assert (image == before).all()
    ground = GROUND[100:140, 140:172].std()
    assert 0.5 * ground < hidden[100:140, 140:172].std() < 2 * ground


def test_cover_of_a_uniform_image_is_invisible():
    stripes = np.zeros((200, 300, 3), np.uint8) + np.linspace(60, 180, 200).astype(np.uint8)[:, None, None]
    image = stripes.copy()
    cv2.circle(image, (150, 100), 18, (0, 0, 255), -1)
    box = Box(132, 82, 36, 36)
    assert np.abs(hide(image, box, find_cover_patch(image, box)).astype(int) - stripes).max() <= 3


def test_another_object_like_the_target_never_covers_it():
    image = _frame(60, 100)
    image[100:140, 180:212] = TARGET
    box = Box(60, 100, 32, 40)
    hidden = hide(image, box, find_cover_patch(image, box))
    assert _likeness(hidden[80:160, 40:112], TARGET) < 0.6


def test_the_source_stays_from_frame_to_frame_while_it_fits():
    first = find_cover_patch(_frame(140, 100), Box(140, 100, 32, 40))
    assert find_cover_patch(_frame(140, 100), Box(140, 100, 32, 40), first) == first
    # At the image's edge the same offset would leave it.
    x = 0 if first.dx < 0 else 320 - 32
    y = 0 if first.dy < 0 else 240 - 40
    assert find_cover_patch(_frame(x, y), Box(x, y, 32, 40), first) != first


def test_a_target_that_fills_the_image_cannot_be_hidden():
    assert find_cover_patch(GROUND, Box(20, 20, 260, 200)) is None


def test_hidden_intervals_leave_visible_frames_between():
    assert intervals(49) == ()
    assert intervals(50) == ((30, 40),)
    assert intervals(200) == ((30, 40), (70, 90), (120, 160))
    for length in range(300):
        ends = [0, *(end for _, end in intervals(length))]
        assert all(first - end >= 30 for (first, _), end in zip(intervals(length), ends[:-1], strict=True))
        assert ends[-1] == 0 or length - ends[-1] >= 10


def _write_sequence(folder, name, absent=(), length=60):
    (folder / name / "img").mkdir(parents=True)
    lines = []
    for i in range(length):
        x, y = 100 + i, 90 + i // 2
        cv2.imwrite(str(folder / name / "img" / f"{i:04d}.png"), GROUND if i in absent else _frame(x, y))
        lines.append("nan,nan,nan,nan" if i in absent else f"{x},{y},32,40")
    (folder / name / "groundtruth.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sequences")
    _write_sequence(folder, "leaves", absent=range(8, 11), length=14)
    _write_sequence(folder, "stays")
    _write_sequence(folder, "brief", length=18)
    return folder


def test_target_is_hidden_only_in_sequences_without_absences(sequences):
    brief, leaves, stays = (with_absences(sequence) for sequence in load_sequences(sequences))
    assert brief is None
    assert leaves.name == "leaves" and not isinstance(leaves, HiddenSequence)
    assert isinstance(stays, HiddenSequence) and stays.name.startswith("stays.hidden-")
    absent = np.isnan(stays.boxes).all(1)
    assert np.flatnonzero(absent).tolist() == list(range(30, 40))
    for index in (0, 29, 40, 59):
        assert _likeness(stays.image(index), TARGET) > 0.999
    for index in (30, 35, 39):
        assert _likeness(stays.image(index), TARGET) < 0.6
        assert (stays.image(index) == stays.image(index)).all()
    again = with_absences(load_sequences(sequences, ["stays"])[0])
    assert again.name == stays.name and again.covers == stays.covers


@pytest.mark.skipif(not SEQUENCES.is_dir(), reason="the annotated sequences are not here")
def test_unknown_frames_are_no_absences(sequences):
    (stays,) = load_sequences(sequences, ["stays"])
    boxes = stays.boxes.copy()
    boxes[50] = np.nan
    known = with_absences(dataclasses.replace(stays, boxes=boxes, gaps_unknown=True))
    assert len(known) == 50 and np.flatnonzero(np.isnan(known.boxes).all(1)).tolist() == list(range(30, 40))
    assert with_absences(dataclasses.replace(stays, boxes=boxes)).boxes is boxes
    boxes[20] = np.nan  # what is left is too short
    assert with_absences(dataclasses.replace(stays, boxes=boxes, gaps_unknown=True)) is None


def test_a_real_target_is_gone_while_it_is_hidden():
    (sequence,) = load_sequences(SEQUENCES, ["vot_bag"])
    hidden = with_absences(sequence)
    for index in sorted(hidden.covers)[::10]:
        x, y, w, h = (round(value) for value in sequence.boxes[index])
        template = sequence.image(index)[y : y + h, x : x + w]
        near = (slice(max(y - h, 0), y + 2 * h), slice(max(x - w, 0), x + 2 * w))
        assert _likeness(sequence.image(index)[near], template) > 0.99
        assert _likeness(hidden.image(index)[near], template) < 0.6


# The command


def test_confidence_command_measures_and_resumes(sequences, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    for name, value in (("VISIBLE_FRAMES", 8), ("HIDDEN_FRAMES", (5,)), ("LEAST_RETURN", 5)):
        monkeypatch.setattr(occlusion, name, value)
    wanted = ["--sequences", str(sequences), "--only", "brief,leaves", "--trackers", "dimp_lite", "--device", "cpu"]
    wanted += ["--jobs", "1", "--out", str(tmp_path)]
    assert confidence.main([*wanted, "--sheets"]) == 0
    captured = capsys.readouterr().out
    assert "1 sequences with absences of their own, 1 with a hidden target" in captured
    document = json.loads((tmp_path / "confidence.json").read_text())
    figures = document["trackers"]["dimp_lite"]
    assert figures["frames"] == 17 + 13 and figures["absent"] == 5 + 3
    assert figures["right"] > 18 and figures["auroc"] > 0.95
    assert sum(part["count"] for part in figures["bins"]) == 30
    assert figures["default"]["absent"] < 0.5 and figures["default"]["missed"] < 0.2
    assert figures["reactions"]["absences"] == 2
    for image in ("reliability.png", *(f"hidden/{p.name}" for p in (tmp_path / "hidden").iterdir())):
        assert cv2.imread(str(tmp_path / image)) is not None
    track = next((tmp_path / "pairs" / "dimp_lite").glob("brief*"))
    before = track.stat().st_mtime_ns
    assert confidence.main([*wanted, "--resume"]) == 0
    assert track.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--only", "brief", "--trackers", "kcf,dimp_lite"], "cannot be hidden in any sequence"),
        (["--trackers", "dimp:nothing.safetensors"], "no weights file"),
        (["--trackers", "nanotrack_v2"], "none of the trackers"),
    ],
)
def test_a_bad_request_is_refused_with_the_reason(sequences, tmp_path, capsys, options, words):
    assert confidence.main(["--sequences", str(sequences), "--out", str(tmp_path), *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("box", [(-1, 109, 162, 5), (286, 96, 132, 155), (290, -14, 197, 114), (-138, 230, 159, 10)])
def test_nearly_invisible_target_does_not_stop_the_search(box):
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    source = find_cover_patch(image, Box(*box))
    assert source is None or hide(image, Box(*box), source).shape == image.shape
