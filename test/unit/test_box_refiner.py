# SPDX-License-Identifier: Apache-2.0
"""The box refiner, and its examples and losses."""

import math

import numpy as np
import pytest
import torch

from dimp_ros.geometry.box import Box
from dimp_ros.images.closer_window import turned_box
from dimp_ros.model.backbone import EfficientNetLite0, Features
from dimp_ros.model.box_refiner import GRID, BoxRefiner, RefinedBoxes, box_losses, giou
from dimp_ros.model.sizes import CLOSER_SIZE
from dimp_ros.training import box_pairs
from dimp_ros.training.box_pairs import PairSampler
from dimp_ros.training.window_changes import any_rectangle, hidden, perturbed, usable


def features(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Features(*(torch.randn((count, c, s, s), generator=generator) for c, s in ((40, 18), (112, 9))))


@pytest.fixture(scope="module")
def refiner():
    torch.manual_seed(0)
    return BoxRefiner(EfficientNetLite0()).eval().requires_grad_(False)


def test_targets_of_a_batch_do_not_mix(refiner):
    reference, search = features(2), features(2, seed=1)
    boxes = torch.tensor([[36.0, 40, 70, 60], [20, 36, 100, 70]])
    tokens = refiner.tokens(reference, boxes)
    assert tokens.shape == (2, GRID * GRID, 64)
    both = refiner(search, tokens)
    for n in range(2):
        own = refiner.tokens(Features(*(maps[n : n + 1] for maps in reference)), boxes[n : n + 1])
        single = refiner(Features(*(maps[n : n + 1] for maps in search)), own)
        torch.testing.assert_close(single.edges[0], both.edges[n], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(single.quality[0], both.quality[n], rtol=1e-4, atol=1e-4)


def test_tokens_know_the_box_that_was_given(refiner):
    reference = features(1)
    narrow, wide = (refiner.tokens(reference, torch.tensor([box])) for box in ([50.0, 36, 44, 72], [30.0, 36, 84, 72]))
    assert (narrow - wide).abs().mean() > 0.1 * narrow.abs().mean()


def test_edges_are_means_of_votes_with_their_weights(refiner):
    """With equal weights and no offsets each edge is the mean of the cells, which lie at 16 i + 0.5."""
    same = BoxRefiner(EfficientNetLite0()).eval()
    with torch.no_grad():
        same.votes.weight.zero_()
        same.votes.bias.copy_(torch.tensor([0.0] * 4 + [-0.1, -0.2, 0.1, 0.3]))
        edges = same(features(1), torch.zeros(1, GRID * GRID, 64)).edges[0]
    mean = (16 * 4 + 0.5) / CLOSER_SIZE
    torch.testing.assert_close(edges, torch.tensor([mean - 0.1, mean - 0.2, mean + 0.1, mean + 0.3]))


def test_giou_of_known_boxes():
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 1, 1], [0.5, 0.5, 0.2, 0.2]])
    b = torch.tensor([[1.0, 0, 3, 2], [0, 0, 1, 1], [3, 0, 4, 1], [0, 0, 1, 1]])
    overlap, generalized = giou(a, b)
    torch.testing.assert_close(overlap, torch.tensor([1 / 3, 1, 0, 0]))
    torch.testing.assert_close(generalized[:3], torch.tensor([1 / 3, 1, -0.5]))
    assert generalized[3] <= 0  # inside out


def test_losses_are_least_at_the_truth():
    edges = torch.tensor([[0.25, 0.3, 0.7, 0.8]])
    exact = box_losses(RefinedBoxes(edges.clone(), torch.tensor([20.0])), edges)
    assert all(float(value) < 1e-6 for value in exact.values())
    off = box_losses(RefinedBoxes(edges + torch.tensor([0.045, 0, 0, 0]), torch.tensor([20.0])), edges)
    assert float(off["distance"]) == pytest.approx(0.1 / 4, rel=1e-4)
    assert float(off["overlap"]) == pytest.approx(0.1, rel=1e-3)
    assert float(off["quality"]) > 1


def test_a_window_without_the_target_teaches_low_quality_only():
    edges = torch.tensor([[0.25, 0.3, 0.7, 0.8], [math.nan] * 4])
    found = torch.tensor([[0.3, 0.3, 0.7, 0.8], [0.1, 0.2, 0.3, 0.4]], requires_grad=True)
    quality = torch.tensor([2.0, 1.0], requires_grad=True)
    losses = box_losses(RefinedBoxes(found, quality), edges)
    alone = box_losses(RefinedBoxes(found[:1], quality[:1]), edges[:1])
    assert losses["distance"] == alone["distance"] and losses["overlap"] == alone["overlap"]
    sum(losses.values()).backward()
    assert found.grad[0].abs().max() > 0 and not found.grad[1].any()
    assert quality.grad[1] > 0
    nothing = box_losses(RefinedBoxes(found[1:], quality[1:]), edges[1:])
    assert nothing["distance"] == nothing["overlap"] == 0 < nothing["quality"]


class DrawnStore:
    """Videos of a white rectangle on black: box i of the track is where frame i shows it."""

    def __init__(self, boxes):
        self.boxes = boxes
        self.videos = [
            box_pairs.StoredVideo("v", "s", list(range(len(boxes))), [[list(map(float, box)) for box in boxes]]),
            box_pairs.StoredVideo("p", "t", [0], [[list(map(float, boxes[0]))]]),
        ]

    def image(self, number):
        """Draw a frame."""
        x, y, w, h = self.boxes[number]
        image = np.zeros((240, 320, 3), np.uint8)
        image[y : y + h, x : x + w] = 255
        return image


