# SPDX-License-Identifier: Apache-2.0
"""The target model: a filter predicted from the first frame and updated online (sections 3.1 to 3.3 and 3.7).

`init_target_model` runs the model initialiser and the steepest-descent optimiser on augmented views of the first frame.
`update_target_model` adds a frame to the sample memory and runs the optimiser on all samples.
"""

from __future__ import annotations

import numpy as np

from dimp_ros.geometry.box import Box
from dimp_ros.images.picture import Picture, to_color
from dimp_ros.tracker.augment import first_frame_views
from dimp_ros.tracker.candidate_tracks import find_peaks
from dimp_ros.tracker.closer_look import uses_ascent
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.crop import SearchWindow, crop
from dimp_ros.tracker.inference_backend import DeviceArray, InferenceBackend, WindowFeatures
from dimp_ros.tracker.localization import Outcome, highest
from dimp_ros.tracker.memory import SampleMemory
from dimp_ros.tracker.random_numbers import UniformNumbers
from dimp_ros.tracker.redetection import search_area
from dimp_ros.tracker.stage_timer import StageTimer
from dimp_ros.tracker.target_state import SearchResult, TrackedTarget

FITTED_VIEWS = 3
"""The plain view and two shifted ones, on which the overlap network is fitted."""


def init_target_model(
    backend: InferenceBackend, picture: Picture, box: Box, config: TrackerConfig, timer: StageTimer
) -> tuple[TrackedTarget, WindowFeatures]:
    """Learn a target's filter and the overlap network's modulation vectors from the first frame.

    :param box: the target in image pixels, already checked. :param timer: records the stages.
    :return: the target, and the features of the plain view.
    """
    window = search_area(box, config)
    large = crop(picture, SearchWindow.around(box.center, 2 * window.side, 2 * config.crop_size))
    views = first_frame_views(to_color(large), window.box_to_crop(box), config, np.random.default_rng(config.seed))
    timer.record("crop")
    features = backend.extract([view.image for view in views])
    boxes = np.array([view.box for view in views], np.float32)
    timer.record("backbone")

    random = UniformNumbers(config.seed)
    share = 1 - config.dropout_rate
    kept = random(config.dropout_copies, features.stride16.shape[1]) < np.float32(share)
    samples = backend.classification_features(features, kept, share)
    sample_boxes = np.concatenate((boxes, boxes[:1].repeat(config.dropout_copies, 0)))
    filter = backend.learn_filter(samples, sample_boxes, config.init_steps)
    timer.record("learn")

    plain = features.rows([0])
    modulation = backend.modulation(plain, boxes[0])
    if config.box_fit_steps and uses_ascent(backend, config):
        fitted = features.rows(list(range(len(boxes)))[:FITTED_VIEWS])
        modulation = backend.fit_modulation(modulation, fitted, boxes[:FITTED_VIEWS], config)
    memory = SampleMemory(backend.reserve(samples, config.memory_size), sample_boxes, config.first_frame_share)
    scores = backend.score(samples[:1], filter)[0]
    result = SearchResult(window, views[0].image, scores, filter, highest(scores))
    timer.record("modulate")
    target = TrackedTarget(box, (picture.width, picture.height), filter, modulation, memory, random, result)
    if config.candidates:
        peaks = find_peaks(scores, backend.to_host(samples[0]), window, box, config.candidates)
        target.tracks.start(peaks, result.localization.cell)
    return target, plain


def update_target_model(
    target: TrackedTarget, features: DeviceArray, backend: InferenceBackend, config: TrackerConfig
) -> None:
    """Add a target's last frame to its memory and optimise its filter, as the localisation's outcome demands.

    A hard negative is optimised at once, a normal frame every ``update_interval`` frames, an uncertain one never.

    :param features: classification features of the frame's crop, ``[C, H, W]``.
    """
    outcome, memory = target.last.localization.outcome, target.memory
    if outcome is Outcome.UNCERTAIN:
        return
    hard = outcome is Outcome.HARD_NEGATIVE
    box = np.array(target.last.window.box_to_crop(target.box), np.float32)
    memory.first_share = config.first_frame_share
    memory.add(features, box, config.hard_negative_rate if hard else config.learning_rate)
    if hard:
        steps = config.hard_negative_steps
    else:
        steps = config.update_steps if target.frame % config.update_interval == 0 else 0
    if steps:
        target.filter = backend.update_filter(target.filter, memory, steps)
