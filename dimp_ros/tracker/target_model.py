# SPDX-License-Identifier: Apache-2.0
"""The target model: a filter predicted from the first frame and updated online (sections 3.1 to 3.3 and 3.7).

`init_target_model` runs the model initialiser and the steepest-descent optimiser on augmented views of the first frame.
`update_target_model` adds a frame to the sample memory and runs the optimiser on all samples.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dimp_ros.geometry.box import Box
from dimp_ros.images.picture import Picture, to_color
from dimp_ros.model.backbone import Features
from dimp_ros.model.target_filter import apply_filter
from dimp_ros.tracker.augment import first_frame_views
from dimp_ros.tracker.box_adaptation import fit_modulation
from dimp_ros.tracker.candidate_tracks import find_peaks
from dimp_ros.tracker.closer_look import uses_ascent
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.crop import SearchWindow, crop
from dimp_ros.tracker.inference_backend import InferenceBackend
from dimp_ros.tracker.localization import Outcome, highest
from dimp_ros.tracker.memory import SampleMemory
from dimp_ros.tracker.random_numbers import UniformNumbers
from dimp_ros.tracker.redetection import search_area
from dimp_ros.tracker.stage_timer import StageTimer
from dimp_ros.tracker.target_state import SearchResult, TrackedTarget

FITTED_VIEWS = 3
"""The plain view and two shifted ones, on which the overlap network is fitted."""


def init_target_model(
    backend: InferenceBackend,
    picture: Picture,
    box: Box,
    config: TrackerConfig,
    device: torch.device,
    timer: StageTimer,
) -> TrackedTarget:
    """Learn a target's filter and the overlap network's modulation vectors from the first frame.

    :param box: the target in image pixels, already checked. :param timer: records the stages.
    """
    window = search_area(box, config)
    large = crop(picture, SearchWindow.around(box.center, 2 * window.side, 2 * config.crop_size))
    views = first_frame_views(to_color(large), window.box_to_crop(box), config, np.random.default_rng(config.seed))
    timer.record("crop")
    backbone = backend.extract([view.image for view in views])
    boxes = torch.tensor([view.box for view in views], device=device)
    timer.record("backbone")

    random = UniformNumbers(config.seed)
    stride16 = torch.cat((backbone.stride16, _dropout_copies(backbone.stride16[:1], config, random)))
    boxes = torch.cat((boxes, boxes[:1].expand(config.dropout_copies, -1)))
    features = backend.target_features(stride16)
    classifier = backend.net.classifier
    initial = classifier.filter_initializer(features[None], boxes[None])
    weights = classifier.filter_optimizer(initial, features[None], boxes[None], steps=config.init_steps)[-1]
    timer.record("learn")

    plain = Features(*(maps[:1].float() for maps in backbone))
    modulation = backend.net.bb_regressor.modulation(plain, boxes[:1])
    if config.box_fit_steps and uses_ascent(backend.net, config):
        fitted = Features(*(maps[:FITTED_VIEWS] for maps in backbone))
        modulation = fit_modulation(backend.net.bb_regressor, modulation, fitted, boxes[: len(fitted[0])], config)
    memory = SampleMemory(features, boxes, config.memory_size, config.first_frame_share)
    scores = apply_filter(features[None, :1], weights)[0, 0].cpu().numpy()
    result = SearchResult(window, views[0].image, scores, weights, highest(scores))
    timer.record("modulate")
    target = TrackedTarget(box, weights, modulation, memory, random, result)
    if config.candidates:
        peaks = find_peaks(scores, features[0].cpu().numpy(), window, box, config.candidates)
        target.tracks.start(peaks, result.localization.cell)
    return target


def _dropout_copies(plain: Tensor, config: TrackerConfig, random: UniformNumbers) -> Tensor:
    """Return copies of features ``Tensor[1, C, H, W]`` with 2-D channel dropout."""
    keep = 1 - config.dropout_rate
    kept = random(config.dropout_copies, plain.shape[1], 1, 1) < np.float32(keep)
    return plain * torch.from_numpy(kept).to(plain) / keep


def update_target_model(
    target: TrackedTarget, features: Tensor, backend: InferenceBackend, config: TrackerConfig
) -> None:
    """Add a target's last frame to its memory and optimise its filter, as the localisation's outcome demands.

    A hard negative is optimised at once, a normal frame every ``update_interval`` frames, an uncertain one never.

    :param features: classification features of the frame's crop, ``Tensor[C, H, W]``.
    """
    outcome, memory = target.last.localization.outcome, target.memory
    if outcome is Outcome.UNCERTAIN:
        return
    hard = outcome is Outcome.HARD_NEGATIVE
    box = torch.tensor(target.last.window.box_to_crop(target.box), device=features.device)
    memory.first_share = config.first_frame_share
    memory.add(features, box, config.hard_negative_rate if hard else config.learning_rate)
    if hard:
        steps = config.hard_negative_steps
    else:
        steps = config.update_steps if target.frame % config.update_interval == 0 else 0
    if steps:
        target.filter = backend.update_filter(target.filter, memory, steps)
