# SPDX-License-Identifier: Apache-2.0
"""Evaluation of re-detection: counts, sequences with absent targets, and the command."""

import json

import cv2
import numpy as np
import pytest
import torch
from helpers.image_fixtures import write_images

from dimp_ros.datasets.registry import open_data_sets
from dimp_ros.evaluation import redetection
from dimp_ros.evaluation.redetection import (
    PlayedSequence,
    RedetectionCounts,
    ScoredFrame,
    annotated_sequences,
    run_trackers,
    table,
)
from dimp_ros.geometry.box import Box
from dimp_ros.model.checkpoints.checkpoint import save_weights
from dimp_ros.model.checkpoints.weights_file import WeightsInfo
from dimp_ros.model.dimp import build_model
from dimp_ros.synthetic import disappearance
from dimp_ros.synthetic.disappearance import (
    ABSENT,
    CAMERA_JUMPS,
    SCENARIOS,
    SIZES,
    VISIBLE,
    DisappearanceGenerator,
    draw,
)
from dimp_ros.synthetic.image_store_writer import build_store
from dimp_ros.tracker import TargetState

HERE, THERE = Box(10, 10, 20, 20), Box(200, 100, 20, 20)
BESIDE = Box(18, 10, 20, 20)  # IoU 0.43 with HERE: neither on the target nor on something else
IOU_HIT = ScoredFrame(TargetState.TRACKING, HERE, HERE)
LOST = ScoredFrame(TargetState.LOST, None, HERE)
GONE = ScoredFrame(TargetState.LOST, None, None)
ASTRAY = ScoredFrame(TargetState.TRACKING, THERE, HERE)
FANCY = ScoredFrame(TargetState.TRACKING, THERE, None)
DOUBT = ScoredFrame(TargetState.UNCERTAIN, HERE, HERE)


