# SPDX-License-Identifier: Apache-2.0
"""The baseline: the same procedure for one target as the obvious code does it, in the shape the reference has.

The whole frame becomes a float tensor, the window is cut from that, every view of the first frame is in one batch,
boxes are refined by autograd. `BaselineTracker` gives the boxes that `DimpTracker` gives, up to rounding and to the
window's corner, which lies on whole pixels here. It knows no search for lost targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmark.baseline_net import BaselineNet, Pair
from dimp_ros.geometry.box import Box
from dimp_ros.model.checkpoints.checkpoint import WeightsInfo, find_weights, read_weights
from dimp_ros.model.dimp import build_model
from dimp_ros.tracker.augment import first_frame_views
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.crop import SearchWindow
from dimp_ros.tracker.localization import Outcome, localize
from dimp_ros.tracker.stage_timer import StageTimer


class BaselineResult(NamedTuple):
    """A frame's outcome, the box believed in, the score map ``[R, C]``, and milliseconds by stage."""

    outcome: Outcome
    box: Box
    scores: NDArray[np.float32]
    stage_ms: dict[str, float]


class BaselineMemory:
    """The samples and their weights."""

    def __init__(self, features: Tensor, boxes: Tensor, config: TrackerConfig) -> None:
        self.first, self.config = len(features), config
        self.features = features.new_zeros((config.memory_size, *features.shape[1:]))
        self.boxes = boxes.new_zeros((config.memory_size, 4))
        self.features[: self.first], self.boxes[: self.first] = features, boxes
        self.weights = np.zeros(config.memory_size)
        self.weights[: self.first] = 1 / self.first
        self.count = self.first
        self.previous: int | None = None

    def add(self, features: Tensor, box: Tensor, rate: float) -> None:
        """Add a sample ``[C, H, W]`` with its box ``[4]``, in place of the lightest later one when full."""
        if self.count < len(self.weights):
            slot, self.count = self.count, self.count + 1
        else:
            slot = self.first + int(self.weights[self.first :].argmin())
        if self.previous is None:
            self.weights *= 1 - rate
            self.weights[slot] = rate
        else:
            self.weights[slot] = self.weights[self.previous] / (1 - rate)
        self.weights /= self.weights.sum()
        share, least = self.weights[: self.first].sum(), self.config.first_frame_share
        if share < least:
            self.weights[: self.first] = least / self.first
            self.weights[self.first :] *= (1 - least) / (1 - share)
        self.features[slot], self.boxes[slot] = features, box
        self.previous = slot


