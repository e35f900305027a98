# SPDX-License-Identifier: Apache-2.0
"""`DimpTracker`: the online procedure of DiMP (section 3.7 of the paper) for one or more targets.

`DimpTracker.init` learns a target model from the first frame: `target_model`. `DimpTracker.update_all` is one frame:

1. cut a search window around each target's last box: `crop`, and for lost targets `redetection`
2. extract features and correlate them with each target's filter: `inference_backend`
3. find the score peak and decide: `localization`, `redetection`
4. refine the box, by gradient ascent on the predicted overlap: `box_refinement`; or by a box refiner: `closer_look`
5. add the frame to the sample memory and optimise the filter: `memory`, `target_model`
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box, check_box
from dimp_ros.images.picture import Picture, as_picture, to_color
from dimp_ros.model.checkpoints.network_source import NetworkSource
from dimp_ros.model.checkpoints.weights_file import WeightsInfo
from dimp_ros.model.sizes import STRIDE
from dimp_ros.tracker.backend_choice import choose_backend, choose_precision, make_backend
from dimp_ros.tracker.box_refinement import measure_edge_errors, refine, reported
from dimp_ros.tracker.candidate_tracks import find_peaks
from dimp_ros.tracker.closer_look import (
    average_boxes,
    average_values,
    refine_closer,
    remember_overlap,
    remember_target,
    shows_target,
    uses_ascent,
    uses_refiner,
)
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.crop import SearchWindow, crop
from dimp_ros.tracker.device import choose_device
from dimp_ros.tracker.inference_backend import InferenceBackend, WindowFeatures
from dimp_ros.tracker.localization import Outcome, localize
from dimp_ros.tracker.point_box import find_box
from dimp_ros.tracker.redetection import TrackStatus, search_area
from dimp_ros.tracker.result import TargetState, TrackResult
from dimp_ros.tracker.stage_timer import StageTimer
from dimp_ros.tracker.target_model import init_target_model, update_target_model
from dimp_ros.tracker.target_state import FrameInspection, SearchResult, TrackedTarget, evidence_of

if TYPE_CHECKING:
    from dimp_ros.model.dimp import DimpNet

STATES = {
    Outcome.NORMAL: TargetState.TRACKING,
    Outcome.HARD_NEGATIVE: TargetState.TRACKING,
    Outcome.UNCERTAIN: TargetState.UNCERTAIN,
}


def config_of(info: WeightsInfo) -> TrackerConfig:
    """Return the tracker's settings that a weights file asks for, over the defaults.

    :raises ValueError: if it names a setting that is not known, or a value out of range.
    """
    own: dict[str, Any] = {"crop_size": info.crop_size, "search_scale": info.search_scale, **info.tracker}
    if unknown := sorted(own.keys() - {item.name for item in dataclasses.fields(TrackerConfig)}):
        raise ValueError(f"the weights ask for unknown tracker settings: {', '.join(unknown)!r:.200}")
    return TrackerConfig(**own)


def reported_state(target: TrackedTarget, confidence: float, config: TrackerConfig) -> TargetState:
    """Return the state of a target's result.

    It may be worse than what search and learning go by: a box with a low confidence is UNCERTAIN, or not reported.
    """
    if target.status is TrackStatus.CONFIRMED:
        state = STATES[target.last.localization.outcome]
    else:
        state = TargetState.UNCERTAIN if target.status is TrackStatus.TENTATIVE else TargetState.LOST
    if not target.frame:  # the box was given
        return state
    if confidence < config.lost_confidence:
        return TargetState.LOST
    if state is TargetState.TRACKING and confidence < config.tracking_confidence:
        return TargetState.UNCERTAIN
    return state


class DimpTracker:
    """Track targets, each given by a box, through a stream of images.

    :param model: ``dimp_lite``, ``dimp18``, ``dimp50``, or the path of a weights file.
    :param device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    :param config: the procedure's constants; None for the defaults with what the weights ask for.
    :param weights: ``random`` for random weights, for tests and benchmarks.
    :param precision: of the networks: ``float32``, ``bfloat16``, ``float16`` or ``auto``; see `choose_precision`.
    :param backend: that runs the networks: ``auto``, ``torch`` or ``openvino``; see `choose_backend`.
    :raises FileNotFoundError: if there are no weights. :raises ValueError: if they do not fit.
    """

    def __init__(
        self,
        model: str = "dimp_lite",
        device: str = "auto",
        config: TrackerConfig | None = None,
        *,
        weights: str | None = None,
        precision: str = "float32",
        backend: str = "torch",
    ) -> None:
        self.device = choose_device(device)
        self._precision, self._backend_name = precision, backend
        choose_precision(precision, self.device, choose_backend(backend, self.device))  # raise before anything is read
        if weights == "random":
            self._source = NetworkSource.random(model, config.seed if config else 0)
        elif weights is None:
            self._source = NetworkSource.find(model)
        else:
            raise ValueError(f"weights is {weights!r}; it must be None or 'random' (give a file as the model)")
        self.info, self._confidence = self._source.info, self._source.info.confidence
        self._targets: dict[str, TrackedTarget] = {}
        self._config = config or config_of(self.info)
        self._backend = self._make_backend()

    @property
    def net(self) -> DimpNet:
        """The network in PyTorch; weights written to it are used from the next target on."""
        return self._source.network()

    @property
    def config(self) -> TrackerConfig:
        """The procedure's constants. They may be set between any two frames.

        :raises ValueError: when set while there are targets, if a field differs that is not ``live``, see
            `TrackerConfig`. The old configuration stays.
        """
        return self._config

    @config.setter
    def config(self, config: TrackerConfig) -> None:
        for item in dataclasses.fields(config):
            old, new = getattr(self._config, item.name), getattr(config, item.name)
            if self._targets and old != new and not item.metadata["live"]:
                raise ValueError(
                    f"{item.name} cannot change from {old!r} to {new!r} while there are targets that were "
                    f"learned with it: drop {', '.join(map(repr, self._targets))} first"
                )
        self._config = config

    @property
    def targets(self) -> tuple[str, ...]:
        """Ids of the targets, oldest first."""
        return tuple(self._targets)

    def drop(self, target_id: str | None = None) -> None:
        """Drop a target, or all of them.

        :raises KeyError: if there is no such target.
        """
        if target_id is None:
            self._targets.clear()
        else:
            del self._targets[target_id]

    def to(self, device: str) -> None:
        """Move network and targets to another device, such as the CPU after a GPU ran out of memory.

        :raises ValueError: if there is no such device; nothing changes.
        """
        self.device, old = choose_device(device), self._backend
        self._backend = self._make_backend()
        for target in self._targets.values():
            target.move(lambda array: self._backend.to_device(old.to_host(array)))

    @property
    def backend(self) -> str:
        """Name of the backend that runs the networks: ``torch`` or ``openvino``."""
        return self._backend.name

    def _make_backend(self) -> InferenceBackend:
        """Make the backend for the device and the network's weights."""
        name = self._backend_name if self.device.type == "cpu" else "auto"  # after a move to a GPU
        return make_backend(name, self._source, self.device, self._precision, self.config)

    def device_bytes(self) -> int | None:
        """Return the device memory that this program has reserved; None on a CPU."""
        return self._backend.device_bytes()

    def warm_up(self) -> None:
        """Run every stage once on a synthetic image, so that the first frame is not slower than the others.

        The image shows a target that is found again: the box of a lost one is not refined.
        """
        kept = self._targets
        self._targets = {}
        try:
            image = np.full((240, 320, 3), 128, np.uint8)
            image[100:140, 140:180] = np.random.default_rng(0).integers(0, 256, (5, 5, 3)).repeat(8, 0).repeat(8, 1)
            self.init(image, (140, 100, 40, 40))
            self.update(image)
            (target,) = self._targets.values()
            self._backend.update_filter(target.filter, target.memory, max(self.config.update_steps, 1))
            if self._backend.has_point_box:
                with contextlib.suppress(ValueError):  # nothing that stands out
                    self.find_box(image, (160, 120))
        finally:
            self._targets = kept

    def init(self, image: NDArray[np.uint8] | Picture, box: Sequence[float], *, target_id: str = "0") -> TrackResult:
        """Start tracking the target in ``box``; an id that is already tracked starts over.

        :param image: ``[H, W, 3]`` BGR or ``[H, W]`` grey, uint8, or a `Picture`.
        :param box: ``(x, y, w, h)`` in its pixels.
        :raises ValueError: if image or box is invalid; no target changes.
        """
        timer = StageTimer()
        picture = as_picture(image)
        checked = check_box(box, picture.width, picture.height, min_side=self.config.min_target_side)
        target, features = init_target_model(self._current_backend(), picture, checked, self.config, timer)
        self._learn_box(target, features, picture)
        self._targets[target_id] = target
        return self._result(target_id, target, timer.stages)

    def find_box(self, image: NDArray[np.uint8] | Picture, point: tuple[float, float]) -> Box:
        """Return the box of the object at a point, in image pixels, for `init`. No target changes.

        :param image: as for `init`. :param point: ``(x, y)`` in its pixels.
        :raises ValueError: if the point is outside the image, no object stands out there, or the weights have no head
            for points.
        """
        picture = as_picture(image)
        return find_box(self._current_backend(), picture, point, self.config)

    def update(self, image: NDArray[np.uint8] | Picture) -> TrackResult:
        """Track the one target in the next image.

        :raises RuntimeError: if there is no target, or more than one (use `update_all`).
        """
        if len(self._targets) != 1:
            raise RuntimeError(
                f"update needs one target, there are {len(self._targets)}; "
                + ("call init first" if not self._targets else "call update_all")
            )
        return next(iter(self.update_all(image).values()))

    def update_all(
        self, image: NDArray[np.uint8] | Picture, only: Collection[str] | None = None
    ) -> dict[str, TrackResult]:
        """Track targets in the next image, all search windows in one batch; the results are by id.

        :param image: as for `init`; one of another size than the last is taken to show the same field of view.
        :param only: ids of the targets to update; None for all.
        :raises ValueError: if the image is invalid. :raises KeyError: if ``only`` names an unknown target. Either way
            no target changes.
        """
        timer = StageTimer()
        picture = as_picture(image)
        selected = self._select(only)
        if not selected:
            return {}
        targets, size = list(selected.values()), (picture.width, picture.height)
        for target in targets:
            target.fit_to(size)
        windows = self._search_windows(targets, size)
        crops = [to_color(crop(picture, window)) for own in windows for window in own]
        filters = [target.filter for target, own in zip(targets, windows, strict=True) for _ in own]
        timer.record("crop")
        features, maps = self._backend.extract_and_score(crops, filters, timer)
        rows = self._localize_targets(targets, windows, crops, maps, features)
        timer.record("localize")
        self._refine_and_confirm(targets, features, rows, picture)
        timer.record("refine")
        for target, row in zip(targets, rows, strict=True):
            target.frame += 1
            if target.status is TrackStatus.CONFIRMED:
                update_target_model(target, features.classifier[row], self._backend, self.config)
        timer.record("update")
        return {target_id: self._result(target_id, target, timer.stages) for target_id, target in selected.items()}

    def inspect(self, target_id: str | None = None) -> FrameInspection:
        """Return copies of everything behind a target's last result: crop, scores, filter, proposals, samples.

        :param target_id: may be omitted where there is one target.
        :raises KeyError: if there is no such target, or if it is omitted and there is not exactly one.
        """
        if target_id is None and len(self._targets) == 1:
            (target_id,) = self._targets
        if target_id not in self._targets:
            raise KeyError(f"there is no target {target_id!r}; targets are {list(self._targets)}")
        return self._targets[target_id].inspect(self._backend.to_host)

    def confidence(self, evidence: float) -> float:
        """Return the confidence for a `TrackResult.evidence`, by the map that is stored with the weights."""
        return self._confidence(evidence)

    def _current_backend(self) -> InferenceBackend:
        """Return the backend, a new one if other weights were loaded into `net`."""
        if not self._backend.up_to_date():
            self._backend = self._make_backend()
        return self._backend

    def _select(self, only: Collection[str] | None) -> dict[str, TrackedTarget]:
        """Return the targets to update, oldest first."""
        if only is None:
            return self._targets
        wanted = {only} if isinstance(only, str) else set(only)
        if unknown := sorted(wanted - self._targets.keys()):
            raise KeyError(f"there is no target {', '.join(map(repr, unknown))}; targets are {list(self._targets)}")
        return {target_id: target for target_id, target in self._targets.items() if target_id in wanted}

    def _search_windows(self, targets: list[TrackedTarget], size: tuple[int, int]) -> list[list[SearchWindow]]:
        """Return each target's search windows: its search area, then a lost one's share of ``search_tiles`` tiles."""
        config = self.config
        searching = sum(1 for target in targets if target.redetection.frames_lost and not target.redetection.candidate)
        share = max(config.search_tiles // searching, min(config.search_tiles, 1)) if searching else 0
        boxes = [target.predicted_box(config) for target in targets]
        return [
            [search_area(box, config), *target.redetection.next_tiles(box, size, share, config)]
            for target, box in zip(targets, boxes, strict=True)
        ]

    def _localize_targets(
        self,
        targets: list[TrackedTarget],
        windows: list[list[SearchWindow]],
        crops: Sequence[NDArray[np.uint8]],
        maps: NDArray[np.float32],
        features: WindowFeatures,
    ) -> list[int]:
        """Set every target's status and search result from the score maps ``[N, R, C]`` of its windows.

        :return: for each target, the number of the window that it was found in, of all N.
        """
        rows, first = [], 0
        for target, own in zip(targets, windows, strict=True):
            localizations = []
            for n, window in enumerate(own):
                last = window.box_to_crop(target.predicted_box(self.config))
                center = (last.center[1] / STRIDE, last.center[0] / STRIDE) if n == 0 else None  # not used in tiles
                scores, cells = maps[first + n], (last.h / STRIDE, last.w / STRIDE)
                localizations.append(localize(scores, cells, center, self.config))
            if self.config.candidates:
                box, area = target.predicted_box(self.config), self._backend.to_host(features.classifier[first])
                peaks = find_peaks(maps[first], area, own[0], box, self.config.candidates)
                localizations = target.tracks.decide(localizations, peaks, own, math.sqrt(box.area), self.config)
            target.status, n = target.redetection.classify(localizations, self.config)
            row = first + n
            target.last = SearchResult(own[n], crops[row], maps[row], target.filter, localizations[n])
            rows.append(row)
            first += len(own)
        return rows

    def _learn_box(self, target: TrackedTarget, features: WindowFeatures, picture: Picture) -> None:
        """Compute from the first frame what box refinement needs: the box refiner's tokens, the errors of the edges.

        :param features: of the first frame's crop.
        """
        config, backend = self.config, self._backend
        closer = ascended = None
        if uses_refiner(backend, config):
            closer = remember_target(target, backend, picture, config)
        if config.first_frame_correction and uses_ascent(backend, config):
            size = (picture.width, picture.height)
            ascended = measure_edge_errors(target, backend.refine_boxes, features, size, config)
        if closer and ascended:
            left, top, right, bottom = average_values(closer, ascended)
            target.edge_errors = (left, top, right, bottom)
        else:
            target.edge_errors = closer or ascended or target.edge_errors

    def _refine(
        self, targets: list[TrackedTarget], features: WindowFeatures, rows: list[int], picture: Picture
    ) -> list[Box]:
        """Return the refined boxes of targets, by the box refiner, by gradient ascent, or the means of both."""
        config, size = self.config, (picture.width, picture.height)
        closer = None
        if config.closer_looks and all(target.tokens is not None for target in targets):
            closer = refine_closer(targets, self._backend, picture, config)
            if not config.refine_steps:
                return closer
        ascended = refine(targets, self._backend.refine_boxes, features.rows(rows), size, config)
        return average_boxes(targets, closer, ascended) if closer else ascended

    def _refine_and_confirm(
        self, targets: list[TrackedTarget], features: WindowFeatures, rows: list[int], picture: Picture
    ) -> None:
        """Refine the boxes of targets that were found, and set every target's final status.

        :param features: of all windows. :param rows: for each target, the number of its window.
        """
        found = [n for n, target in enumerate(targets) if target.status is not TrackStatus.LOST]
        boxes: dict[int, Box] = {}
        for target in targets:
            target.box_quality = 0.0 if self.config.closer_looks and target.tokens is not None else None
            target.box_overlap = target.refused_box = None
        if found:
            refined = self._refine([targets[n] for n in found], features, [rows[n] for n in found], picture)
            boxes = dict(zip(found, refined, strict=True))
        for n, target in enumerate(targets):
            box = boxes.get(n)
            if box is not None and not shows_target(target, self.config):
                target.refused_box = reported(box, target, self.config, target.frame + 1)
                target.status, box = TrackStatus.LOST, None
            last = target.predicted_box(self.config)
            target.status = target.redetection.confirm(target.status, last, box, self.config)
            if target.status is TrackStatus.CONFIRMED and box is not None:
                target.box = box
                target.reported_box = reported(box, target, self.config, target.frame + 1)
                remember_overlap(target)
                target.redetection.remember_size(box, target.last.localization.peak, self.config)

    def _result(self, target_id: str, target: TrackedTarget, stages: dict[str, float]) -> TrackResult:
        """Return the result of a target's last frame."""
        window, localization = target.last.window, target.last.localization
        evidence = evidence_of(localization, target.box_quality)
        confidence = self.confidence(evidence)
        state = reported_state(target, confidence, self.config)
        box = target.predicted_box(self.config)
        box = target.reported_box if box == target.box else reported(box, target, self.config, target.frame)
        lost = state is TargetState.LOST
        return TrackResult(
            target_id,
            state,
            None if lost else box,
            (target.refused_box or target.reported_box) if lost else box,
            confidence,
            localization.peak,
            localization.distractor_ratio,
            window.box,
            evidence,
            stages,
            target.status is TrackStatus.TENTATIVE,
        )
