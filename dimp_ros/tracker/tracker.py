# SPDX-License-Identifier: Apache-2.0
"""`DimpTracker`: the online procedure of DiMP for one or more targets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.geometry import Box, check_box
from dimp_ros.model.backbone import Features
from dimp_ros.model.checkpoint import WeightsInfo, load_model
from dimp_ros.model.dimp import build_model
from dimp_ros.model.iou_net import Modulation
from dimp_ros.model.overlap_gradient import OverlapHead
from dimp_ros.model.target_filter import STRIDE, apply_filter
from dimp_ros.tracker.augment import first_frame_views
from dimp_ros.tracker.clock import StageClock
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.crop import SearchWindow, crop
from dimp_ros.tracker.device import choose_device
from dimp_ros.tracker.images import Picture, as_picture, to_color
from dimp_ros.tracker.localize import Localization, Outcome, highest, localize
from dimp_ros.tracker.memory import SampleMemory
from dimp_ros.tracker.refine import ascend, choose, starting_boxes
from dimp_ros.tracker.result import TargetState, TrackResult
from dimp_ros.tracker.target import Frame, FrameInspection, Target

STATES = {
    Outcome.NORMAL: TargetState.TRACKING,
    Outcome.HARD_NEGATIVE: TargetState.TRACKING,
    Outcome.UNCERTAIN: TargetState.UNCERTAIN,
    Outcome.NOT_FOUND: TargetState.LOST,
}


class DimpTracker:
    """Follow targets given by a box through a stream of images.

    :param model: ``dimp_lite``, ``dimp18``, ``dimp50``, or the path of a weights file.
    :param device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    :param config: the procedure's constants; crop size and search scale come from the weights where it is None.
    :param weights: ``random`` builds the named model without weights, for tests and benchmarks.
    :raises FileNotFoundError: if the weights are not there. :raises ValueError: if they do not fit.
    """

    def __init__(
        self,
        model: str = "dimp_lite",
        device: str = "auto",
        config: TrackerConfig | None = None,
        *,
        weights: str | None = None,
    ) -> None:
        self.device = choose_device(device)
        if weights == "random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed if config else 0)
                net, info = build_model(model).eval().requires_grad_(False), WeightsInfo(architecture=model)
        elif weights is None:
            net, info = load_model(model)
        else:
            raise ValueError(f"weights is {weights!r}; it must be None or 'random' (give a file as the model)")
        self.info, self._confidence = info, info.confidence
        self.config = config or TrackerConfig(crop_size=info.crop_size, search_scale=info.search_scale)
        self.net = net.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._overlap: OverlapHead | None = None
        self._targets: dict[str, Target] = {}

    @property
    def targets(self) -> tuple[str, ...]:
        """Ids of the targets being followed, oldest first."""
        return tuple(self._targets)

    def drop(self, target_id: str | None = None) -> None:
        """Forget a target, or all of them.

        :raises KeyError: if there is no such target.
        """
        if target_id is None:
            self._targets.clear()
        else:
            del self._targets[target_id]

    def warm_up(self) -> None:
        """Run every stage once on an empty picture, so that the first frame is not slower than the others."""
        kept = self._targets
        self._targets = {}
        try:
            blank = np.full((240, 320, 3), 128, np.uint8)
            self.init(blank, (140, 100, 40, 40))
            self.update(blank)
        finally:
            self._targets = kept

    @torch.no_grad()
    def init(self, image: NDArray[np.uint8] | Picture, box: Sequence[float], *, target_id: str = "0") -> TrackResult:
        """Start to follow what is in ``box``; an id that is already followed starts over.

        :param image: ``[H, W, 3]`` BGR or ``[H, W]`` grey, uint8, or a `Picture`.
        :param box: ``(x, y, w, h)`` in its pixels.
        :raises ValueError: if image or box cannot be used; targets being followed are left alone.
        """
        clock = StageClock()
        picture = as_picture(image)
        checked = check_box(box, picture.width, picture.height, min_side=self.config.min_target_side)
        config = self.config
        window = self._window(checked)
        large = crop(picture, SearchWindow.around(checked.center, 2 * window.side, 2 * config.crop_size))
        views = first_frame_views(
            to_color(large), window.box_to_crop(checked), config, np.random.default_rng(config.seed)
        )
        clock.lap("crop")
        backbone = self._extract([view.image for view in views])
        boxes = torch.tensor([view.box for view in views], device=self.device)
        clock.lap("backbone")

        # Made anew with every target, so that weights which were put into `net` since then are noticed.
        self._overlap = OverlapHead(self.net.bb_regressor)
        generator = torch.Generator().manual_seed(config.seed)
        stride16 = torch.cat((backbone.stride16, self._dropout_copies(backbone.stride16[:1], generator)))
        boxes = torch.cat((boxes, boxes[:1].expand(config.dropout_copies, -1)))
        features = self.net.classifier.features(stride16)
        first = self.net.classifier.filter_initializer(features[None], boxes[None])
        optimizer = self.net.classifier.filter_optimizer
        weights = optimizer(first, features[None], boxes[None], steps=config.init_steps)[-1]
        clock.lap("learn")
        modulation = self.net.bb_regressor.modulation(Features(*(f[:1] for f in backbone)), boxes[:1])
        memory = SampleMemory(features, boxes, config.memory_size, config.first_frame_share)
        scores = apply_filter(features[None, :1], weights)[0, 0].cpu().numpy()
        place = highest(scores)
        clock.lap("modulate")
        frame = Frame(window, views[0].image, scores, weights, place)
        self._targets[target_id] = Target(checked, weights, modulation, memory, generator, frame)
        return self._result(target_id, self._targets[target_id], clock.stages)

    def update(self, image: NDArray[np.uint8] | Picture) -> TrackResult:
        """Find the one target in the next image.

        :raises RuntimeError: if there is no target, or more than one (use `update_all`).
        """
        if len(self._targets) != 1:
            raise RuntimeError(
                f"update needs one target, there are {len(self._targets)}; "
                + ("call init first" if not self._targets else "call update_all")
            )
        return next(iter(self.update_all(image).values()))

    @torch.no_grad()
    def update_all(self, image: NDArray[np.uint8] | Picture) -> dict[str, TrackResult]:
        """Find every target in the next image, all search windows in one batch; the results are by id.

        :param image: as for `init`; its size may differ from the last one's.
        :raises ValueError: if the image cannot be used; the targets are left as they were.
        """
        clock = StageClock()
        picture = as_picture(image)
        if not self._targets:
            return {}
        targets = list(self._targets.values())
        windows = [self._window(target.box) for target in targets]
        crops = [to_color(crop(picture, window)) for window in windows]
        clock.lap("crop")
        backbone = self._extract(crops)
        clock.lap("backbone")
        features = self.net.classifier.features(backbone.stride16)
        scores = apply_filter(features[:, None], torch.cat([target.filter for target in targets]))[:, 0].cpu().numpy()
        clock.lap("classify")
        for target, window, seen, score in zip(targets, windows, crops, scores, strict=True):
            target.last = Frame(window, seen, score, target.filter, self._localize(target, window, score))
        clock.lap("localize")
        found = [i for i, target in enumerate(targets) if target.last.place.outcome is not Outcome.NOT_FOUND]
        if found:
            chosen = Features(*(f[found] for f in backbone))
            self._refine([targets[i] for i in found], chosen, (picture.width, picture.height))
        clock.lap("refine")
        for i, target in enumerate(targets):
            target.frame += 1
            if i in found:
                self._learn(target, features[i])
        clock.lap("update")
        return {target_id: self._result(target_id, target, clock.stages) for target_id, target in self._targets.items()}

    def inspect(self, target_id: str | None = None) -> FrameInspection:
        """Return copies of everything behind a target's last result: crop, scores, filter, proposals, samples.

        :param target_id: may be left out where there is one target.
        :raises KeyError: if there is no such target, or none or several to choose from.
        """
        if target_id is None and len(self._targets) == 1:
            return next(iter(self._targets.values())).inspect()
        if target_id not in self._targets:
            raise KeyError(f"there is no target {target_id!r}; targets are {list(self._targets)}")
        return self._targets[target_id].inspect()

    def confidence(self, peak: float) -> float:
        """Return the confidence for a score peak, by the map that is kept with the weights."""
        return self._confidence(peak)

    def _window(self, box: Box) -> SearchWindow:
        """Return the search window round the last box."""
        return SearchWindow.around(box.center, self.config.search_scale * math.sqrt(box.area), self.config.crop_size)

    def _extract(self, crops: list[NDArray[np.uint8]]) -> Features:
        """Run the backbone on BGR crops."""
        batch = torch.from_numpy(np.stack(crops)).to(self.device)
        return self.net.extract(batch.flip(-1).permute(0, 3, 1, 2))

    def _dropout_copies(self, plain: Tensor, generator: torch.Generator) -> Tensor:
        """Return copies of features ``Tensor[1, C, H, W]`` with some channels zeroed and the others scaled up."""
        keep = 1 - self.config.dropout_rate
        kept = torch.rand((self.config.dropout_copies, plain.shape[1], 1, 1), generator=generator) < keep
        return plain * kept.to(plain) / keep

    def _localize(self, target: Target, window: SearchWindow, scores: NDArray[np.float32]) -> Localization:
        """Decide where a target is in its scores."""
        last = window.box_to_crop(target.box)
        cells = (last.h / STRIDE, last.w / STRIDE)
        return localize(scores, cells, (last.center[1] / STRIDE, last.center[0] / STRIDE), self.config)

    def _refine(self, targets: list[Target], backbone: Features, size: tuple[int, int]) -> None:
        """Give targets that were found their new boxes.

        :param backbone: features of the targets' crops. :param size: width and height of the image.
        """
        net, config = self.net.bb_regressor, self.config
        starts = []
        for target in targets:
            window, (row, column) = target.last.window, target.last.place.cell
            last = window.box_to_crop(target.box)
            moved = window.box_to_image(Box.from_center(column * STRIDE, row * STRIDE, last.w, last.h))
            starts.append(window.box_to_crop(self._inside(moved, size)))
        proposals = torch.stack(
            [starting_boxes(s, config, target.generator) for s, target in zip(starts, targets, strict=True)]
        )
        modulation = Modulation(
            torch.cat([target.modulation.stride8 for target in targets]),
            torch.cat([target.modulation.stride16 for target in targets]),
        )
        assert self._overlap is not None, "a target has been started"
        boxes, overlaps = ascend(
            self._overlap,
            modulation,
            net.features(backbone),
            proposals.to(self.device),
            config.refine_steps,
            config.refine_step_length,
        )
        boxes, overlaps = boxes.cpu(), overlaps.cpu()
        for n, target in enumerate(targets):
            frame = target.last
            frame.proposals, frame.boxes, frame.overlaps = proposals[n], boxes[n], overlaps[n]
            best = choose(boxes[n], overlaps[n], config) or starts[n]
            target.box = self._inside(frame.window.box_to_image(best), size)

    def _inside(self, box: Box, size: tuple[int, int]) -> Box:
        """Keep a box's sides within reason and its centre in, or only a little outside, the image."""
        least, outside = self.config.min_target_side, self.config.max_outside
        w, h = (min(max(side, least), 2.0 * max(size)) for side in (box.w, box.h))
        cx, cy = (
            min(max(center, -outside * side), extent + outside * side)
            for center, side, extent in zip(box.center, (w, h), size, strict=True)
        )
        return Box.from_center(cx, cy, w, h)

    def _learn(self, target: Target, features: Tensor) -> None:
        """Add the frame to the target's memory and improve its filter, as the outcome tells."""
        config, outcome = self.config, target.last.place.outcome
        if outcome is Outcome.UNCERTAIN:
            return
        hard = outcome is Outcome.HARD_NEGATIVE
        box = torch.tensor(target.last.window.box_to_crop(target.box), device=self.device)
        target.memory.add(features, box, config.hard_negative_rate if hard else config.learning_rate)
        if hard:
            steps = config.hard_negative_steps
        else:
            steps = config.update_steps if target.frame % config.update_interval == 0 else 0
        if steps:
            memory = target.memory
            target.filter = self.net.classifier.filter_optimizer(
                target.filter, memory.features[None], memory.boxes[None], memory.weights[None], steps
            )[-1]

    def _result(self, target_id: str, target: Target, stages: dict[str, float]) -> TrackResult:
        """Say what was found."""
        window, place = target.last.window, target.last.place
        state = STATES[place.outcome]
        return TrackResult(
            target_id,
            state,
            None if state is TargetState.LOST else target.box,
            target.box,
            self.confidence(place.peak),
            place.peak,
            place.distractor_ratio,
            window.box,
            stages,
        )
