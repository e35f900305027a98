# SPDX-License-Identifier: Apache-2.0
"""The network's part of tracking in PyTorch; see `dimp_ros.tracker.inference_backend`.

On a CPU windows are computed one after the other, and the overlap network's maps only where boxes are. On a GPU all
windows are one batch and CUDA graphs are replayed; it is synchronised twice a frame, to read scores and to read boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import DimpNet
from dimp_ros.model.inference.ascent import FrameOverlap, ascend
from dimp_ros.model.inference.network import InferenceNet
from dimp_ros.model.iou_net import Modulation
from dimp_ros.model.target_filter import apply_filter
from dimp_ros.tracker.box_adaptation import fit_modulation
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.cuda_graph import GraphedFunction
from dimp_ros.tracker.device import Device
from dimp_ros.tracker.inference_backend import CloserBoxes, Crops, Floats, TargetModulation, WindowFeatures
from dimp_ros.tracker.memory import SampleMemory
from dimp_ros.tracker.stage_timer import StageTimer


class TorchBackend:
    """Runs a network with fixed weights on one device.

    :param net: in evaluation mode, on its device; its weights are copied, see `up_to_date`.
    :param precision: of the networks: float32, bfloat16 or float16.
    """

    name = "torch"

    def __init__(self, net: DimpNet, device: Device, precision: str) -> None:
        self.net, self._device = net, torch.device(str(device))
        self._fused = InferenceNet(net, getattr(torch, precision))
        self._scoring = GraphedFunction(self._extract_and_score)
        self._refinements: dict[tuple[int, float], GraphedFunction] = {}
        self._filter_updates: dict[int, GraphedFunction] = {}

    @property
    def has_box_refiner(self) -> bool:
        """Whether the network has a box refiner."""
        return self.net.box_refiner is not None

    @property
    def has_point_box(self) -> bool:
        """Whether the network has a head for points."""
        return self.net.point_box is not None

    def up_to_date(self) -> bool:
        """Tell whether the network still has the weights that were copied."""
        return self._fused.up_to_date()

    def device_bytes(self) -> int | None:
        """Return the device memory that this program has reserved; None on a CPU."""
        return torch.cuda.memory_reserved(self._device) if self._device.type == "cuda" else None

    def to_host(self, array: Tensor) -> Floats:
        """Return a copy on the host."""
        copied: Floats = array.detach().to("cpu", copy=True).numpy()
        return copied

    def to_device(self, array: Floats) -> Tensor:
        """Return a copy on the device."""
        return torch.from_numpy(array.copy()).to(self._device)

    @torch.inference_mode()
    def extract(self, crops: Crops) -> WindowFeatures:
        """Return the backbone's features of windows."""
        return WindowFeatures(*self._fused.extract(upload(crops, self._device)))

    @torch.inference_mode()
    def extract_and_score(
        self, crops: Crops, filters: Sequence[Tensor], timer: StageTimer
    ) -> tuple[WindowFeatures, Floats]:
        """Extract features of search windows and score them with the targets' filters."""
        images, weights = upload(crops, self._device), torch.cat(list(filters))
        if self._scoring.records(self._device):
            timer.record("upload")
            stride8, stride16, features, scores = self._scoring(images, weights)
        else:
            stride8, stride16 = self._fused.extract(images)
            timer.record("backbone")
            features = self._fused.target_features(stride16)
            scores = apply_filter(features[:, None], weights)
        maps = scores[:, 0].cpu().numpy()
        timer.record("classify")
        return WindowFeatures(stride8, stride16, features), maps

    @torch.inference_mode()
    def classification_features(self, features: WindowFeatures, kept: NDArray[np.bool_], share: float) -> Tensor:
        """Return classification features of windows, and of copies of the first one with dropout."""
        plain = features.stride16[:1]
        copies = plain * torch.from_numpy(kept).to(plain)[..., None, None] / share
        return self._fused.target_features(torch.cat((features.stride16, copies)))

    @torch.inference_mode()
    def learn_filter(self, samples: Tensor, boxes: Floats, steps: int) -> Tensor:
        """Return the initial filter after ``steps`` optimiser steps."""
        given, classifier = (samples[None], self.to_device(boxes)[None]), self.net.classifier
        learned: Tensor = classifier.filter_optimizer(classifier.filter_initializer(*given), *given, steps=steps)[-1]
        return learned

    @torch.inference_mode()
    def update_filter(self, filter: Tensor, memory: SampleMemory, steps: int) -> Tensor:
        """Return the filter after ``steps`` optimiser steps on all samples."""
        optimizer = self.net.classifier.filter_optimizer
        if steps not in self._filter_updates:
            self._filter_updates[steps] = GraphedFunction(lambda *inputs: (optimizer(*inputs, steps)[-1],))
        update = self._filter_updates[steps]
        # A graph is for a fixed number of samples: empty slots have weight 0.
        features, boxes, weights = memory.slots() if update.records(self._device) else memory.samples()
        (better,) = update(filter, features[None], *(self.to_device(part)[None] for part in (boxes, weights)))
        return better.clone()

    def reserve(self, samples: Tensor, capacity: int) -> Tensor:
        """Return an array of ``capacity`` rows that begins with samples, to be written to in any mode."""
        with torch.inference_mode(False), torch.no_grad():
            reserved = torch.zeros((capacity, *samples.shape[1:]), dtype=samples.dtype, device=samples.device)
            reserved[: len(samples)] = samples
            return reserved

    @torch.inference_mode()
    def score(self, samples: Tensor, filter: Tensor) -> Floats:
        """Correlate samples with a filter."""
        scores: Floats = apply_filter(samples[None], filter)[0].cpu().numpy()
        return scores

    @torch.inference_mode()
    def modulation(self, features: WindowFeatures, box: Floats) -> TargetModulation:
        """Return the overlap network's modulation vectors of a target."""
        backbone = Features(features.stride8.float(), features.stride16.float())
        return TargetModulation(*self.net.bb_regressor.modulation(backbone, self.to_device(box)[None]))

    def fit_modulation(
        self, modulation: TargetModulation, features: WindowFeatures, boxes: Floats, config: TrackerConfig
    ) -> TargetModulation:
        """Fit modulation vectors to windows of the first frame."""
        backbone = Features(features.stride8, features.stride16)
        known = self.to_device(boxes)
        return TargetModulation(
            *fit_modulation(self.net.bb_regressor, Modulation(*modulation), backbone, known, config)
        )

    @torch.inference_mode()
    def refine_boxes(
        self,
        modulation: Sequence[TargetModulation],
        features: WindowFeatures,
        boxes: Floats,
        steps: int,
        length: float,
    ) -> tuple[Floats, Floats]:
        """Refine the boxes of B targets; see `ascend`."""
        key = (steps, length)
        if key not in self._refinements:
            self._refinements = {key: GraphedFunction(lambda *inputs: self._refine_boxes(steps, length, *inputs))}
        vectors = (torch.cat(own) for own in zip(*modulation, strict=True))
        refined, overlaps = self._refinements[key](*vectors, features.stride8, features.stride16, self.to_device(boxes))
        return refined.cpu().numpy(), overlaps.cpu().numpy()

    @torch.inference_mode()
    def target_tokens(self, crop: NDArray[np.uint8], box: Floats) -> Tensor:
        """Return the box refiner's tokens of a target."""
        assert self.net.box_refiner is not None
        features = self._fused.refiner_features(upload([crop], self._device))
        return self.net.box_refiner.tokens(features, self.to_device(box)[None])

    @torch.inference_mode()
    def look_closer(self, crops: Crops, tokens: Sequence[Tensor]) -> CloserBoxes:
        """Apply the box refiner to its windows."""
        assert self.net.box_refiner is not None
        features = self._fused.refiner_features(upload(crops, self._device))
        refined = self.net.box_refiner(features, torch.cat(list(tokens)))
        rows = torch.cat((refined.edges, torch.sigmoid(refined.quality)[:, None]), 1).cpu().numpy()
        return CloserBoxes(rows[:, :4], rows[:, 4])

    @torch.inference_mode()
    def boxes_at_point(self, crops: Crops) -> CloserBoxes:
        """Apply the head for points to its windows."""
        assert self.net.point_box is not None
        boxes = self.net.point_box(self._plain(crops))
        return CloserBoxes(boxes.edges.cpu().numpy(), boxes.quality.sigmoid().cpu().numpy())

    def _plain(self, crops: Crops) -> Features:
        """Return the backbone's features of windows in float32."""
        return Features(*(maps.float() for maps in self._fused.extract(upload(crops, self._device))))

    def _extract_and_score(self, images: Tensor, filters: Tensor) -> tuple[Tensor, ...]:
        """Compute both feature maps, classification features and scores of images ``Tensor[N, 3, S, S]``."""
        backbone = self._fused.extract(images)
        features = self._fused.target_features(backbone.stride16)
        return *backbone, features, apply_filter(features[:, None], filters)

    def _refine_boxes(self, steps: int, length: float, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute `refine_boxes`; the inputs are modulation, backbone and boxes as five tensors."""
        *maps, boxes = inputs
        overlap = FrameOverlap(self._fused, Modulation(*maps[:2]), Features(*maps[2:]), boxes)
        return ascend(overlap, boxes, steps, length)


def upload(crops: Crops, device: torch.device) -> Tensor:
    """Return BGR crops, N of them, as RGB images ``Tensor[N, 3, S, S]`` uint8 on the device."""
    rgb = np.stack([cv2.cvtColor(crop, cv2.COLOR_BGR2RGB) for crop in crops])
    images = torch.from_numpy(rgb)
    if device.type == "cuda":  # from pinned memory the copy is asynchronous
        images = images.pin_memory().to(device, non_blocking=True)
    return images.permute(0, 3, 1, 2)
