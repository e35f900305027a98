# SPDX-License-Identifier: Apache-2.0
"""`DimpTracker` as a whole: accepted and refused input, guarantees, with random and with shipped weights."""

import dataclasses
import itertools
import math
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

import dimp_ros.tracker.tracker as tracker_module
from dimp_ros.geometry.box import Box, iou
from dimp_ros.model.checkpoints.weights_file import WEIGHTS_DIRECTORY
from dimp_ros.model.iou_net import Modulation, overlap_and_gradient
from dimp_ros.model.target_filter import apply_filter
from dimp_ros.tracker import DimpTracker, TargetState, TrackerConfig, torch_backend
from dimp_ros.tracker.crop import crop

CONFIG = TrackerConfig(not_found_threshold=-1.0)  # random weights: follow whatever scores highest


shipped = pytest.mark.skipif(
    not (WEIGHTS_DIRECTORY / "dimp_lite.safetensors").is_file(), reason="no dimp_lite weights are shipped"
)


@pytest.fixture(scope="module")
def random_tracker():
    return DimpTracker(weights="random", device="cpu", config=CONFIG)


@pytest.fixture(scope="module")
def tracker():
    return DimpTracker(device="cpu")


class Scene:
    """A textured disc moving over a textured ground, made by the test: the target's box is known in every frame."""

    def __init__(self, seed=0, size=(640, 480), radius=30):
        rng = np.random.default_rng(seed)
        self.size, self.radius = size, radius
        ground = rng.integers(60, 200, (12, 16, 3), dtype=np.uint8)
        self.ground = cv2.resize(ground, size, interpolation=cv2.INTER_CUBIC)
        texture = rng.integers(0, 255, (5, 5, 3), dtype=np.uint8)
        self.texture = cv2.resize(texture, (2 * radius, 2 * radius), interpolation=cv2.INTER_NEAREST)
        self.mask = np.zeros((2 * radius, 2 * radius), np.uint8)
        cv2.circle(self.mask, (radius, radius), radius, 255, -1)

    def frame(self, x, y, visible=True):
        """Draw the disc with its centre at (x, y)."""
        image = self.ground.copy()
        if visible:
            r = self.radius
            region = image[y - r : y + r, x - r : x + r]
            region[self.mask > 0] = self.texture[self.mask > 0]
        return image

    def box(self, x, y):
        """Return the disc's box."""
        return Box(x - self.radius, y - self.radius, 2 * self.radius, 2 * self.radius)


SCENE = Scene()


def test_importing_the_package_loads_neither_torch_nor_rclpy():
    code = "import sys, dimp_ros.tracker; print([m for m in ('torch', 'rclpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_update_before_init_says_what_to_call(random_tracker):
    random_tracker.drop()
    with pytest.raises(RuntimeError, match="call init first"):
        random_tracker.update(SCENE.frame(300, 200))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "numpy array"),
        (np.zeros((480, 640, 3), np.float32), r"float32 \[480, 640, 3\]"),
        (np.zeros((480, 640, 4), np.uint8), r"uint8 \[480, 640, 4\]"),
        (np.zeros((0, 640, 3), np.uint8), r"\[0, 640, 3\]"),
    ],
)
def test_invalid_image_is_refused_and_the_target_stays(random_tracker, image, words):
    random_tracker.init(SCENE.frame(300, 200), SCENE.box(300, 200))
    with pytest.raises(ValueError, match=words):
        random_tracker.init(image, SCENE.box(300, 200))
    with pytest.raises(ValueError, match=words):
        random_tracker.update(image)
    assert random_tracker.targets == ("0",)