def edges_of(crop):
    share = crop[..., 0] / 255.0
    rows, columns = np.flatnonzero(share.max(1) > 0.5), np.flatnonzero(share.max(0) > 0.5)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.fixture
def plain(monkeypatch):
    """Examples as they are: no change of light, any rectangle or turn."""
    monkeypatch.setattr(box_pairs.Look, "common", lambda self, crop: np.ascontiguousarray(crop))
    monkeypatch.setattr(box_pairs.Look, "changed", lambda self, crop, rng: crop)
    monkeypatch.setattr(box_pairs, "any_rectangle", lambda rng, box, shape: box)


@pytest.mark.parametrize("clips", [0.0, 1.0])
def test_examples_show_the_target_where_they_say(plain, clips):
    store = DrawnStore([(100, 80, 60, 48), (130, 70, 48, 60), (90, 100, 70, 40)])
    batch = PairSampler(store, seed=3, clips=clips, absent=0.0).batch(12)
    assert batch.searches.shape == (24, CLOSER_SIZE, CLOSER_SIZE, 3)
    for image, (x, y, w, h) in zip(batch.references, batch.boxes, strict=True):
        np.testing.assert_allclose(edges_of(image), (x, y, x + w, y + h), atol=1.5)
    compared = 0
    for image, edges in zip(batch.searches, batch.edges * CLOSER_SIZE, strict=True):
        if edges.min() < 2 or edges.max() > CLOSER_SIZE - 2:
            continue  # partly outside the window
        found = edges_of(image)
        if clips:  # a turned rectangle is larger than its ellipse's box
            np.testing.assert_allclose((found[:2] + found[2:]) / 2, (edges[:2] + edges[2:]) / 2, atol=2)
        else:
            np.testing.assert_allclose(found, edges, atol=12)
            np.testing.assert_allclose((found[:2] + found[2:]) / 2, (edges[:2] + edges[2:]) / 2, atol=2)
        compared += 1
    assert compared > 8


def test_windows_that_say_so_do_not_show_the_target(plain):
    store = DrawnStore([(100, 80, 60, 48), (130, 70, 48, 60), (90, 100, 70, 40)])
    del store.videos[1:]  # no other object
    batch = PairSampler(store, seed=3, clips=1.0, absent=0.6).batch(30)
    absent = np.isnan(batch.edges).all(1)
    assert 0.3 < absent.mean() < 0.7
    lit = (batch.searches > 128).mean((1, 2, 3))
    assert lit[~absent].min() > 0.02
    assert lit[absent].max() < 0.01


@pytest.mark.parametrize(
    "box", [Box(100, 80, 60, 48), Box(-20, -10, 60, 40), Box(300, 230, 60, 48), Box(0, 0, 320, 240)]
)
def test_a_covered_box_shows_nothing_of_what_was_there(box):
    rng, box = np.random.default_rng(0), Box(*box)
    image = np.full((240, 320, 3), 40, np.uint8)
    image[60:180, 60:260] = rng.integers(30, 50, (120, 200, 3))
    x, y = max(int(box.x), 0), max(int(box.y), 0)
    rows, columns = slice(y, int(box.y + box.h)), slice(x, int(box.x + box.w))
    image[rows, columns] = 255
    changed = hidden(rng, image, box)
    if box.w < 320:  # there is something else to cover it with
        assert changed[rows, columns].max() < 255
    assert changed.shape == image.shape and image[rows, columns].min() == 255


def test_the_same_seed_draws_the_same(plain):
    store = DrawnStore([(100, 80, 60, 48), (130, 70, 48, 60)])
    first, second = (PairSampler(store, seed=5).batch(3) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.references, PairSampler(store, seed=6).batch(3).references)


def test_wrong_boxes_are_off_by_up_to_twice_the_size():
    rng, box = np.random.default_rng(0), Box(100, 100, 60, 40)
    boxes = [perturbed(rng, box) for _ in range(500)]
    ratios = np.array([(b.w / box.w, b.h / box.h) for b in boxes])
    assert ratios.min() > 0.45 and ratios.max() < 2.2
    assert ratios.min() < 0.6 and ratios.max() > 1.7
    assert np.corrcoef(ratios.T)[0, 1] < 0.9  # each side by itself, too


def test_rectangles_can_be_followed():
    rng = np.random.default_rng(0)
    for _ in range(200):
        drawn = any_rectangle(rng, Box(20, 30, 100, 20), (240, 320, 3))
        assert usable(drawn) or drawn.w * drawn.h < 100
        assert drawn.x >= 0 and drawn.y >= 0 and drawn.x + drawn.w <= 320 + 8 and drawn.y + drawn.h <= 240 + 8


def test_a_turned_box_is_that_of_its_ellipse():
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    assert turned_box(Box(10, 20, 30, 40), quarter) == pytest.approx(Box.from_center(25, 40, 40, 30))
    eighth = np.array([[1.0, -1.0], [1.0, 1.0]]) / math.sqrt(2)
    assert turned_box(Box(0, 0, 20, 20), eighth) == pytest.approx(Box(0, 0, 20, 20))  # a circle
