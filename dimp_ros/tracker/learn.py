# SPDX-License-Identifier: Apache-2.0
"""Learning while following: a frame that is believed in becomes a sample, and the filter is improved now and then."""

from __future__ import annotations

import torch
from torch import Tensor

from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.engine import Engine
from dimp_ros.tracker.localize import Outcome
from dimp_ros.tracker.target import Target


def learn(target: Target, features: Tensor, engine: Engine, config: TrackerConfig) -> None:
    """Add a target's last frame to its memory and improve its filter, as the outcome tells.

    :param features: classification features of the frame's crop, ``Tensor[C, H, W]``.
    """
    outcome, memory = target.last.place.outcome, target.memory
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
        target.filter = engine.improve(target.filter, memory, steps)
