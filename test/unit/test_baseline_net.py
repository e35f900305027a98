# SPDX-License-Identifier: Apache-2.0
"""Network and whole tracks against `BaselineNet` in float64, written from the formulas."""

import math

import cv2
import numpy as np
import pytest
import torch
from benchmark.baseline_net import BaselineNet
from helpers.reference_checkpoint import write_reference_checkpoint

from dimp_ros.geometry.box import Box
from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import build_model
from dimp_ros.model.iou_net import overlap_and_gradient
from dimp_ros.model.target_filter import apply_filter
from dimp_ros.tracker import DimpTracker, TrackerConfig
from dimp_ros.tracker.crop import SearchWindow, crop

LIMIT = 1e-4
"""Largest difference between float32 and float64, relative to the largest number."""
CPU = torch.device("cpu")
BOXES = [Box(110.3, 97.2, 61.7, 83.1), Box(160.9, 70.4, 40.2, 55.5)]
PROPOSALS = torch.tensor([[150.0, 66.0, 44.0, 60.0], [163.1, 75.7, 38.3, 47.9], [-9.0, 20.0, 90.0, 31.0]])


def random_functions(state):
    """Randomise the loss's learned functions: the initial ones are zero in regions that would hide errors."""
    generator = torch.Generator().manual_seed(0)
    for part in ("label_map_predictor", "target_mask_predictor.0", "spatial_weight_predictor"):
        state[f"classifier.filter_optimizer.{part}.weight"].add_(0.1 * torch.randn(1, 100, 1, 1, generator=generator))
    state["classifier.filter_optimizer.filter_reg"].fill_(-0.07)


def image_of(seed, size=288):
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(image)


def to_rgb(*images):
    return torch.from_numpy(np.stack(images)[..., ::-1].copy()).permute(0, 3, 1, 2)


def close(ours, expected):
    """Compare relative to the largest number."""
    difference = (ours.double() - expected.detach()).abs().max() / expected.abs().max()
    assert difference < LIMIT, f"differs by {difference:.1e} of the largest number"


def difference_quotients(reference, modulation, features, boxes, step=1e-5):
    """Return the gradient of each overlap in its own box ``[P, 4]`` by central differences."""
    columns = []
    for change in torch.eye(4, dtype=torch.float64) * step:
        above, below = (reference.overlap(modulation, features, boxes + c) for c in (change, -change))
        columns.append((above - below) / (2 * step))
    return torch.stack(columns, 1)


