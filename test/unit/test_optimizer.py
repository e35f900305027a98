# SPDX-License-Identifier: Apache-2.0
"""The discriminative loss and its optimiser, against autograd of the explicit loss."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.model.optimizer import DiscriminativeOptimizer, DistanceFunction


@pytest.fixture(params=[0, 1, 2])
def case(request):
    """Make an optimiser with random learned functions, features, a filter, boxes and sample weights."""
    torch.manual_seed(request.param)
    optimizer = DiscriminativeOptimizer().double()
    with torch.no_grad():
        for parameter in optimizer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    features = torch.randn(2, 3, 5, 18, 18, dtype=torch.float64) * 0.1
    weights = torch.randn(2, 5, 4, 4, dtype=torch.float64)
    boxes = torch.rand(2, 3, 4, dtype=torch.float64) * 60 + torch.tensor([80.0, 80, 30, 30])
    gamma = torch.rand(2, 3, dtype=torch.float64)
    return optimizer, features, weights, boxes, gamma / gamma.sum(1, keepdim=True)


def written_out_residuals(optimizer, features, weights, boxes):
    """Evaluate r = v * (m * s + (1 - m) * max(0, s) - y) from basis functions, 1x1 convolutions and conv2d."""
    bins, spacing = 100, 0.1
    centre = (boxes[..., :2] + boxes[..., 2:] / 2) / 16
    cells = torch.arange(19, dtype=features.dtype)
    dx, dy = cells - centre[..., 0, None, None], cells[:, None] - centre[..., 1, None, None]
    distance = (dx**2 + dy**2).sqrt().flatten(0, 1)[:, None]
    position = distance / spacing - torch.arange(bins, dtype=features.dtype).view(1, -1, 1, 1)
    basis = torch.cat((F.relu(1 - position[:, :-1].abs()), (1 + position[:, -1:]).clamp(0, 1)), dim=1)
    shape = (*boxes.shape[:2], 19, 19)
    y = F.conv2d(basis, optimizer.label_map_predictor.weight).view(shape)
    m = F.conv2d(basis, optimizer.target_mask_predictor[0].weight).sigmoid().view(shape)
    v = F.conv2d(basis, optimizer.spatial_weight_predictor.weight).view(shape)
    s = torch.stack([F.conv2d(x, w[None], padding=2)[:, 0] for x, w in zip(features, weights, strict=True)])
    return v * (m * s + (1 - m) * s.clamp(min=0) - y)


def written_out_loss(optimizer, features, weights, boxes, gamma):
    residuals = written_out_residuals(optimizer, features, weights, boxes)
    reg = max(abs(optimizer.filter_reg.item()), 1e-3) ** 2
    return (gamma[..., None, None] * residuals**2).sum((1, 2, 3)) + reg * (weights**2).sum((1, 2, 3))


def test_loss_equals_the_explicit_one(case):
    optimizer, features, weights, boxes, gamma = case
    loss = optimizer.loss(weights, features, optimizer.loss_maps(boxes, (19, 19)), gamma)
    torch.testing.assert_close(loss, written_out_loss(optimizer, features, weights, boxes, gamma))


def test_the_gradient_is_half_of_autograds(case):
    optimizer, features, weights, boxes, gamma = case
    weights.requires_grad_(True)
    (expected,) = torch.autograd.grad(written_out_loss(optimizer, features, weights, boxes, gamma).sum(), weights)
    gradient, _ = optimizer.gradient_and_step_length(
        weights.detach(), features, optimizer.loss_maps(boxes, (19, 19)), gamma
    )
    torch.testing.assert_close(gradient, expected / 2)


def test_the_step_length_minimises_the_gauss_newton_model(case):
    optimizer, features, weights, boxes, gamma = case
    gradient, alpha = optimizer.gradient_and_step_length(weights, features, optimizer.loss_maps(boxes, (19, 19)), gamma)
    residuals, change = torch.autograd.functional.jvp(
        lambda w: written_out_residuals(optimizer, features, w, boxes), weights, gradient
    )
    reg = max(abs(optimizer.filter_reg.item()), 1e-3) ** 2

    def model(length):
        """Evaluate the loss with the residuals linear in the step."""
        length = length.view(-1, 1, 1, 1)
        data = (gamma[..., None, None] * (residuals - length * change) ** 2).sum((1, 2, 3))
        return data + reg * ((weights - length * gradient) ** 2).sum((1, 2, 3))

    lengths = alpha.detach().clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(model(lengths).sum(), lengths)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-8, rtol=0)
    assert (model(alpha) < model(alpha * 0.9)).all() and (model(alpha) < model(alpha * 1.1)).all()


def test_step_is_the_learned_share_of_the_step_length(case):
    optimizer, features, weights, boxes, gamma = case
    maps = optimizer.loss_maps(boxes, (19, 19))
    gradient, alpha = optimizer.gradient_and_step_length(weights, features, maps, gamma)
    expected = weights - math.exp(float(optimizer.log_step_length)) * alpha[:, None, None, None] * gradient
    torch.testing.assert_close(optimizer.step(weights, features, maps, gamma), expected)


def test_the_loss_decreases_with_every_step():
    torch.manual_seed(0)
    optimizer = DiscriminativeOptimizer()
    features = torch.randn(2, 4, 32, 18, 18) * 0.1
    boxes = torch.tensor([116.0, 110, 56, 60]).expand(2, 4, 4)
    gamma = torch.full((2, 4), 0.25)
    iterates = optimizer(torch.zeros(2, 32, 4, 4), features, boxes, gamma, steps=10)
    maps = optimizer.loss_maps(boxes, (19, 19))
    losses = torch.stack([optimizer.loss(w, features, maps, gamma) for w in iterates]).detach()
    assert len(iterates) == 11
    assert (losses[1:] < losses[:-1]).all()


def test_equal_weights_are_the_default():
    torch.manual_seed(0)
    optimizer = DiscriminativeOptimizer()
    features, boxes = torch.randn(1, 4, 3, 18, 18), torch.tensor([100.0, 100, 50, 50]).expand(1, 4, 4)
    weights = torch.randn(1, 3, 4, 4)
    given_equal = optimizer(weights, features, boxes, torch.full((1, 4), 0.25), 2)[-1]
    torch.testing.assert_close(optimizer(weights, features, boxes, None, 2)[-1], given_equal)


def test_training_reaches_every_learned_part_through_the_steps():
    optimizer = DiscriminativeOptimizer()
    features = torch.randn(1, 2, 3, 18, 18, requires_grad=True)
    boxes = torch.tensor([100.0, 100, 50, 50]).expand(1, 2, 4)
    optimizer(torch.randn(1, 3, 4, 4), features, boxes, steps=2)[-1].square().sum().backward()
    assert features.grad.abs().sum() > 0
    for name, parameter in optimizer.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 30))
def test_a_learned_function_interpolates_its_knots_and_saturates(distance):
    values = torch.sin(torch.arange(100.0))
    function = DistanceFunction(values, 0.1)
    position = min(distance / 0.1, 99)
    lower = int(position)
    upper = min(lower + 1, 99)
    expected = float(values[lower]) * (1 - (position - lower)) + float(values[upper]) * (position - lower)
    assert float(function(torch.tensor(distance)).detach()) == pytest.approx(expected, abs=1e-4)


def test_the_initial_functions_are_those_specified():
    optimizer = DiscriminativeOptimizer()
    maps = optimizer.loss_maps(torch.tensor([[[144.0 - 20, 144 - 20, 40, 40]]]), (19, 19))
    sigma = 0.25 / 5 * 18
    floor = math.exp(-0.5 * (9.9 / sigma) ** 2)
    assert float(maps.label[0, 0, 9, 9].detach()) == pytest.approx(1 - floor, abs=1e-6)
    assert float(maps.label[0, 0, 9, 10].detach()) == pytest.approx(math.exp(-0.5 / sigma**2) - floor, abs=1e-3)
    assert float(maps.mask[0, 0, 9, 9].detach()) == pytest.approx(1 / (1 + math.exp(-3 * math.tanh(2))), abs=1e-5)
    assert (maps.weight == 1).all()