def test_invalid_box_is_refused_and_the_old_target_stays(random_tracker):
    random_tracker.init(SCENE.frame(300, 200), SCENE.box(300, 200))
    for box in ((1000, 10, 50, 50), (10, 10, 0, 0), (10, 10, float("nan"), 5)):
        with pytest.raises(ValueError):
            random_tracker.init(SCENE.frame(300, 200), box)
    assert random_tracker.update(SCENE.frame(300, 200)).last_box.w > 0


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((640, 480), (-20, 100, 60, 60)),
        ((640, 480), (610, 450, 60, 60)),
        ((640, 480), (300, 200, 8, 8)),
        ((640, 480), (30, 20, 575, 430)),
        ((640, 480), (10, 10, 600, 12)),
        ((64, 48), (20, 20, 8, 8)),
        ((16, 16), (4, 4, 8, 8)),
        ((1920, 1080), (1900, 1060, 50, 50)),
    ],
)
def test_targets_at_the_border_tiny_or_huge_are_tracked(random_tracker, size, box):
    rng = np.random.default_rng(0)
    for image in (rng.integers(0, 255, (size[1], size[0], 3), np.uint8), rng.integers(0, 255, size[::-1], np.uint8)):
        assert random_tracker.init(image, box).box == box
        for _ in range(3):
            result = random_tracker.update(image)
            assert np.isfinite(result.last_box).all() and min(result.last_box[2:]) >= CONFIG.min_target_side
            cx, cy = result.last_box.center
            slack_x, slack_y = 0.3 * result.last_box.w + 1e-6, 0.3 * result.last_box.h + 1e-6
            assert -slack_x <= cx <= size[0] + slack_x
            assert -slack_y <= cy <= size[1] + slack_y


def test_an_image_without_any_contrast_is_survived(random_tracker):
    flat = np.full((240, 320, 3), 90, np.uint8)
    random_tracker.init(flat, (100, 100, 40, 40))
    assert np.isfinite(random_tracker.update(flat).last_box).all()


def test_the_images_size_may_change(random_tracker):
    random_tracker.init(SCENE.frame(600, 440), SCENE.box(600, 440))
    result = random_tracker.update(np.zeros((120, 160, 3), np.uint8))
    assert result.last_box.center[0] <= 160 + 0.3 * result.last_box.w


def test_the_same_seed_gives_the_same_track_and_init_starts_over(random_tracker):
    frames = [SCENE.frame(300 + 4 * i, 200) for i in range(5)]

    def track(tracker):
        tracker.init(frames[0], SCENE.box(300, 200))
        return [tracker.update(frame).last_box for frame in frames[1:]]

    first = track(random_tracker)
    assert track(random_tracker) == first
    other = DimpTracker(weights="random", device="cpu", config=dataclasses.replace(CONFIG, seed=5))
    other.net.load_state_dict(random_tracker.net.state_dict())
    track(other)
    assert not np.array_equal(other.inspect().proposals, random_tracker.inspect().proposals)


def run_with(tracker, config, frames=2):
    """Let a tracker follow the disc with other settings; return its boxes and peaks, and what is behind the last."""
    kept, tracker.config = tracker.config, config
    try:
        tracker.drop()
        tracker.init(SCENE.frame(300, 200), SCENE.box(300, 200))
        results = [tracker.update(SCENE.frame(300 + 4 * i, 200)) for i in range(1, frames + 1)]
        return [(result.last_box, result.peak) for result in results], tracker.inspect()
    finally:
        tracker.config = kept