class BaselineTracker:
    """Follow one target.

    :param model: as for `DimpTracker`. :param weights: ``random`` for the random weights that `DimpTracker` draws.
    :param config: the procedure's constants; crop size and search scale come from the weights where it is None.
    """

    def __init__(
        self, model: str, device: torch.device, config: TrackerConfig | None = None, *, weights: str | None = None
    ) -> None:
        if weights == "random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed if config else 0)
                tensors, info = build_model(model).state_dict(), WeightsInfo(architecture=model)
        else:
            read = read_weights(find_weights(model))
            tensors, info = read.tensors, read.info
        self.device = device
        self.config = config or TrackerConfig(crop_size=info.crop_size, search_scale=info.search_scale)
        self.net = BaselineNet(tensors, info.architecture, device)

    @torch.no_grad()
    def init(self, image: NDArray[np.uint8], box: Sequence[float]) -> None:
        """Learn the target in ``box`` (x, y, w, h) of an image ``[H, W, 3]`` BGR uint8."""
        config, net = self.config, self.net
        self.box, self.frames = Box(*box), 0
        self.generator = torch.Generator().manual_seed(config.seed)
        side = config.search_scale * math.sqrt(self.box.area)
        window = whole_window(self.box.center, side, config.crop_size)
        around = SearchWindow(
            window.x - window.side // 2, window.y - window.side // 2, 2 * window.side, 2 * config.crop_size
        )
        large = cut(float_frame(image, self.device), around)[0].permute(1, 2, 0).flip(-1)
        pixels = large.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        rng = np.random.default_rng(config.seed)
        views = first_frame_views(np.ascontiguousarray(pixels), window.box_to_crop(self.box), config, rng)
        images = torch.stack([float_frame(view.image, self.device)[0] for view in views])
        boxes = torch.tensor([view.box for view in views], device=self.device)
        backbone = net.backbone(images)
        plain = backbone[1][:1]
        shape, keep = (config.dropout_copies, plain.shape[1], 1, 1), 1 - config.dropout_rate
        copies = plain * (torch.rand(shape, generator=self.generator) < keep).to(plain) / keep
        features = net.classification_features(torch.cat((backbone[1], copies)))
        boxes = torch.cat((boxes, boxes[:1].expand(config.dropout_copies, -1)))
        equal = torch.full((len(boxes),), 1 / len(boxes), device=self.device)
        first = net.initial_filter(features, boxes)
        self.filter = net.optimize(first, features, boxes, equal, config.init_steps)
        self.modulation = net.modulation((backbone[0][:1], plain), boxes[:1])
        self.memory = BaselineMemory(features, boxes, config)

    @torch.no_grad()
    def update(self, image: NDArray[np.uint8]) -> BaselineResult:
        """Find the target in the next image."""
        clock, config, net = StageTimer(), self.config, self.net
        window = whole_window(self.box.center, config.search_scale * math.sqrt(self.box.area), config.crop_size)
        crop = cut(float_frame(image, self.device), window)
        clock.record("crop")
        backbone = net.backbone(crop)
        clock.record("backbone")
        features = net.classification_features(backbone[1])
        scores = F.conv2d(features, self.filter, padding=2)[0, 0].cpu().numpy()
        clock.record("classify")
        last = window.box_to_crop(self.box)
        center = (last.center[1] / 16, last.center[0] / 16)
        place = localize(scores, (last.h / 16, last.w / 16), center, config)
        clock.record("localize")
        self.frames += 1
        if place.outcome is not Outcome.NOT_FOUND:
            start = Box.from_center(16 * place.cell[1], 16 * place.cell[0], last.w, last.h)
            height, width = image.shape[:2]
            self.box = inside(window.box_to_image(self._refine(backbone, start)), width, height, config)
        clock.record("refine")
        if place.outcome in (Outcome.NORMAL, Outcome.HARD_NEGATIVE):
            self._learn(features[0], window.box_to_crop(self.box), place.outcome is Outcome.HARD_NEGATIVE)
        clock.record("update")
        return BaselineResult(place.outcome, self.box, scores, clock.stages)

    def _refine(self, backbone: Pair, start: Box) -> Box:
        """Return the mean of the best boxes that gradient ascent leads to, in crop pixels."""
        config, features = self.config, self.net.overlap_features(backbone)
        boxes = self._starting_boxes(start).to(self.device)
        if not config.refine_steps:
            predicted = self.net.overlap(self.modulation, features, boxes)
        for _ in range(config.refine_steps):
            with torch.enable_grad():
                variable = boxes.detach().requires_grad_(True)
                predicted = self.net.overlap(self.modulation, features, variable)
                (gradient,) = torch.autograd.grad(predicted.sum(), variable)
            boxes = boxes + config.refine_step_length * gradient * boxes[:, 2:].repeat(1, 2)
        overlaps, boxes = predicted.detach().cpu(), boxes.cpu()
        sides = boxes[:, 2:].clamp(min=1)
        aspect = sides[:, 0] / sides[:, 1]
        sane = (aspect < config.max_aspect) & (aspect > 1 / config.max_aspect) & torch.isfinite(boxes).all(1)
        if not sane.any():
            return start
        best = overlaps[sane].topk(min(config.best_boxes, int(sane.sum()))).indices
        return Box(*torch.cat((boxes[:, :2], sides), 1)[sane][best].mean(0).tolist())

    def _starting_boxes(self, box: Box) -> Tensor:
        """Return the predicted box and jittered ones, ``[P, 4]``."""
        config, size = self.config, math.sqrt(box.area)
        jitter = torch.rand((config.proposals - 1, 4), generator=self.generator) * 2 - 1
        predicted = torch.tensor(box)
        center = predicted[:2] + predicted[2:] / 2 + jitter[:, :2] * config.jitter_center * size
        sides = predicted[2:] + jitter[:, 2:] * config.jitter_size * size
        sides = sides.clamp(min=min(box.w, box.h) / 3)
        return torch.cat((predicted[None], torch.cat((center - sides / 2, sides), 1)))

    def _learn(self, features: Tensor, box: Box, hard: bool) -> None:
        config, memory = self.config, self.memory
        rate = config.hard_negative_rate if hard else config.learning_rate
        memory.add(features, torch.tensor(box, device=self.device), rate)
        steps = config.update_steps if self.frames % config.update_interval == 0 else 0
        steps = config.hard_negative_steps if hard else steps
        if steps:
            held = slice(0, memory.count)
            gamma = torch.from_numpy(memory.weights[held]).to(features)
            self.filter = self.net.optimize(self.filter, memory.features[held], memory.boxes[held], gamma, steps)


def float_frame(image: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return an image ``[H, W, 3]`` BGR as floats ``[1, 3, H, W]`` RGB, 0..255."""
    return torch.from_numpy(image).to(device).permute(2, 0, 1)[None].flip(1).float()


def whole_window(center: tuple[float, float], side: float, size: int) -> SearchWindow:
    """Return the search window round a place, its corner and side in whole pixels."""
    whole = max(round(side), 2)
    return SearchWindow(round(center[0] - whole / 2), round(center[1] - whole / 2), whole, size)


def cut(frame: Tensor, window: SearchWindow) -> Tensor:
    """Cut a window from a frame ``[1, 3, H, W]``, its border replicated, and resample it to ``[1, 3, size, size]``."""
    height, width = frame.shape[-2:]
    x0, y0, side = int(window.x), int(window.y), int(window.side)
    beyond = (max(-x0, 0), max(x0 + side - width, 0), max(-y0, 0), max(y0 + side - height, 0))
    part = frame[..., max(y0, 0) : max(y0 + side, 0), max(x0, 0) : max(x0 + side, 0)]
    part = F.pad(part, beyond, mode="replicate")
    if side >= 2 * window.size:
        return F.interpolate(part, (window.size, window.size), mode="area")
    return F.interpolate(part, (window.size, window.size), mode="bilinear", align_corners=False)


def inside(box: Box, width: int, height: int, config: TrackerConfig) -> Box:
    """Keep a box's sides within reason and its centre in, or only a little outside, the image."""
    w, h = (min(max(side, config.min_target_side), 2.0 * max(width, height)) for side in (box.w, box.h))
    cx = min(max(box.center[0], -config.max_outside * w), width + config.max_outside * w)
    cy = min(max(box.center[1], -config.max_outside * h), height + config.max_outside * h)
    return Box.from_center(cx, cy, w, h)