@pytest.fixture(scope="module")
def maker(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    images = write_images(root / "set")
    store = build_store(
        root / "store", open_data_sets([{"kind": "compact", "root": str(images)}]), lambda _: True
    ).folder
    return DisappearanceGenerator(store)


def count(frames, *returns):
    result = RedetectionCounts()
    result.add(frames, returns)
    return result


# What is counted


def test_delay_counts_from_the_frame_of_the_return():
    result = count([IOU_HIT, IOU_HIT, GONE, GONE, LOST, DOUBT, DOUBT, IOU_HIT, IOU_HIT], 4)
    assert (result.returns, result.delays) == (1, [3])
    assert count([IOU_HIT, GONE, IOU_HIT], 2).delays == [0]


def test_return_found_after_the_next_one_is_missed():
    result = count([IOU_HIT, LOST, LOST, LOST, IOU_HIT], 1, 3)
    assert (result.returns, result.delays) == (2, [1])
    result = count([IOU_HIT, *[LOST] * redetection.BEFORE, LOST, IOU_HIT], 1, redetection.BEFORE + 1)
    assert (result.returns, result.delays) == (1, [])  # at the second one it was not followed any more
    result = count([IOU_HIT, LOST, IOU_HIT, LOST, IOU_HIT], 1, 3)
    assert (result.returns, result.delays) == (2, [1, 1])


def test_return_does_not_count_if_the_tracker_was_off_target():
    back = redetection.BEFORE + 2
    assert count([IOU_HIT] + [ASTRAY] * redetection.BEFORE + [GONE, IOU_HIT], back).returns == 0
    assert count([ASTRAY, IOU_HIT] + [LOST] * (redetection.BEFORE - 1) + [GONE, IOU_HIT], back).returns == 1


def test_false_frames_are_on_something_else_and_not_uncertain():
    doubt = [ScoredFrame(TargetState.UNCERTAIN, THERE, HERE), ScoredFrame(TargetState.TRACKING, BESIDE, HERE)]
    result = count([IOU_HIT, ASTRAY, ASTRAY, *doubt, FANCY, GONE, FANCY])
    assert (result.false, result.false_finds, result.frames) == (4, 3, 8)
    assert (result.on, result.present) == (1, 5)


def test_table_has_a_row_per_tracker_and_dashes():
    rows = table({("all", "a"): count([IOU_HIT, GONE, IOU_HIT], 2), ("all", "b"): count([IOU_HIT])}).splitlines()
    assert rows[2].startswith("| all | a | 1 | 100% | 0, 0 |") and rows[3].startswith("| all | b | 0 | - | - |")


# Synthetic sequences


@pytest.mark.parametrize("number", range(2 * len(SCENARIOS)))
def test_synthetic_sequence_follows_its_scenario(maker, number):
    made = maker.make(number)
    scenario = SCENARIOS[number % len(SCENARIOS)]
    present = np.array([frame.box is not None for frame in made.frames])
    assert made.scenario == scenario and present[0]
    assert made.frames[0].image.shape[1::-1] == SIZES[number // len(SCENARIOS) % 2]
    gone = slice(VISIBLE + 1, VISIBLE + ABSENT)
    if scenario == "camera_jump":
        assert present.all() and made.returns == CAMERA_JUMPS
        return
    assert not present[gone].any()
    if scenario == "replaced":
        assert not present[VISIBLE:].any() and made.returns == ()
        return
    (back,) = made.returns
    assert present[back:].all() and back >= VISIBLE + ABSENT
    before = next(frame.box for frame in reversed(made.frames[: VISIBLE - 1]) if frame.box)
    after = made.frames[back].box
    assert np.hypot(*np.subtract(before.center, after.center)) > min(before.w, before.h)


def test_camera_jump_moves_the_target_by_several_sizes(maker):
    frames = maker.make(2).frames
    for at in CAMERA_JUMPS:
        before, after = frames[at - 1], frames[at]
        way = np.subtract(after.box.center, before.box.center)
        assert np.hypot(*way) > 2 * np.sqrt(before.box.area)
        dx, dy = (round(float(value)) for value in way)
        height, width = before.image.shape[:2]
        moved = before.image[max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)]
        there = after.image[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
        assert np.abs(moved.astype(int) - there).mean() < 0.5 * np.abs(before.image.astype(int) - after.image).mean()


def test_nothing_of_the_target_is_left_while_it_is_gone(maker):
    made = maker.make(0)
    box = made.frames[VISIBLE - 1].box
    rows, columns = (slice(round(at), round(at + side)) for at, side in ((box.y, box.h), (box.x, box.w)))
    shown, hidden = made.frames[VISIBLE - 1].image[rows, columns], made.frames[VISIBLE + 2].image[rows, columns]

    def red(image):
        return (image[..., 2].astype(int) - image[..., 1] > 100).mean()

    assert red(shown) > 0.5 > 0.2 > red(hidden)  # the only objects are red ellipses; another may stand near


def test_what_is_covered_goes_little_by_little(maker):
    """It is whole at first, then in pieces for some frames, and hardly seen at the end."""
    made = maker.make(SCENARIOS.index("behind"))

    def red(frame, box):
        rows, columns = (slice(round(at), round(at + side)) for at, side in ((box.y, box.h), (box.x, box.w)))
        image = frame.image[rows, columns].astype(int)
        return float((image[..., 2] - image[..., 1] > 100).mean())

    frames = made.frames[:VISIBLE]
    shown = [red(frame, frame.box) for frame in frames if frame.box]
    assert shown[0] > 0.5 and min(shown) < 0.35
    assert sum(0.1 * shown[0] < share < 0.9 * shown[0] for share in shown) >= 4


def test_the_same_number_gives_the_same_sequence(maker):
    first, second = maker.make(1), maker.make(1)
    assert all(
        np.array_equal(a.image, b.image) and a.box == b.box for a, b in zip(first.frames, second.frames, strict=True)
    )
    assert not np.array_equal(first.frames[0].image, maker.make(9).frames[0].image)


@pytest.mark.parametrize(
    "place", [(60, 50, 40, 30), (60, 50, 12, 16), (0, 50, 40, 30), (119, 99, 200, 150), (-90, 0, 9, 9)]
)
def test_an_object_fills_its_box_wherever_that_is(place):
    canvas = np.zeros((disappearance.CANVAS, disappearance.CANVAS, 4), np.float32)
    canvas[disappearance.MARGIN : -disappearance.MARGIN, disappearance.MARGIN : -disappearance.MARGIN] = 255
    image = np.zeros((100, 120, 3), np.uint8)
    draw(image, canvas, np.array(place, float))
    cx, cy, w, h = place
    box = Box.from_center(cx, cy, w, h).clipped(120, 100)
    assert (image > 127).all(-1).sum() == pytest.approx(box.area, rel=0.08, abs=2)


# Playing, and the command


class Oracle:
    """A tracker that says what it was told to say."""

    def __init__(self, states):
        self.states, self.calls = iter(states), []

    def drop(self):
        """Note the call."""
        self.calls.append("drop")

    def init(self, image, box):
        """Note the box."""
        self.calls.append(("init", box))
        return self.update(image)

    def update(self, image):
        """Say the next word."""
        state = next(self.states)
        return type("Result", (), {"state": state, "box": HERE, "stage_ms": {"a": 1.0, "b": 2.0}})


def test_tracker_gets_the_first_box_and_every_image():
    states = [TargetState.TRACKING, TargetState.LOST, TargetState.UNCERTAIN]
    trackers = {"one": Oracle(states), "two": Oracle(states)}
    images = iter([np.zeros((9, 9, 3), np.uint8)] * 3)
    played = run_trackers(trackers, PlayedSequence("s", "g", images, [HERE, None, THERE], (2,)))
    for name, tracker in trackers.items():
        assert tracker.calls == ["drop", ("init", HERE)]
        assert [frame.state for frame in played[name]] == states
        assert [frame.truth for frame in played[name]] == [HERE, None, THERE]
        assert played[name][0].milliseconds == 3.0


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_weights(path, build_model("dimp_lite").eval(), WeightsInfo(architecture="dimp_lite"), torch.float16)
    return path


def test_command_compares_search_and_no_search(tmp_path, weights, capsys, monkeypatch):
    folder = tmp_path / "sequences" / "short"
    (folder / "img").mkdir(parents=True)
    lines = []
    for number in range(6):
        image = np.random.default_rng(number).integers(0, 255, (120, 160, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "img" / f"{number + 1:08d}.png"), image)
        lines.append("nan,nan,nan,nan" if number in (2, 3) else "60,40,30,30")
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    (sequence,) = annotated_sequences(folder.parent, None)
    assert (sequence.returns, sequence.group) == ((4,), "with absences")
    out = tmp_path / "out" / "figures.json"
    names = f"dimp:{weights}@augment=false,dimp:{weights}@augment=false@search_tiles=0@precision=bfloat16"
    written = []
    monkeypatch.setattr(redetection, "print", lambda text: (written.append(out.is_file()), print(text)), raising=False)
    assert redetection.main(["--sequences", str(folder.parent), "--trackers", names, "--out", str(out)]) == 0
    assert written == [True], "the file is written before anything is printed"
    printed = capsys.readouterr().out
    assert printed.count("| short |") == printed.count("| all |") == 2
    assert {row["frames"] for row in json.loads(out.read_text())} == {6}


def test_command_writes_a_sheet_of_synthetic_sequences(tmp_path, maker, monkeypatch):
    monkeypatch.setattr(disappearance, "DisappearanceGenerator", lambda store: maker)
    path = tmp_path / "sheet.png"
    assert redetection.main(["--store", "any", "--number", "2", "--sheet", str(path)]) == 0
    assert cv2.imread(str(path)).shape == (2 * 160, 8 * 240, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sequences", "/nowhere"], "no folder"),
        (["--store", "any", "--trackers", "kcf"], "does not report LOST"),
        (["--store", "any", "--trackers", "dimp_lite@find=1"], "no setting 'find'"),
    ],
)
def test_a_bad_request_is_refused_with_the_reason(arguments, words, capsys, monkeypatch, maker):
    monkeypatch.setattr(disappearance, "DisappearanceGenerator", lambda store: maker)
    assert redetection.main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("variant", ["", "@search_tiles=0", "@search_tiles=0@precision=float32"])
@pytest.mark.parametrize("option", ["--out", "--sheet"])
def test_variant_is_not_overwritten(tmp_path, capsys, variant, option):
    weights = tmp_path / "weights.png"
    weights.write_text("before")
    link = tmp_path / "link.png"
    link.symlink_to(weights)
    arguments = ["--sequences", str(tmp_path / "none"), "--trackers", f"dimp:{weights}{variant}", option, str(link)]
    assert redetection.main(arguments) == 2
    assert "would overwrite --trackers" in capsys.readouterr().err and weights.read_text() == "before"
