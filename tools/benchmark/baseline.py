# SPDX-License-Identifier: Apache-2.0
"""The baseline: the same procedure for one target in straightforward eager PyTorch.

The whole frame becomes a float tensor, the window is cut from it, all views of the first frame are one batch, boxes are
refined by autograd. `BaselineTracker` gives the boxes of `DimpTracker` up to rounding and to the window's corner, which
is on whole pixels here. It has no re-detection.
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
from dimp_ros.model.checkpoints.checkpoint import read_weights
from dimp_ros.model.checkpoints.weights_file import WeightsInfo, find_weights
from dimp_ros.model.dimp import build_model
from dimp_ros.tracker.augment import first_frame_views
from dimp_ros.tracker.box_refinement import average_best, clip_box, starting_boxes
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.crop import SearchWindow
from dimp_ros.tracker.localization import Outcome, localize
from dimp_ros.tracker.memory import SampleMemory
from dimp_ros.tracker.random_numbers import UniformNumbers
from dimp_ros.tracker.stage_timer import StageTimer


class BaselineResult(NamedTuple):
    """A frame's outcome, the box, the score map ``[R, C]``, and milliseconds by stage."""

    outcome: Outcome
    box: Box
    scores: NDArray[np.float32]
    stage_ms: dict[str, float]


class BaselineTracker:
    """Track one target.

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
        self.random = UniformNumbers(config.seed)
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
        copies = plain * torch.from_numpy(self.random(*shape) < np.float32(keep)).to(plain) / keep
        features = net.classification_features(torch.cat((backbone[1], copies)))
        boxes = torch.cat((boxes, boxes[:1].expand(config.dropout_copies, -1)))
        equal = torch.full((len(boxes),), 1 / len(boxes), device=self.device)
        first = net.initial_filter(features, boxes)
        self.filter = net.optimize(first, features, boxes, equal, config.init_steps)[-1]
        self.modulation = net.modulation((backbone[0][:1], plain), boxes[:1])
        reserved = features.new_zeros((config.memory_size, *features.shape[1:]))
        reserved[: len(features)] = features
        self.memory = SampleMemory(reserved, boxes.cpu().numpy(), config.first_frame_share)

    @torch.no_grad()
    def update(self, image: NDArray[np.uint8]) -> BaselineResult:
        """Find the target in the next image."""
        timer, config, net = StageTimer(), self.config, self.net
        window = whole_window(self.box.center, config.search_scale * math.sqrt(self.box.area), config.crop_size)
        crop = cut(float_frame(image, self.device), window)
        timer.record("crop")
        backbone = net.backbone(crop)
        timer.record("backbone")
        features = net.classification_features(backbone[1])
        scores = F.conv2d(features, self.filter, padding=2)[0, 0].cpu().numpy()
        timer.record("classify")
        last = window.box_to_crop(self.box)
        center = (last.center[1] / 16, last.center[0] / 16)
        found = localize(scores, (last.h / 16, last.w / 16), center, config)
        timer.record("localize")
        self.frames += 1
        if found.outcome is not Outcome.NOT_FOUND:
            start = Box.from_center(16 * found.cell[1], 16 * found.cell[0], last.w, last.h)
            height, width = image.shape[:2]
            self.box = clip_box(window.box_to_image(self._refine(backbone, start)), (width, height), config)
        timer.record("refine")
        if found.outcome in (Outcome.NORMAL, Outcome.HARD_NEGATIVE):
            self._learn(features[0], window.box_to_crop(self.box), found.outcome is Outcome.HARD_NEGATIVE)
        timer.record("update")
        return BaselineResult(found.outcome, self.box, scores, timer.stages)

    def _refine(self, backbone: Pair, start: Box) -> Box:
        """Return the mean of the best boxes that gradient ascent leads to, in crop pixels."""
        config, features = self.config, self.net.overlap_features(backbone)
        boxes = torch.from_numpy(starting_boxes(start, config, self.random)).to(self.device)
        if not config.refine_steps:
            predicted = self.net.overlap(self.modulation, features, boxes)
        for _ in range(config.refine_steps):
            with torch.enable_grad():
                variable = boxes.detach().requires_grad_(True)
                predicted = self.net.overlap(self.modulation, features, variable)
                (gradient,) = torch.autograd.grad(predicted.sum(), variable)
            boxes = boxes + config.refine_step_length * gradient * boxes[:, 2:].repeat(1, 2)
        return average_best(boxes.cpu().numpy(), predicted.detach().cpu().numpy(), config) or start

    def _learn(self, features: Tensor, box: Box, hard: bool) -> None:
        config, memory = self.config, self.memory
        rate = config.hard_negative_rate if hard else config.learning_rate
        memory.add(features, np.array(box, np.float32), rate)
        steps = config.update_steps if self.frames % config.update_interval == 0 else 0
        steps = config.hard_negative_steps if hard else steps
        if steps:
            features, *known = memory.samples()
            boxes, gamma = (torch.from_numpy(part).to(self.device) for part in known)
            self.filter = self.net.optimize(self.filter, features, boxes, gamma, steps)[-1]


def float_frame(image: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return an image ``[H, W, 3]`` BGR as floats ``[1, 3, H, W]`` RGB, 0..255."""
    return torch.from_numpy(image).to(device).permute(2, 0, 1)[None].flip(1).float()


def whole_window(center: tuple[float, float], side: float, size: int) -> SearchWindow:
    """Return the search window around a point, with corner and side in whole pixels."""
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
