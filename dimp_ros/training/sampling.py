# SPDX-License-Identifier: Apache-2.0
"""Network input: jittered search windows of planned scenes, and proposals for the overlap network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.synthetic.photometric import (
    PhotometricSample,
    apply_photometric,
    concatenate_samples,
    sample_photometric,
    simulate_camera,
)
from dimp_ros.synthetic.renderer import SceneRenderer
from dimp_ros.synthetic.scene import PlannedScene
from dimp_ros.synthetic.scene_planner import ScenePlanner

CROP_SIZE = 288
SEARCH_SCALE = 5.0
PROPOSAL_SIGMAS = (0.01, 0.05, 0.1, 0.2, 0.3)

TRAIN_JITTER, TEST_JITTER = (1.5, 0.25), (2.25, 0.5)
"""Largest displacement of windows (target sizes) and scale (sigma of the logarithm)."""

SMALLEST, LONGEST_ASPECT, SEEN = 6.0, 6.0, 0.7

MOST_DRAWS = 5000
"""Of a sequence; far more than images take of which sequences can be made."""

MOSTLY = 0.6
"""Windows with a smaller share inside their frames show mostly repeated borders."""


class Group(NamedTuple):
    """The plan of K search windows of a sequence: the first train the filter, the others test it.

    :param windows: ``[K, 3]``, corner in the frame and frame pixels per crop pixel. :param boxes: ``[K, 4]``, in crop
        pixels. :param visible: ``[K]`` of 0..1. :param flip: whether the crops are mirrored; ``boxes`` already are.
    """

    scene: PlannedScene
    windows: NDArray[np.float64]
    boxes: NDArray[np.float32]
    visible: NDArray[np.float32]
    flip: bool
    photometric: PhotometricSample


def jittered_windows(
    boxes: NDArray[np.float64], rng: np.random.Generator, shift: NDArray[np.float64], log_scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return windows ``[K, 3]`` round ``boxes`` ``[K, 4]``, displaced by up to ``shift`` target sizes and scaled."""
    count = len(boxes)
    size = np.sqrt(np.maximum(boxes[:, 2] * boxes[:, 3], 100.0))
    side = SEARCH_SCALE * size * np.exp(np.clip(rng.normal(0, 1, count) * log_scale, -1, 1))
    offset = rng.uniform(-1, 1, (count, 2)) * (shift * size)[:, None]
    # Keep the target's centre at least 5 % of the side away from the edge.
    offset = np.clip(offset, -0.45 * side[:, None], 0.45 * side[:, None])
    corner = boxes[:, :2] + boxes[:, 2:] / 2 + offset - side[:, None] / 2
    return np.concatenate((corner, side[:, None] / CROP_SIZE), 1)


def draw_group(planner: ScenePlanner, rng: np.random.Generator, train: int, test: int) -> Group:
    """Plan ``train`` + ``test`` search windows of one sequence; draws until the scene is usable.

    :raises ValueError: if none of `MOST_DRAWS` is.
    """
    count = train + test
    role = np.arange(count) < train
    shift, log_scale = (np.where(role, *pair) for pair in zip(TRAIN_JITTER, TEST_JITTER, strict=True))
    for _ in range(MOST_DRAWS):
        times = rng.uniform(0, 1, count)
        scene = planner.plan(rng, times, clean=train)
        if scene is None or not _usable(scene, train):
            continue
        windows = jittered_windows(scene.boxes, rng, shift, log_scale)
        clip = len(set(scene.images.tolist())) > 1
        inside = planner.config.inside
        if not inside or clip or inside_share(windows, scene) >= MOSTLY or rng.random() >= inside:
            break
    else:
        raise ValueError(
            f"none of {MOST_DRAWS} sequences of these images is usable: a target needs sides of {SMALLEST:g} pixels or "
            f"more, at most 1 : {LONGEST_ASPECT:g}, and must be seen; take other images, or another mix of scenes"
        )
    boxes = np.concatenate((scene.boxes[:, :2] - windows[:, :2], scene.boxes[:, 2:]), 1) / windows[:, 2:]
    flip = bool(rng.random() < 0.5)
    if flip:
        boxes[:, 0] = CROP_SIZE - boxes[:, 0] - boxes[:, 2]
    visible = scene.visible.astype(np.float32)
    sample = sample_photometric(rng, count)
    if planner.config.camera:
        sample = simulate_camera(sample, rng, windows[:, 2], CROP_SIZE, planner.config.coarse)
    return Group(scene, windows, boxes.astype(np.float32), visible, flip, sample)


