# SPDX-License-Identifier: Apache-2.0
"""The target filter: correlation, its adjoint, feature norm, and positions of scores."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.model.classifier import FilterInitializer, InstanceL2Norm
from dimp_ros.model.dimp import build_model
from dimp_ros.model.target_filter import apply_filter, apply_filter_adjoint

shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(4, 9), st.integers(1, 5))


def random_case(shape, seed=0):
    batch, count, channels, size, kernel = shape
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, count, channels, size, size + 1, generator=generator, dtype=torch.float64)
    weights = torch.randn(batch, channels, kernel, kernel, generator=generator, dtype=torch.float64)
    return features, weights


@settings(deadline=None, max_examples=30)
@given(shapes)
def test_scores_are_the_padded_correlation(shape):
    features, weights = random_case(shape)
    kernel = weights.shape[-1]
    expected = torch.stack(
        [F.conv2d(f, w[None], padding=kernel // 2)[:, 0] for f, w in zip(features, weights, strict=True)]
    )
    torch.testing.assert_close(apply_filter(features, weights), expected)


@settings(deadline=None, max_examples=30)
@given(shapes)
def test_the_adjoint_is_the_adjoint(shape):
    features, weights = random_case(shape)
    scores = apply_filter(features, weights)
    residuals = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    back = apply_filter_adjoint(features, residuals, weights.shape[-1])
    torch.testing.assert_close((back * weights).sum(), (residuals * scores).sum())


def test_eighteen_cells_of_features_give_nineteen_of_scores():
    assert apply_filter(torch.zeros(1, 1, 2, 18, 18), torch.zeros(1, 2, 4, 4)).shape == (1, 1, 19, 19)


def test_features_are_scaled_to_one_norm_whatever_their_size():
    x = torch.randn(2, 8, 6, 5) * torch.tensor([1e-2, 1e3]).view(2, 1, 1, 1)
    norm = InstanceL2Norm(0.25)(x).square().sum((1, 2, 3)).sqrt()
    torch.testing.assert_close(norm, torch.full((2,), 0.25 * (8 * 6 * 5) ** 0.5), rtol=1e-2, atol=0)


def test_initial_filter_is_the_mean_over_the_images():
    initializer = FilterInitializer(6)
    features, boxes = torch.randn(2, 3, 6, 18, 18), torch.tensor([100.0, 90, 60, 70]).expand(2, 3, 4)
    whole = initializer(features, boxes)
    single = torch.stack([initializer(features[:, i : i + 1], boxes[:, i : i + 1]) for i in range(3)])
    assert whole.shape == (2, 6, 4, 4)
    torch.testing.assert_close(whole, single.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dimp_lite", "dimp18"])
def test_centred_target_peaks_at_cell_9_and_16_px_are_one_cell(name):
    torch.manual_seed(0)
    model = build_model(name).eval().requires_grad_(False)
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.integers(0, 255, (30, 30, 3), dtype=np.uint8), (480, 480), interpolation=cv2.INTER_CUBIC)
    scene[212:268, 212:268] = cv2.resize(rng.integers(0, 255, (7, 7, 3), dtype=np.uint8), (56, 56))

    def features(dx, dy):
        """See the scene with the target's centre at crop coordinate (144 + dx, 144 + dy)."""
        x, y = 240 - 144 - dx, 240 - 144 - dy
        crop = torch.from_numpy(scene[y : y + 288, x : x + 288].copy()).permute(2, 0, 1)[None]
        return model.classifier.features(model.extract(crop).stride16)[None]

    box = torch.tensor([[[144.0 - 28, 144 - 28, 56, 56]]])
    centred = features(0, 0)
    first = model.classifier.filter_initializer(centred, box)
    weights = model.classifier.filter_optimizer(first, centred, box, steps=30)[-1]
    for dx, dy in ((0, 0), (16, 0), (0, 16), (-48, 32), (64, -64)):
        scores = apply_filter(features(dx, dy), weights)[0, 0]
        row, column = divmod(int(scores.argmax()), scores.shape[1])
        assert (row, column) == (9 + dy // 16, 9 + dx // 16)