def test_deterministic_results_do_not_depend_on_the_seed(random_tracker):
    config = TrackerConfig.deterministic(not_found_threshold=-1.0, update_interval=2)
    assert config.first_samples == 13
    first, one = run_with(random_tracker, config)
    second, other = run_with(random_tracker, dataclasses.replace(config, seed=5))
    assert first == second
    for name in ("next_filter", "sample_features", "sample_weights"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    ("on", "what"),
    [
        ({"augment_extra_shift": 0.1, "augment_shift": 0.0, "augment_rotations": ()}, "filter"),
        ({"dropout_copies": 2, "augment": False}, "filter"),
        ({"proposals": 3, "jitter_center": 0.05, "augment": False}, "proposals"),
        ({"proposals": 3, "jitter_size": 0.05, "augment": False}, "proposals"),
    ],
)
def test_each_random_element_follows_the_seed_when_it_is_on(random_tracker, on, what):
    config = TrackerConfig.deterministic(not_found_threshold=-1.0, init_steps=1, **on)
    first, again, other = (
        getattr(run_with(random_tracker, dataclasses.replace(config, seed=seed), 1)[1], what) for seed in (0, 0, 5)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_inspected_data_reproduce_a_result():
    config = dataclasses.replace(CONFIG, update_interval=2, hard_negative_threshold=1.0, distractor_threshold=1.0)
    config = dataclasses.replace(config, augment=False)
    tracker = DimpTracker(weights="random", device="cpu", config=config)
    net = tracker.net
    with pytest.raises(KeyError, match="no target"):
        tracker.inspect()
    tracker.init(SCENE.frame(300, 200), SCENE.box(300, 200))
    first = tracker.inspect("0")
    assert first.frame == 0 and first.proposals is None and len(first.sample_weights) == 3
    given = torch.from_numpy(first.sample_features[None]), torch.from_numpy(first.sample_boxes[None])
    initial = net.classifier.filter_initializer(*given)
    iterates = net.classifier.filter_optimizer(initial, *given, steps=config.init_steps)
    np.testing.assert_allclose(iterates[-1][0], first.filter, rtol=1e-5, atol=1e-6)
    tracker.update(SCENE.frame(304, 200))
    result = tracker.update(SCENE.frame(308, 200))
    seen = tracker.inspect()
    assert seen.frame == 2 and seen.window.box == result.search_window
    assert np.array_equal(seen.filter, first.next_filter) and not np.array_equal(seen.filter, seen.next_filter)
    assert np.array_equal(seen.image, crop(SCENE.frame(308, 200), seen.window))

    backbone = net.extract(torch.from_numpy(seen.image[..., ::-1].copy()).permute(2, 0, 1)[None])
    features = net.classifier.features(backbone.stride16)
    np.testing.assert_allclose(features[0], seen.sample_features[-1], rtol=1e-3, atol=1e-5)
    scores = apply_filter(features[None], torch.from_numpy(seen.filter[None]))[0, 0]
    torch.testing.assert_close(scores, torch.from_numpy(seen.scores), rtol=1e-3, atol=1e-4)
    assert seen.scores[seen.localization.cell] == seen.scores.max() == pytest.approx(result.peak)
    modulation = Modulation(*(torch.from_numpy(vector[None]) for vector in seen.modulation))
    maps, boxes = net.bb_regressor.features(backbone), torch.from_numpy(seen.proposals[None])
    for _ in range(config.refine_steps):
        overlaps, gradient = overlap_and_gradient(net.bb_regressor, modulation, maps, boxes)
        boxes = boxes + config.refine_step_length * gradient * boxes[..., 2:].repeat(1, 1, 2)
    np.testing.assert_allclose(boxes[0], seen.refined_boxes, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(overlaps[0], seen.overlaps, rtol=1e-3, atol=1e-4)  # where the last step began
    order = np.argsort(-seen.overlaps, kind="stable")  # of a random network, all may be equal
    best = seen.refined_boxes[order[:3]].mean(0)
    assert seen.window.box_to_image(Box(*best.tolist())) == pytest.approx(result.box, abs=1e-3)
    assert seen.sample_boxes[-1].tolist() == pytest.approx(seen.window.box_to_crop(result.box), abs=1e-3)
    seen.scores[:] = 0  # a copy: the tracker is not disturbed
    seen.sample_features[:] = 0
    assert tracker.inspect().scores.any() and tracker.inspect().sample_features.any()


def test_several_targets_are_tracked_as_each_alone(random_tracker):
    frames = [SCENE.frame(300 + 4 * i, 200) for i in range(3)]
    boxes = {"a": SCENE.box(300, 200), "b": Box(100, 300, 80, 50)}
    alone = {}
    for name, box in boxes.items():
        random_tracker.drop()
        random_tracker.init(frames[0], box)
        alone[name] = [random_tracker.update(frame).last_box for frame in frames[1:]]
    random_tracker.drop()
    for name, box in boxes.items():
        random_tracker.init(frames[0], box, target_id=name)
    together = [random_tracker.update_all(frame) for frame in frames[1:]]
    for name in boxes:
        for result, box in zip(together, alone[name], strict=True):
            assert result[name].last_box == pytest.approx(box, abs=0.05)
    with pytest.raises(RuntimeError, match="update_all"):
        random_tracker.update(frames[0])
    random_tracker.drop("a")
    assert random_tracker.targets == ("b",)
    random_tracker.drop()


def test_nothing_is_learned_while_the_target_is_not_found(random_tracker):
    blind = DimpTracker(weights="random", device="cpu", config=TrackerConfig(not_found_threshold=1.0))
    blind.init(SCENE.frame(300, 200), SCENE.box(300, 200))
    before = blind.inspect()
    for _ in range(25):
        result = blind.update(SCENE.frame(400, 300))
    assert result.state is TargetState.LOST
    assert result.box is None
    assert result.last_box == SCENE.box(300, 200)
    after = blind.inspect()
    assert np.array_equal(after.next_filter, before.next_filter)
    assert len(after.sample_weights) == blind.config.first_samples


def test_the_filter_is_updated_every_so_many_frames(random_tracker):
    config = dataclasses.replace(CONFIG, update_interval=3, hard_negative_threshold=1.0, distractor_threshold=1.0)
    learner = DimpTracker(weights="random", device="cpu", config=config)
    learner.init(SCENE.frame(300, 200), SCENE.box(300, 200))
    filters = [learner.inspect().next_filter]
    for _ in range(6):
        learner.update(SCENE.frame(300, 200))
        filters.append(learner.inspect().next_filter)
    changed = [not np.array_equal(a, b) for a, b in itertools.pairwise(filters)]
    assert changed == [False, False, True, False, False, True]


def test_a_whole_number_of_cells_is_asked_of_the_crop():
    with pytest.raises(ValueError, match="multiple of 32"):
        TrackerConfig(crop_size=300)


@pytest.mark.parametrize(
    "wrong", [{"search_scale": 50.0}, {"learning_rate": -0.1}, {"memory_size": 15}, {"best_boxes": 11}, {"seed": -1}]
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrackerConfig(**wrong)


def test_missing_device_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match="auto, cpu, cuda"):
        DimpTracker(weights="random", device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="use cpu"):
            DimpTracker(weights="random", device="cuda")


@shipped
def test_warm_up_runs_box_refinement(monkeypatch):
    tracker, calls = DimpTracker("dimp_lite", "cpu"), []
    tracker.config = dataclasses.replace(tracker.config, refine_steps=1)
    for name in ("refine_closer", "refine"):
        real = getattr(tracker_module, name)
        monkeypatch.setattr(tracker_module, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    tracker.warm_up()
    assert calls == ["refine_closer", "refine"] and not tracker.targets


@shipped
def test_a_moving_target_is_followed(tracker):
    tracker.init(SCENE.frame(150, 150), SCENE.box(150, 150))
    for i in range(1, 30):
        result = tracker.update(SCENE.frame(150 + 9 * i, 150 + 5 * i))
        assert result.state is TargetState.TRACKING
        assert float(iou(np.array(result.box), np.array(SCENE.box(150 + 9 * i, 150 + 5 * i)))) > 0.5
        assert result.confidence > 0.5


@shipped
@pytest.mark.parametrize("factors", [(2, 2), (0.5, 0.5), (1.5, 1.2)])
@pytest.mark.parametrize("hidden", [0, 15])
def test_target_is_followed_when_the_resolution_changes(tracker, factors, hidden):
    tracker.drop()
    tracker.init(SCENE.frame(300, 200), SCENE.box(300, 200))
    for n in range(5):
        tracker.update(SCENE.frame(300 + 2 * n, 200))
    for _ in range(hidden):
        tracker.update(SCENE.frame(310, 200, visible=False))
    image = cv2.resize(SCENE.frame(310, 200), None, fx=factors[0], fy=factors[1], interpolation=cv2.INTER_AREA)
    results = [tracker.update(image) for _ in range(4)]
    truth = np.array(Box(*SCENE.box(310, 200)).scaled(*factors))
    assert results[0].box is not None, "it is looked for where it is in an image of this size"
    assert results[-1].state is TargetState.TRACKING
    assert iou(np.array(results[-1].box), truth) > 0.6
    back = tracker.update(SCENE.frame(312, 200))
    assert back.state is TargetState.TRACKING
    assert iou(np.array(back.box), np.array(SCENE.box(312, 200))) > 0.6


@shipped
def test_hidden_target_is_lost_and_redetected(tracker):
    tracker.init(SCENE.frame(300, 200), SCENE.box(300, 200))
    for i in range(10):
        tracker.update(SCENE.frame(300 + 3 * i, 200))
    for _ in range(5):
        result = tracker.update(SCENE.frame(0, 0, visible=False))
        assert result.state is TargetState.LOST
        assert result.box is None
        assert result.confidence < 0.5
    result = tracker.update(SCENE.frame(345, 215))
    assert result.state is TargetState.TRACKING
    assert float(iou(np.array(result.box), np.array(SCENE.box(345, 215)))) > 0.5


# Several targets


def test_state_is_no_better_than_the_confidence(monkeypatch):
    """A box that is probably wrong is not acted on, but followed: the state recovers at once."""
    config = TrackerConfig(lost_confidence=0.1, tracking_confidence=0.3)
    tracker = DimpTracker(device="cpu", config=config)
    values = iter((0.0, 0.9, 0.2, 0.05, 0.9))
    monkeypatch.setattr(tracker, "confidence", lambda evidence: next(values))
    results = [tracker.init(SCENE.frame(200, 200), SCENE.box(200, 200))]
    results += [tracker.update(SCENE.frame(200 + 4 * n, 200)) for n in range(1, 5)]
    assert [result.state for result in results] == [
        TargetState.TRACKING,  # of a box that was given
        TargetState.TRACKING,
        TargetState.UNCERTAIN,
        TargetState.LOST,
        TargetState.TRACKING,
    ]
    assert results[3].box is None
    assert results[3].last_box.x > results[1].last_box.x + 4, "it is followed meanwhile"
    assert results[4].box == results[4].last_box


def start(tracker, boxes):
    tracker.drop()
    for name, box in boxes.items():
        tracker.init(SCENE.frame(300, 200), box, target_id=name)


PAIR = {"a": SCENE.box(300, 200), "b": Box(100, 300, 80, 50)}


def test_only_the_named_targets_are_updated(random_tracker):
    start(random_tracker, PAIR)
    before = random_tracker.inspect("a")
    assert set(random_tracker.update_all(SCENE.frame(310, 200), only=["b"])) == {"b"}
    after = random_tracker.inspect("a")
    assert (after.frame, after.box) == (before.frame, before.box) and np.array_equal(
        after.next_filter, before.next_filter
    )
    assert random_tracker.inspect("b").frame == 1
    assert list(random_tracker.update_all(SCENE.frame(310, 200), {"b", "a"})) == ["a", "b"]
    assert (random_tracker.inspect("a").frame, random_tracker.inspect("b").frame) == (1, 2)
    assert random_tracker.update_all(SCENE.frame(310, 200), only=()) == {}


def test_unknown_target_is_named_and_nothing_is_updated(random_tracker):
    start(random_tracker, PAIR)
    with pytest.raises(KeyError, match=r"no target 'c'; targets are \['a', 'b'\]"):
        random_tracker.update_all(SCENE.frame(310, 200), only=["a", "c"])
    assert random_tracker.inspect("a").frame == 0


@shipped
def test_candidate_tracks_change_nothing_without_look_alikes(tracker):
    def track(candidates, later):
        tracker.drop()
        tracker.config = dataclasses.replace(tracker.config, candidates=candidates)
        tracker.init(SCENE.frame(300, 200), SCENE.box(300, 200))
        tracker.config = dataclasses.replace(tracker.config, candidates=later)
        return [tracker.update(SCENE.frame(300 + 8 * i, 200)).box for i in range(1, 4)]

    usual = tracker.config
    try:
        assert track(6, 6) == track(0, 0) == track(0, 6)
    finally:
        tracker.drop()
        tracker.config = usual


# Lost and found. Settings make targets lost and found, so that these hold with any weights.

BLIND = TrackerConfig(not_found_threshold=1.0, search_tiles=4)
EAGER = TrackerConfig(
    not_found_threshold=-1.0, find_threshold=-1.0, find_distractor_ratio=1.0, find_growth=10.0, find_motion=10.0
)
"""Takes the highest peak of all tiles for a find, and lets it hold."""


@pytest.fixture
def batches(random_tracker, monkeypatch):
    """Return how many windows went through the backbone in each frame, as they go."""
    counts, upload = [], torch_backend.upload
    count = lambda crops, device: counts.append(len(crops)) or upload(crops, device)  # noqa: E731
    monkeypatch.setattr(torch_backend, "upload", count)
    yield counts
    random_tracker.drop()
    random_tracker.config = CONFIG


@pytest.mark.parametrize(("tiles", "expected"), [(4, [2, 6, 6]), (1, [2, 4, 4]), (0, [2, 2, 2])])
def test_lost_targets_share_tiles_in_one_batch(random_tracker, batches, tiles, expected):
    start(random_tracker, PAIR)
    random_tracker.config = dataclasses.replace(BLIND, search_tiles=tiles)
    batches.clear()
    for _ in expected:
        states = {result.state for result in random_tracker.update_all(SCENE.frame(310, 200)).values()}
        assert states == {TargetState.LOST}
    assert batches == expected


def test_targets_in_sight_cost_no_tile(random_tracker, batches):
    def track(tiles):
        random_tracker.config = dataclasses.replace(CONFIG, search_tiles=tiles)
        start(random_tracker, PAIR)
        batches.clear()
        results = [random_tracker.update_all(SCENE.frame(300 + 4 * i, 200)) for i in range(3)]
        assert batches == [2, 2, 2]
        return [(name, result.box, result.peak) for frame in results for name, result in frame.items()]

    assert track(4) == track(0)


def test_nothing_is_learned_from_a_candidate(random_tracker, batches):
    start(random_tracker, {"0": SCENE.box(300, 200)})
    random_tracker.config = BLIND
    assert random_tracker.update(SCENE.frame(300, 200)).state is TargetState.LOST
    random_tracker.config = dataclasses.replace(EAGER, trusted_frames=0, search_tiles=1, find_frames=3)
    before = random_tracker.inspect()
    for _ in range(2):
        result = random_tracker.update(SCENE.frame(300, 200))
        assert result.state is TargetState.UNCERTAIN and result.confirming
        assert result.box is not None and result.last_box == result.box != SCENE.box(300, 200)
        after = random_tracker.inspect()
        assert np.array_equal(after.next_filter, before.next_filter)
        assert len(after.sample_weights) == len(before.sample_weights)
    result = random_tracker.update(SCENE.frame(300, 200))
    assert result.state is not TargetState.LOST and not result.confirming
    assert result.last_box == result.box != SCENE.box(300, 200)
    assert batches[-3:] == [2, 1, 1]


def test_shrunk_target_is_searched_with_its_usual_size(random_tracker, batches):
    box = SCENE.box(300, 200)
    start(random_tracker, {"0": box})
    random_tracker.config = dataclasses.replace(EAGER, refine_steps=0, jitter_size=0.0)
    for _ in range(4):
        assert random_tracker.update(SCENE.frame(300, 200)).state is not TargetState.LOST
    target = random_tracker._targets["0"]
    piece = Box.from_center(*target.box.center, box.w / 4, box.h / 4)
    target.box = target.reported_box = piece
    random_tracker.config = dataclasses.replace(BLIND, trusted_frames=2)
    sides = []
    for _ in range(5):
        result = random_tracker.update(SCENE.frame(300, 200))
        sides.append(round(result.search_window.w))
        assert result.state is TargetState.LOST and result.last_box == piece
    narrow, wide = (round(5 * math.sqrt(size.area)) for size in (piece, box))
    assert sides == [narrow, narrow, narrow, wide, wide]


def test_unconfirmed_redetection_keeps_the_last_box(random_tracker, batches):
    start(random_tracker, {"0": SCENE.box(300, 200)})
    random_tracker.config = BLIND
    first = random_tracker.update(SCENE.frame(300, 200))
    random_tracker.config = dataclasses.replace(EAGER, trusted_frames=0)
    found = random_tracker.update(SCENE.frame(300, 200))
    assert found.confirming
    random_tracker.config = BLIND
    result = random_tracker.update(SCENE.frame(300, 200))
    assert result.state is TargetState.LOST and result.box is None and not result.confirming
    assert result.last_box == SCENE.box(300, 200)
    assert result.search_window.center == pytest.approx(found.box.center)
    assert random_tracker.update(SCENE.frame(300, 200)).search_window == first.search_window


@pytest.mark.parametrize("config", [BLIND, EAGER])
def test_lost_target_survives_images_of_every_size(random_tracker, batches, config):
    start(random_tracker, {"0": Box(600, 440, 60, 60)})
    rng = np.random.default_rng(0)
    config = dataclasses.replace(config, trusted_frames=0, find_frames=100)
    for width, height in ((640, 480), (16, 16), (1, 1), (300, 20), (1280, 720), (61, 700), (640, 480)):
        random_tracker.config = BLIND
        lost = random_tracker.update(rng.integers(0, 255, (height, width, 3), np.uint8))
        assert lost.box is None
        assert lost.last_box == pytest.approx(Box(600, 440, 60, 60).scaled(width / 640, height / 480))
        random_tracker.config = config
        for _ in range(2):
            result = random_tracker.update(rng.integers(0, 255, (height, width), np.uint8))
            assert np.isfinite(result.last_box).all() and result.box in (None, result.last_box)


@shipped
def test_target_that_returns_elsewhere_is_confirmed(tracker):
    tracker.init(SCENE.frame(120, 120), SCENE.box(120, 120))
    for i in range(10):
        tracker.update(SCENE.frame(120 + 3 * i, 120))
    for _ in range(5):
        assert tracker.update(SCENE.frame(0, 0, visible=False)).state is TargetState.LOST
    results = [tracker.update(SCENE.frame(560, 400)) for _ in range(10)]
    found = [i for i, result in enumerate(results) if result.state is TargetState.TRACKING]
    assert found and found == list(range(found[0], 10))
    watched = [i for i, result in enumerate(results) if result.confirming]
    assert watched == list(range(found[0] - tracker.config.find_frames + 1, found[0]))
    for result in results[found[0] :]:
        assert float(iou(np.array(result.box), np.array(SCENE.box(560, 400)))) > 0.5


@shipped
def test_late_return_at_the_last_position_is_confirmed_first(tracker):
    tracker.init(SCENE.frame(300, 200), SCENE.box(300, 200))
    for _ in range(tracker.config.trusted_frames + 2):
        assert tracker.update(SCENE.frame(0, 0, visible=False)).state is TargetState.LOST
    results = [tracker.update(SCENE.frame(300, 200)) for _ in range(tracker.config.find_frames)]
    assert [result.confirming for result in results] == [True] * (len(results) - 1) + [False]
    assert results[-1].state is TargetState.TRACKING


# Settings that change under running targets


def changed(field):
    """Return another value that a field may have."""
    value = field.default
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return value[:2]
    low, high = field.metadata["range"]
    step = 1 if isinstance(value, int) else (high - low) / 20
    return value + step if value + step <= high else value - step


LIVE = [field for field in dataclasses.fields(TrackerConfig) if field.metadata["live"]]


def test_every_field_says_whether_it_is_live():
    structural = {field.name for field in dataclasses.fields(TrackerConfig)} - {field.name for field in LIVE}
    assert structural == {"crop_size", "search_scale", "memory_size"}


@pytest.mark.parametrize("field", LIVE, ids=lambda field: field.name)
def test_a_live_setting_may_change_between_two_frames(random_tracker, field):
    if random_tracker.targets != ("all fields",):  # started once: the field changes between two frames
        random_tracker.drop()
        random_tracker.config = CONFIG
        random_tracker.init(SCENE.frame(300, 200), SCENE.box(300, 200), target_id="all fields")
    random_tracker.update(SCENE.frame(304, 200))
    before = random_tracker.inspect().frame
    try:
        random_tracker.config = dataclasses.replace(CONFIG, **{field.name: changed(field)})
        for i in range(2):
            assert np.isfinite(random_tracker.update(SCENE.frame(308 + 4 * i, 200)).last_box).all()
        assert random_tracker.inspect().frame == before + 2
    finally:
        random_tracker.config = CONFIG


def test_a_live_setting_acts_on_the_next_frame(random_tracker):
    random_tracker.drop()
    random_tracker.config = CONFIG
    random_tracker.init(SCENE.frame(300, 200), SCENE.box(300, 200))
    assert random_tracker.update(SCENE.frame(300, 200)).state is not TargetState.LOST
    random_tracker.config = dataclasses.replace(CONFIG, proposals=3, first_frame_share=1.0)
    random_tracker.update(SCENE.frame(300, 200))
    seen = random_tracker.inspect()
    assert len(seen.proposals) == 3
    assert float(seen.sample_weights[: CONFIG.first_samples].sum()) == pytest.approx(1)
    random_tracker.config = BLIND
    assert random_tracker.update(SCENE.frame(300, 200)).state is TargetState.LOST
    random_tracker.config = CONFIG


@pytest.mark.parametrize("change", [{"crop_size": 320}, {"search_scale": 4.0}, {"memory_size": 60}])
def test_a_setting_learned_with_cannot_change(random_tracker, change):
    start(random_tracker, PAIR)
    with pytest.raises(ValueError, match=f"{next(iter(change))} cannot change .* drop 'a', 'b' first"):
        random_tracker.config = dataclasses.replace(CONFIG, **change)
    assert random_tracker.config == CONFIG
    random_tracker.drop()
    random_tracker.config = dataclasses.replace(CONFIG, **change)
    random_tracker.config = CONFIG


def test_new_weights_are_used_from_the_next_target_on():
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    config = TrackerConfig(seed=0, not_found_threshold=-1.0)
    tracker = DimpTracker("dimp_lite", "cpu", weights="random", config=config)

    def result():
        tracker.init(image, (100, 80, 60, 50))
        return tracker.update(image)

    before = result()
    weights = {name: value.clone() for name, value in tracker.net.state_dict().items()}
    tracker.net.load_state_dict({name: torch.zeros_like(value) for name, value in weights.items()})
    assert before.peak != 0.0 == result().peak  # without weights every score is zero, on any processor
    tracker.net.load_state_dict(weights)
    after = result()
    assert after.peak == pytest.approx(before.peak) and after.box == pytest.approx(before.box, abs=1e-4)
