# SPDX-License-Identifier: Apache-2.0
"""What the overlap network learns of a target's extent from the first frame: its modulation vectors are fitted.

The overlap of any box with the target is known there. As the network comes from training, its prediction is highest at
another box than the given one; a few steps on the modulation vectors move the maximum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dimp_ros.model.backbone import Features
from dimp_ros.model.iou_net import IoUNet, Modulation
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.modulation_fit import LEAST_OVERLAP, PROPOSALS, SPREADS


def fit_modulation(
    net: IoUNet, modulation: Modulation, views: Features, boxes: Tensor, config: TrackerConfig
) -> Modulation:
    """Return modulation vectors with which the predicted overlap fits the known one in the views of the first frame.

    :param modulation: of one target, what the reference branch makes of it. :param views: features of V views.
    :param boxes: the target's box in each, ``Tensor[V, 4]`` in crop pixels.
    """
    generator = torch.Generator().manual_seed(config.seed)
    with torch.inference_mode(False), torch.enable_grad():
        start = Modulation(*(vector.clone() for vector in modulation))
        boxes = boxes.clone().float()
        with torch.no_grad():
            features = net.features(Features(*(maps.clone().float() for maps in views)))
            proposals = draw_proposals(boxes, generator)
            truth = 2 * overlap(proposals, boxes[:, None]).flatten() - 1
            pooled8 = net.pool3_t(features.stride8, proposals).flatten(0, 1)
            pooled16 = net.pool4_t(features.stride16, proposals).flatten(0, 1)
            counts = (truth > 2 * LEAST_OVERLAP - 1).float()
        scales = [vector.abs().mean() for vector in start]
        changes = [torch.zeros_like(vector).requires_grad_(True) for vector in start]
        optimizer = torch.optim.Adam(changes, lr=config.box_fit_rate)
        for _ in range(config.box_fit_steps):
            vector8, vector16 = (v + d * s for v, d, s in zip(start, changes, scales, strict=True))
            hidden8 = net.fc3_rt(pooled8 * vector8[..., None, None])
            hidden16 = net.fc4_rt(pooled16 * vector16[..., None, None])
            predicted = net.iou_predictor(torch.cat((hidden8, hidden16), 1)).flatten()
            loss = ((predicted - truth).square() * counts).sum() / counts.sum().clamp(min=1)
            optimizer.zero_grad()
            gradients = torch.autograd.grad(loss, changes)
            for change, gradient in zip(changes, gradients, strict=True):
                change.grad = gradient
            optimizer.step()
        return Modulation(*((v + d * s).detach() for v, d, s in zip(start, changes, scales, strict=True)))


def draw_proposals(boxes: Tensor, generator: torch.Generator) -> Tensor:
    """Return wrong boxes round each of ``Tensor[V, 4]``, ``Tensor[V, PROPOSALS, 4]``."""
    shape = (len(boxes), PROPOSALS)
    spread = torch.tensor(SPREADS)[torch.randint(0, len(SPREADS), shape, generator=generator)][..., None]
    noise = (torch.randn((*shape, 4), generator=generator) * spread).to(boxes.device)
    corner, size = boxes[:, None, :2], boxes[:, None, 2:]
    center, sides = corner + size / 2 + noise[..., :2] * size, size * (1.5 * noise[..., 2:]).exp()
    return torch.cat((center - sides / 2, sides), -1)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of boxes x, y, w, h ``Tensor[..., 4]``."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    inner = (high - low).clamp(min=0).prod(-1)
    return inner / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - inner)