def inside_share(windows: NDArray[np.float64], scene: PlannedScene) -> float:
    """Return the share of the windows that lies in the frames."""
    side = windows[:, 2:] * CROP_SIZE
    low = np.maximum(windows[:, :2], 0)
    high = np.minimum(windows[:, :2] + side, (scene.width, scene.height))
    return float((np.clip(high - low, 0, None) / side).prod(1).mean())


def _usable(scene: PlannedScene, train: int) -> bool:
    """Tell whether every target is large enough, and visible in the training frames."""
    sides = scene.boxes[:, 2:]
    shape = (sides.min(1) >= SMALLEST) & (sides.max(1) <= LONGEST_ASPECT * np.maximum(sides.min(1), 1e-6))
    return bool(shape.all() and (scene.visible[:train] > SEEN).all())


def render_groups(renderer: SceneRenderer, groups: list[Group], generator: torch.Generator | None = None) -> Tensor:
    """Render the crops of groups of K windows each: RGB ``uint8 [G, K, 3, CROP_SIZE, CROP_SIZE]``.

    :param generator: for the noise, on the renderer's device.
    """
    images = renderer.render([g.scene for g in groups], [g.windows for g in groups], (CROP_SIZE, CROP_SIZE))
    images = apply_photometric(images, concatenate_samples([group.photometric for group in groups]), generator)
    images = images.round_().clamp_(0, 255).byte().unflatten(0, (len(groups), -1))
    for index, group in enumerate(groups):
        if group.flip:
            images[index] = images[index].flip(-1)
    return images


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of boxes (x, y, w, h), ``Tensor[..., 4]`` each, broadcast."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    return inter / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - inter).clamp(min=1e-6)


def make_proposals(boxes: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw ``count`` proposals round each box, and their IoU with it.

    Half are displaced by Gaussians with a sigma drawn from 0.01 to 0.3 target sizes; the others are stretched on each
    axis by a factor of its own, like boxes that have drifted. Draws with an IoU of at least 0.1 are preferred.

    :param boxes: ``Tensor[B, 4]`` on any device. :param generator: on the CPU, so that all devices draw the same.
    :return: proposals ``Tensor[B, count, 4]`` and IoU ``Tensor[B, count]``.
    """
    draws, device = 4, boxes.device
    size = boxes[:, 2:].prod(-1, keepdim=True).sqrt()[:, None]
    choice = torch.randint(len(PROPOSAL_SIGMAS), (len(boxes), count * draws, 1), generator=generator)
    sigma = torch.tensor(PROPOSAL_SIGMAS)[choice].to(device) * size
    shift, change = torch.randn(2, len(boxes), count * draws, 2, generator=generator).to(device)
    stretched = (torch.arange(count * draws, device=device) % 2 == 1)[:, None]
    truth = boxes[:, None, 2:]
    sides = torch.where(stretched, truth * (0.45 * change).clamp(-1.2, 1.2).exp(), truth + sigma * change)
    sides = torch.maximum(sides, 0.15 * truth)
    center = boxes[:, None, :2] + truth / 2 + shift * torch.where(stretched, 0.15 * torch.maximum(sides, truth), sigma)
    candidates = torch.cat((center - sides / 2, sides), -1)
    iou = box_iou(candidates, boxes[:, None])
    # Valid draws first, in order; a box with too few keeps others.
    order = (iou < 0.1).long().argsort(dim=1, stable=True)[:, :count]
    return candidates.gather(1, order[..., None].expand(-1, -1, 4)), iou.gather(1, order)
