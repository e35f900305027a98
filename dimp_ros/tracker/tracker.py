# SPDX-License-Identifier: Apache-2.0
"""`DimpTracker`: the online procedure of DiMP for one or more targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box, check_box
from dimp_ros.images.picture import Picture, as_picture, to_color
from dimp_ros.model.backbone import Features
from dimp_ros.model.checkpoints.checkpoint import WeightsInfo, load_model
from dimp_ros.model.dimp import build_model
from dimp_ros.model.target_filter import STRIDE
from dimp_ros.tracker.box_refinement import measure_edge_errors, refine, reported
from dimp_ros.tracker.closer_look import measure_errors_closer, refine_closer, remember_target
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.crop import SearchWindow, crop
from dimp_ros.tracker.device import choose_device, choose_precision, upload
from dimp_ros.tracker.inference_engine import InferenceEngine
from dimp_ros.tracker.localization import Localization, Outcome, localize
from dimp_ros.tracker.redetection import TrackStatus, search_area
from dimp_ros.tracker.result import TargetState, TrackResult
from dimp_ros.tracker.stage_timer import StageTimer
from dimp_ros.tracker.target_model import init_target_model, update_target_model
from dimp_ros.tracker.target_state import FrameInspection, SearchResult, TrackedTarget

STATES = {
    Outcome.NORMAL: TargetState.TRACKING,
    Outcome.HARD_NEGATIVE: TargetState.TRACKING,
    Outcome.UNCERTAIN: TargetState.UNCERTAIN,
}


class DimpTracker:
    """Follow targets given by a box through a stream of images.

    :param model: ``dimp_lite``, ``dimp18``, ``dimp50``, or the path of a weights file.
    :param device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    :param config: the procedure's constants; crop size and search scale come from the weights where it is None.
    :param weights: ``random`` builds the named model without weights, for tests and benchmarks.
    :param precision: of the networks: ``float32``, ``bfloat16``, ``float16`` or ``auto``; see `choose_precision`.
    :raises FileNotFoundError: if the weights are not there. :raises ValueError: if they do not fit.
    """

    def __init__(
        self,
        model: str = "dimp_lite",
        device: str = "auto",
        config: TrackerConfig | None = None,
        *,
        weights: str | None = None,
        precision: str = "float32",
    ) -> None:
        self.device = choose_device(device)
        self._precision = precision
        choose_precision(precision, self.device)  # refuses, before anything is loaded
        if weights == "random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed if config else 0)
                net, info = build_model(model).eval().requires_grad_(False), WeightsInfo(architecture=model)
        elif weights is None:
            net, info = load_model(model)
        else:
            raise ValueError(f"weights is {weights!r}; it must be None or 'random' (give a file as the model)")
        self.info, self._confidence = info, info.confidence
        self._targets: dict[str, TrackedTarget] = {}
        self._config = config or TrackerConfig(
            crop_size=info.crop_size,
            search_scale=info.search_scale,
            first_frame_correction=info.first_frame_correction,
        )
        self.net = net.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._engine = InferenceEngine(self.net, self.device, self._precision)

    @property
    def config(self) -> TrackerConfig:
        """The procedure's constants. Another configuration may be set between any two frames.

        :raises ValueError: when set, if targets are followed and a field differs that is not ``live``; see
            `TrackerConfig`. The old configuration then stays.
        """
        return self._config

    @config.setter
    def config(self, config: TrackerConfig) -> None:
        for item in dataclasses.fields(config):
            old, new = getattr(self._config, item.name), getattr(config, item.name)
            if self._targets and old != new and not item.metadata["live"]:
                raise ValueError(
                    f"{item.name} cannot change from {old!r} to {new!r} while targets are followed that were "
                    f"learned with it: drop {', '.join(map(repr, self._targets))} first"
                )
        self._config = config

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

    def to(self, device: str) -> None:
        """Go on with another device, targets and all: the CPU, where a GPU has run out of memory.

        :raises ValueError: if there is no such device; everything stays where it is.
        """
        self.device = choose_device(device)
        self.net = self.net.to(self.device)
        for target in self._targets.values():
            target.to(self.device)
        self._engine = InferenceEngine(self.net, self.device, self._precision)

    def device_bytes(self) -> int | None:
        """Return how much of the device's memory is taken by this program; None where that is not known (the CPU)."""
        return torch.cuda.memory_reserved(self.device) if self.device.type == "cuda" else None

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

    @torch.inference_mode()
    def init(self, image: NDArray[np.uint8] | Picture, box: Sequence[float], *, target_id: str = "0") -> TrackResult:
        """Start to follow what is in ``box``; an id that is already followed starts over.

        :param image: ``[H, W, 3]`` BGR or ``[H, W]`` grey, uint8, or a `Picture`.
        :param box: ``(x, y, w, h)`` in its pixels.
        :raises ValueError: if image or box cannot be used; targets being followed are left alone.
        """
        timer = StageTimer()
        picture = as_picture(image)
        checked = check_box(box, picture.width, picture.height, min_side=self.config.min_target_side)
        if not self._engine.up_to_date():  # somebody has put other weights into `net`
            self._engine = InferenceEngine(self.net, self.device, self._precision)
        target = init_target_model(self._engine.net, picture, checked, self.config, self.device, timer)
        self._learn_box(target, picture)
        self._targets[target_id] = target
        return self._result(target_id, target, timer.stages)

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

    @torch.inference_mode()
    def update_all(
        self, image: NDArray[np.uint8] | Picture, only: Collection[str] | None = None
    ) -> dict[str, TrackResult]:
        """Find targets in the next image, all search windows together; the results are by id.

        :param image: as for `init`; its size may differ from the last one's.
        :param only: ids of the targets to be updated, the others being left as they are; None for all.
        :raises ValueError: if the image cannot be used. :raises KeyError: if ``only`` names a target that is not there.
            Either way the targets are left as they were.
        """
        timer = StageTimer()
        picture = as_picture(image)
        chosen = self._chosen(only)
        if not chosen:
            return {}
        targets, size = list(chosen.values()), (picture.width, picture.height)
        windows = self._windows(targets, size)
        owners = [n for n, own in enumerate(windows) for _ in own]
        crops = [to_color(crop(picture, window)) for own in windows for window in own]
        timer.record("crop")
        backbone, features, maps = self._engine.extract_and_score(
            crops, torch.cat([targets[n].filter for n in owners]), timer
        )
        seen = []  # for each target, the number of the window in which it is
        first = 0
        for target, own in zip(targets, windows, strict=True):
            places = [self._localize(target, window, maps[first + n], n > 0) for n, window in enumerate(own)]
            target.status, n = target.redetection.classify(places, self.config)
            target.last = SearchResult(own[n], crops[first + n], maps[first + n], target.filter, places[n])
            seen.append(first + n)
            first += len(own)
        timer.record("localize")
        self._refine_and_confirm(targets, backbone, seen, picture)
        timer.record("refine")
        for target, at in zip(targets, seen, strict=True):
            target.frame += 1
            if target.status is TrackStatus.CONFIRMED:
                update_target_model(target, features[at], self._engine, self.config)
        timer.record("update")
        return {target_id: self._result(target_id, target, timer.stages) for target_id, target in chosen.items()}

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

    def _chosen(self, only: Collection[str] | None) -> dict[str, TrackedTarget]:
        """Return the targets to be updated, oldest first."""
        if only is None:
            return self._targets
        wanted = {only} if isinstance(only, str) else set(only)
        if unknown := sorted(wanted - self._targets.keys()):
            raise KeyError(f"there is no target {', '.join(map(repr, unknown))}; targets are {list(self._targets)}")
        return {target_id: target for target_id, target in self._targets.items() if target_id in wanted}

    def _windows(self, targets: list[TrackedTarget], size: tuple[int, int]) -> list[list[SearchWindow]]:
        """Return each target's search windows: the usual one, then the tiles that a lost one gets in this frame."""
        config = self.config
        searching = sum(1 for target in targets if target.redetection.frames_lost and not target.redetection.candidate)
        share = max(config.search_tiles // searching, min(config.search_tiles, 1)) if searching else 0
        places = [target.predicted_box(config) for target in targets]
        return [
            [search_area(place, config), *target.redetection.next_tiles(place, size, share, config)]
            for target, place in zip(targets, places, strict=True)
        ]

    def _localize(
        self, target: TrackedTarget, window: SearchWindow, scores: NDArray[np.float32], tile: bool
    ) -> Localization:
        """Decide where a target is in its scores; in a tile the last place says nothing."""
        last = window.box_to_crop(target.predicted_box(self.config))
        cells = (last.h / STRIDE, last.w / STRIDE)
        center = None if tile else (last.center[1] / STRIDE, last.center[0] / STRIDE)
        return localize(scores, cells, center, self.config)

    def _learn_box(self, target: TrackedTarget, picture: Picture) -> None:
        """Learn from the first frame what box refinement has to know of a target."""
        config, net = self.config, self._engine.net
        if net.box_refiner is not None:
            target.tokens = remember_target(net, picture, target.box, self.device)
        if not config.first_frame_correction:
            return
        if target.tokens is not None and config.closer_looks:
            measure_errors_closer(target, net, picture, config, self.device)
        else:
            backbone = net.extract(upload([target.last.image], self.device))
            size = (picture.width, picture.height)
            measure_edge_errors(target, self._engine.refine_boxes, backbone, size, config)

    def _refined(
        self, targets: list[TrackedTarget], backbone: Features, rows: list[int], picture: Picture
    ) -> list[Box]:
        """Return the boxes of targets that were found, by what the weights have for it."""
        config, net = self.config, self._engine.net
        if config.closer_looks and all(target.tokens is not None for target in targets):
            return refine_closer(targets, net, picture, config, self.device)
        chosen = Features(*(f[rows] for f in backbone))
        return refine(targets, self._engine.refine_boxes, chosen, (picture.width, picture.height), config)

    def _refine_and_confirm(
        self, targets: list[TrackedTarget], backbone: Features, seen: list[int], picture: Picture
    ) -> None:
        """Give targets that were found their boxes, and say of each what is believed.

        :param backbone: features of all windows. :param seen: for each target, the number of its window.
        """
        found = [n for n, target in enumerate(targets) if target.status is not TrackStatus.LOST]
        boxes: dict[int, Box] = {}
        if found:
            rows = [seen[n] for n in found]
            boxes = dict(zip(found, self._refined([targets[n] for n in found], backbone, rows, picture), strict=True))
        for n, target in enumerate(targets):
            box = boxes.get(n)
            target.status = target.redetection.confirm(
                target.status, target.predicted_box(self.config), box, self.config
            )
            if target.status is TrackStatus.CONFIRMED and box is not None:
                target.box = box
                target.reported_box = reported(box, target, self.config, target.frame + 1)
                target.redetection.remember_size(box, target.last.localization.peak, self.config)

    def _result(self, target_id: str, target: TrackedTarget, stages: dict[str, float]) -> TrackResult:
        """Say what was found."""
        window, place = target.last.window, target.last.localization
        if target.status is TrackStatus.CONFIRMED:
            state = STATES[place.outcome]
        else:
            state = TargetState.UNCERTAIN if target.status is TrackStatus.TENTATIVE else TargetState.LOST
        box = target.predicted_box(self.config)
        box = target.reported_box if box == target.box else reported(box, target, self.config, target.frame)
        return TrackResult(
            target_id,
            state,
            None if state is TargetState.LOST else box,
            target.reported_box,
            self.confidence(place.peak),
            place.peak,
            place.distractor_ratio,
            window.box,
            stages,
            target.status is TrackStatus.TENTATIVE,
        )