@pytest.fixture(scope="module", params=["dimp_lite", "dimp18", "dimp50"])
def stages(request):
    """Return a network, its float64 version, and the features of two images from both."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_model(request.param).eval().requires_grad_(False)
        for module in net.modules():  # the statistics of an untrained batch norm would hide errors
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.8, 1.2)
    random_functions(net.state_dict())
    reference = BaselineNet(net.state_dict(), request.param, CPU, torch.float64)
    images = to_rgb(image_of(1, 192), image_of(2, 192))
    return net, reference, net.extract(images), reference.backbone(images.double()), torch.tensor(BOXES)


def test_backbone_and_classification_features(stages):
    net, reference, ours, theirs, _ = stages
    for maps, expected in zip(ours, theirs, strict=True):
        close(maps, expected)
    close(net.classifier.features(ours.stride16), reference.classification_features(theirs[1]))


def test_initial_filter_all_iterates_and_scores(stages):
    net, reference, ours, theirs, boxes = stages
    features, expected_features = net.classifier.features(ours.stride16), reference.classification_features(theirs[1])
    first = net.classifier.filter_initializer(features[None], boxes[None])
    expected_first = reference.initial_filter(expected_features, boxes.double())
    close(first, expected_first)
    gamma = torch.tensor([0.7, 0.3])
    iterates = net.classifier.filter_optimizer(first, features[None], boxes[None], gamma[None], steps=10)
    expected = reference.optimize(expected_first, expected_features, boxes.double(), gamma.double(), 10)
    assert len(iterates) == len(expected) == 11
    for number, (iterate, wanted) in enumerate(zip(iterates, expected, strict=True)):
        close(iterate, wanted)
        assert number == 0 or not torch.equal(iterate, iterates[number - 1])
    scores = apply_filter(features[None], iterates[-1])[0]
    close(scores, torch.nn.functional.conv2d(expected_features, expected[-1], padding=2)[:, 0])


def test_overlaps_and_their_gradients(stages):
    net, reference, ours, theirs, boxes = stages
    regressor = net.bb_regressor
    modulation = regressor.modulation(Features(*(f[:1] for f in ours)), boxes[:1])
    expected_modulation = reference.modulation(tuple(f[:1] for f in theirs), boxes[:1].double())
    for vector, expected in zip(modulation, expected_modulation, strict=True):
        close(vector, expected.flatten(1))
    features = regressor.features(Features(*(f[1:] for f in ours)))
    overlaps, gradients = overlap_and_gradient(regressor, modulation, features, PROPOSALS[None])
    expected_features, proposals = reference.overlap_features(tuple(f[1:] for f in theirs)), PROPOSALS.double()
    close(overlaps[0], reference.overlap(expected_modulation, expected_features, proposals))
    close(gradients[0], difference_quotients(reference, expected_modulation, expected_features, proposals))


def reference_track(net, config, images, box):
    """Track a target with one proposal and no decision but the highest score, in float64."""

    def crop_at(image, box):
        window = SearchWindow.around(box.center, 5 * math.sqrt(box.w * box.h), 288)
        return window, net.backbone(to_rgb(crop(image, window)).double())

    window, view = crop_at(images[0], box)
    boxes = torch.tensor([window.box_to_crop(box)], dtype=torch.float64)
    features, modulation = net.classification_features(view[1]), net.modulation(view, boxes)
    gamma = torch.ones(1, dtype=torch.float64)
    weights = net.optimize(net.initial_filter(features, boxes), features, boxes, gamma, 10)[-1]
    track = []
    for number, image in enumerate(images[1:], start=1):
        window, view = crop_at(image, box)
        sample = net.classification_features(view[1])
        scores = torch.nn.functional.conv2d(sample, weights, padding=2)[0, 0]
        row, column = divmod(int(scores.argmax()), 19)
        last = window.box_to_crop(box)
        b = torch.tensor([[16 * column - last.w / 2, 16 * row - last.h / 2, last.w, last.h]], dtype=torch.float64)
        test = net.overlap_features(view)
        for _ in range(5):
            b = b + difference_quotients(net, modulation, test, b) * b[:, 2:].repeat(1, 2)
        box = window.box_to_image(Box(*b[0].tolist()))
        features, boxes = torch.cat((features, sample)), torch.cat((boxes, b))
        new = 0.01 if number == 1 else gamma[-1] / 0.99
        gamma = torch.cat((gamma * 0.99 if number == 1 else gamma, torch.tensor([new], dtype=torch.float64)))
        gamma = gamma / gamma.sum()
        if number % config.update_interval == 0:
            weights = net.optimize(weights, features, boxes, gamma, 2)[-1]
        track.append((box, float(scores.max()), gamma))
    return track, weights


def test_track_equals_that_of_the_specification(tmp_path):
    state = write_reference_checkpoint(tmp_path / "dimp18.pth", "dimp18", seed=3)
    random_functions(state)
    torch.save({"net": state}, tmp_path / "dimp18.pth")
    config = TrackerConfig.deterministic(
        not_found_threshold=-1.0,
        distractor_threshold=1.0,
        hard_negative_threshold=1.0,
        update_interval=2,
        augment=False,
    )
    tracker = DimpTracker(str(tmp_path / "dimp18.pth"), "cpu", config)
    scene, patch = image_of(5, 640)[:480], image_of(6, 60)[:50]
    images = []
    for step in range(4):
        image = scene.copy()
        image[200 + 3 * step : 250 + 3 * step, 300 + 5 * step : 360 + 5 * step] = patch
        images.append(image)
    box = Box(300.0, 200.0, 60.0, 50.0)
    with torch.no_grad():
        expected, weights = reference_track(BaselineNet(state, "dimp18", CPU, torch.float64), config, images, box)
    tracker.init(images[0], box)
    for image, (wanted, peak, gamma) in zip(images[1:], expected, strict=True):
        result = tracker.update(image)
        assert result.box == pytest.approx(wanted, abs=0.02)
        assert result.peak == pytest.approx(peak, rel=1e-3)
        assert tracker.inspect().sample_weights.tolist() == pytest.approx(gamma.tolist(), rel=1e-5)
    close(torch.from_numpy(tracker.inspect().next_filter), weights[0])
