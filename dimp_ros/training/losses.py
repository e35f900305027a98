# SPDX-License-Identifier: Apache-2.0
"""Training losses: the hinged score error of every filter iterate and the error of the predicted overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import DimpNet
from dimp_ros.model.sizes import STRIDE
from dimp_ros.model.target_filter import apply_filter
from dimp_ros.training.sampling import make_proposals

LABEL_SIGMA = 0.05 * 18
HINGE_THRESHOLD = 0.05


class Batch(NamedTuple):
    """B sequences: backbone features and boxes of their training and of their test images.

    Features are ``[B * N, C, H, W]`` in single precision, boxes ``[B, N, 4]`` in crop pixels, ``visible``
    ``[B, N_test]`` of 0..1.
    """

    train: Features
    train_boxes: Tensor
    test: Features
    test_boxes: Tensor
    visible: Tensor


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses, and limits of visibility.

    :param initial: the initialiser's filter. :param intermediate: mean of the iterates between. :param final: the last.
    :param iou: the overlap network; 0 does not train it, which takes less time.
    :param hidden_below: a target less visible than this is absent (all labels 0).
    :param seen_above: a target at least this visible is present; images between the two limits do not count.
    """

    initial: float = 100.0
    intermediate: float = 400.0
    final: float = 100.0
    iou: float = 1.0
    hidden_below: float = 0.1
    seen_above: float = 0.4


def gaussian_labels(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the label scores ``Tensor[..., *size]``: a Gaussian at the centre of ``boxes`` ``Tensor[..., 4]``."""
    center = (boxes[..., :2] + boxes[..., 2:] / 2) / STRIDE
    rows = torch.arange(size[0], dtype=boxes.dtype, device=boxes.device)
    columns = torch.arange(size[1], dtype=boxes.dtype, device=boxes.device)
    dy = rows - center[..., 1, None]
    dx = columns - center[..., 0, None]
    exponent = -0.5 / LABEL_SIGMA**2
    return (exponent * dy.square()).exp()[..., :, None] * (exponent * dx.square()).exp()[..., None, :]


def hinge_error(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the squared error per cell; below the label threshold only positive scores count (`LBHinge`)."""
    background = labels < HINGE_THRESHOLD
    error = torch.where(background, scores.clamp(min=0), scores - labels)
    return error.square()


def training_losses(
    model: DimpNet,
    batch: Batch,
    weights: LossWeights,
    generator: torch.Generator,
    proposals: int,
    steps: int,
    *,
    classify: bool = True,
) -> dict[str, Tensor]:
    """Return the losses of a batch: ``total`` to minimise, and its unweighted parts.

    :param generator: a CPU generator. :param steps: of the filter's optimiser.
    :param classify: whether to compute the classifier's losses, too.
    """
    nothing = batch.visible.new_zeros(())
    overlap = overlap_loss(model, batch, weights, generator, proposals) if weights.iou else nothing
    if not classify:
        return {"total": weights.iou * overlap, "iou": overlap}
    errors = score_errors(model, batch, weights, steps)
    middle = torch.stack(errors[1:-1]).mean() if steps > 1 else nothing
    total = weights.initial * errors[0] + weights.intermediate * middle + weights.final * errors[-1]
    total = total + weights.iou * overlap
    return {"total": total, "initial": errors[0], "final": errors[-1], "iou": overlap}


def score_errors(model: DimpNet, batch: Batch, weights: LossWeights, steps: int) -> list[Tensor]:
    """Return the hinged error of the test images' scores for every iterate of the filter."""
    count, train_n = batch.train_boxes.shape[:2]
    test_n = batch.test_boxes.shape[1]
    classifier = model.classifier
    train_features = classifier.features(batch.train.stride16).float().unflatten(0, (count, train_n))
    test_features = classifier.features(batch.test.stride16).float().unflatten(0, (count, test_n))
    with torch.autocast(train_features.device.type, enabled=False):
        errors = _iterate_errors(model, batch, weights, steps, train_features, test_features)
    return errors


def _iterate_errors(
    model: DimpNet, batch: Batch, weights: LossWeights, steps: int, train_features: Tensor, test_features: Tensor
) -> list[Tensor]:
    """Return the hinged error of every iterate, in float32, which the step length needs."""
    classifier = model.classifier
    first = classifier.filter_initializer(train_features, batch.train_boxes)
    iterates = classifier.filter_optimizer(first, train_features, batch.train_boxes, steps=steps)
    seen = batch.visible >= weights.seen_above
    absent = batch.visible < weights.hidden_below
    errors = []
    for iterate in iterates:
        scores = apply_filter(test_features, iterate)
        labels = gaussian_labels(batch.test_boxes, (scores.shape[-2], scores.shape[-1])) * seen[..., None, None]
        error = hinge_error(scores, labels).mean((-2, -1))
        counts = (seen | absent).float()
        errors.append((error * counts).sum() / counts.sum().clamp(min=1))
    return errors


def overlap_loss(
    model: DimpNet, batch: Batch, weights: LossWeights, generator: torch.Generator, proposals: int
) -> Tensor:
    """Return the squared error of the overlap predicted for proposals in the test images."""
    count, train_n = batch.train_boxes.shape[:2]
    test_n = batch.test_boxes.shape[1]
    seen = batch.visible >= weights.seen_above
    boxes = batch.test_boxes.flatten(0, 1)
    candidates, iou = make_proposals(boxes, proposals, generator)
    reference = Features(*(f.unflatten(0, (count, train_n))[:, 0] for f in batch.train))
    modulation = model.bb_regressor.modulation(reference, batch.train_boxes[:, 0])
    modulation = type(modulation)(*(m.float().repeat_interleave(test_n, 0) for m in modulation))
    features = Features(*(f.float() for f in model.bb_regressor.features(batch.test)))
    with torch.autocast(boxes.device.type, enabled=False):
        predicted = model.bb_regressor(modulation, features, candidates)
    overlap = (predicted - (2 * iou - 1)).square().mean(1)
    return (overlap * seen.flatten()).sum() / seen.sum().clamp(min=1)
