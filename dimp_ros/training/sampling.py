# SPDX-License-Identifier: Apache-2.0
"""From frames to network input: jittered search windows, and proposals for the overlap network."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.geometry import Box
from dimp_ros.tracker.crop import SearchWindow, crop
from dimp_ros.training.photometric import Image, degrade
from dimp_ros.training.synthesis import Frame, SequenceMaker

CROP_SIZE = 288
SEARCH_SCALE = 5.0
PROPOSAL_SIGMAS = (0.01, 0.05, 0.1, 0.2, 0.3)


class Crops(NamedTuple):
    """Search windows of one sequence: RGB ``images`` ``[K, S, S, 3]``, ``boxes`` ``[K, 4]``, ``visible`` ``[K]``.

    The first half of the K windows is jittered little (they train the filter), the second half more (they test it).
    """

    images: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    visible: NDArray[np.float32]


def jittered_window(box: Box, rng: np.random.Generator, shift: float, log_scale: float) -> SearchWindow:
    """Return a search window displaced from the target by up to ``shift`` target sizes and scaled at random."""
    size = float(np.sqrt(max(box.area, 100.0)))
    offset = rng.uniform(-shift, shift, 2) * size
    side = SEARCH_SCALE * size * float(np.exp(np.clip(rng.normal(0, log_scale), -1, 1)))
    # The target's centre stays in the window, at least 5 % of its side from the edge.
    offset = np.clip(offset, -0.45 * side, 0.45 * side)
    center = (box.center[0] + offset[0], box.center[1] + offset[1])
    return SearchWindow.around(center, side, CROP_SIZE)


def sample_crops(maker: SequenceMaker, rng: np.random.Generator, per_role: int) -> Crops:
    """Make one sequence of ``2 * per_role`` search windows; draws until one is usable."""
    while True:
        times = np.sort(rng.uniform(0, 1, 2 * per_role))[rng.permutation(2 * per_role)]
        frames = maker.make(rng, times, clean=per_role)
        if frames is not None and all(_usable(f, index < per_role) for index, f in enumerate(frames)):
            break
    flip, grey = rng.random() < 0.5, rng.random() < 0.07
    images, boxes = [], []
    for index, frame in enumerate(frames):
        shift, log_scale = (1.5, 0.25) if index < per_role else (2.25, 0.5)
        window = jittered_window(frame.box, rng, shift, log_scale)
        image: Image = degrade(crop(frame.image, window), rng)
        box = window.box_to_crop(frame.box)
        if grey:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        if flip:
            image, box = image[:, ::-1], Box(CROP_SIZE - box.x - box.w, box.y, box.w, box.h)
        images.append(image[..., ::-1])
        boxes.append(box)
    visible = np.array([frame.visible for frame in frames], np.float32)
    return Crops(np.stack(images), np.array(boxes, np.float32), visible)


def _usable(frame: Frame, clean: bool) -> bool:
    """Tell whether a frame can be used: its target in the picture and, where it must be clean, in sight."""
    box = frame.box
    if min(box.w, box.h) < 6 or max(box.w, box.h) > 6 * min(box.w, box.h):
        return False
    return frame.visible > 0.7 if clean else True


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of boxes (x, y, w, h), ``Tensor[..., 4]`` each, broadcast."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    return inter / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - inter).clamp(min=1e-6)


def make_proposals(boxes: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw ``count`` proposals round each box, and their IoU with it.

    Of half of them centre and sides are displaced by Gaussians whose sigma is drawn from 0.01 to 0.3 target sizes; the
    others are stretched along each axis by a factor of its own, as a box that has drifted is, which displacements
    relative to sqrt(w * h) hardly do to the longer side of a long target. Of several draws those with an IoU of at
    least 0.1 are taken.

    :param boxes: ``Tensor[B, 4]``. :return: proposals ``Tensor[B, count, 4]`` and IoU ``Tensor[B, count]``.
    """
    draws = 4
    size = boxes[:, 2:].prod(-1, keepdim=True).sqrt()[:, None]
    choice = torch.randint(len(PROPOSAL_SIGMAS), (len(boxes), count * draws, 1), generator=generator)
    sigma = torch.tensor(PROPOSAL_SIGMAS)[choice] * size
    shift, change = torch.randn(2, len(boxes), count * draws, 2, generator=generator)
    stretched = (torch.arange(count * draws) % 2 == 1)[:, None]
    truth = boxes[:, None, 2:]
    sides = torch.where(stretched, truth * (0.45 * change).clamp(-1.2, 1.2).exp(), truth + sigma * change)
    sides = torch.maximum(sides, 0.15 * truth)
    center = boxes[:, None, :2] + truth / 2 + shift * torch.where(stretched, 0.15 * torch.maximum(sides, truth), sigma)
    candidates = torch.cat((center - sides / 2, sides), -1)
    iou = box_iou(candidates, boxes[:, None])
    # Valid draws first, in the order drawn; a box that has too few keeps some that overlap less.
    order = (iou < 0.1).long().argsort(dim=1, stable=True)[:, :count]
    return candidates.gather(1, order[..., None].expand(-1, -1, 4)), iou.gather(1, order)
