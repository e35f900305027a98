# SPDX-License-Identifier: Apache-2.0
"""Precise RoI pooling against numerical integration, and its gradient against finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.model.precise_roi_pool import PreciseRoiPool2d, precise_roi_pool


def bilinear(feature, x, y):
    """Interpolate ``feature`` [H, W] at points; it is 0 outside, pixel i sits at coordinate i."""
    height, width = feature.shape
    value = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            value += feature[i, j] * np.clip(1 - np.abs(x - j), 0, None) * np.clip(1 - np.abs(y - i), 0, None)
    return value


def integrate(feature, box, bins, samples=60):
    """Average the interpolated feature over each bin by brute force (midpoint rule)."""
    x0, y0, w, h = box
    out = np.zeros((bins, bins))
    offsets = (np.arange(samples) + 0.5) / samples
    for i in range(bins):
        for j in range(bins):
            xs = x0 + (j + offsets) * w / bins
            ys = y0 + (i + offsets) * h / bins
            out[i, j] = bilinear(feature, *np.meshgrid(xs, ys)).mean()
    return out


box_numbers = st.tuples(st.floats(-3, 8), st.floats(-3, 8), st.floats(0.3, 9), st.floats(0.3, 9))


@settings(deadline=None, max_examples=20)
@given(box_numbers, st.integers(1, 4), st.integers(0, 2**31 - 1))
def test_pooling_is_the_integral_of_the_interpolated_feature(box, bins, seed):
    feature = torch.randn(1, 1, 6, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    pooled = precise_roi_pool(feature, torch.tensor([[box]], dtype=torch.float64), bins, 1.0)
    np.testing.assert_allclose(pooled[0, 0, 0].numpy(), integrate(feature[0, 0].numpy(), box, bins), atol=5e-3)


def test_each_box_is_pooled_from_its_own_image():
    features = torch.arange(2 * 3, dtype=torch.float32).view(2, 3, 1, 1).expand(2, 3, 20, 20).contiguous()
    boxes = torch.tensor([[[16.0, 16, 64, 64], [32, 32, 32, 48]]] * 2)
    pooled = precise_roi_pool(features, boxes, 2, 1 / 16)
    assert pooled.shape == (2, 2, 3, 2, 2)
    expected = torch.arange(6.0).view(2, 1, 3, 1, 1).expand(2, 2, 3, 2, 2)
    torch.testing.assert_close(pooled, expected)


def test_the_gradient_in_the_box_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(3)
    feature = torch.randn(2, 2, 6, 7, generator=generator, dtype=torch.float64)
    boxes = torch.tensor(
        [[[1.3, 0.7, 3.9, 4.2], [-1.2, 2.2, 5.0, 3.1]], [[2.2, 2.7, 9.0, 1.4], [0.1, 0.2, 0.5, 0.6]]],
        dtype=torch.float64,
        requires_grad=True,
    )
    feature.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda f, b: precise_roi_pool(f, b, 3, 1.0), (feature, boxes), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("size", [(0.0, 5.0), (5.0, 0.0), (-2.0, 5.0), (-1.0, -1.0)])
def test_a_degenerate_box_gives_zero_and_a_finite_gradient(size):
    feature = torch.ones(1, 2, 8, 8)
    box = torch.tensor([[[2.0, 2.0, *size]]], requires_grad=True)
    pooled = precise_roi_pool(feature, box, 3, 1.0)
    assert (pooled == 0).all()
    pooled.sum().backward()
    assert torch.isfinite(box.grad).all()


def test_wrong_shapes_are_refused_with_what_was_given():
    with pytest.raises(ValueError, match=r"\[2, 4\]"):
        precise_roi_pool(torch.zeros(1, 1, 4, 4), torch.zeros(2, 4), 3, 1.0)


def test_the_module_says_what_it_is():
    assert "output_size=5, spatial_scale=0.125" in repr(PreciseRoiPool2d(5, 1 / 8))
