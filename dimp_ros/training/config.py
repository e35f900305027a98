# SPDX-License-Identifier: Apache-2.0
"""Configuration of a training run, read from YAML and stored in every checkpoint."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from dimp_ros.files.yaml_file import read_yaml
from dimp_ros.synthetic.scene_planner import SceneConfig
from dimp_ros.training.losses import LossWeights

T = TypeVar("T")

BACKBONE_CHOICES = ("frozen", "late", "all")


@dataclass(frozen=True)
class TrainingConfig:
    """A training run.

    :param steps: optimiser steps of the run. :param batch: sequences per step and process.
    :param train: images per sequence that train the filter. :param test: images that test it.
    :param backbone: which part is trained: ``frozen`` none, ``late`` from stride 8 on, ``all``. Its batch statistics
        stay fixed. :param backbone_weights: file with its initial weights; '' takes ImageNet's from the package.
    :param reuse: how often each synthetic sequence is used before new ones are rendered. 0 renders new ones for every
        step, which a GPU does quickly. Otherwise a *cache* of ``groups`` sequences with ``per_role`` training and test
        images each is rendered; it keeps the output of the frozen part of the backbone, and each use draws from it.
    :param first_cache: number of the first cache, part of its seed; give a run that follows another new numbers.
    :param classifier_every: the classifier is trained in one of so many steps, the overlap network in each.
    :param decay: ``cosine`` (to zero over ``schedule_steps``, 0 for all ``steps``) or ``steps`` (times ``decay_factor``
        every ``decay_every`` steps). :param learning_rates: by prefix of the parameter names.
    :param data: data sets, each a mapping with ``kind`` and ``root``; see `dimp_ros.datasets.registry`.
    :param clip_frames: frames kept of a clip at most; 0 keeps all.
    :param autocast: bfloat16 convolutions on a GPU.
    :param autocast_cpu: the same on a CPU; faster with AVX512-BF16 or AMX.
    :param keep_statistics: batch normalisation in the heads uses its running statistics and does not update them, as
        in tracking; for weights that have been trained before.
    :param validate_every: steps between validations on held-out images; 0 for none.
    """

    model: str = "dimp_lite"
    seed: int = 1
    steps: int = 10_000
    batch: int = 8
    train: int = 3
    test: int = 3
    proposals: int = 16
    optimizer_steps: int = 5
    backbone: str = "all"
    backbone_weights: str = ""
    reuse: int = 0
    groups: int = 1500
    per_role: int = 4
    first_cache: int = 0
    classifier_every: int = 1
    ema: float = 0.998
    clip_norm: float = 10.0
    warm_up: int = 100
    decay: str = "cosine"
    schedule_steps: int = 0
    decay_every: int = 0
    decay_factor: float = 0.2
    learning_rates: dict[str, float] = field(
        default_factory=lambda: {
            "bb_regressor": 2e-4,
            "classifier.feature_extractor": 5e-5,
            "classifier.filter_initializer": 5e-5,
            "classifier.filter_optimizer": 5e-4,
            "feature_extractor": 2e-5,
        }
    )
    losses: LossWeights = field(default_factory=LossWeights)
    scenes: SceneConfig = field(default_factory=SceneConfig)
    data: tuple[dict[str, Any], ...] = ()
    clip_frames: int = 0
    autocast: bool = True
    autocast_cpu: bool = False
    keep_statistics: bool = False
    validate_every: int = 500
    validate_groups: int = 48

    def __post_init__(self) -> None:
        wrong = {name: rate for name, rate in self.learning_rates.items() if not isinstance(rate, (int, float))}
        if wrong:
            raise ValueError(f"learning_rates {wrong} are no numbers; YAML needs 1.0e-4, not 1e-4")
        if self.backbone not in BACKBONE_CHOICES:
            raise ValueError(f"backbone {self.backbone!r} is none of {', '.join(BACKBONE_CHOICES)}")
        if self.decay not in ("cosine", "steps"):
            raise ValueError(f"decay {self.decay!r} is neither 'cosine' nor 'steps'")
        if self.decay == "steps" and self.decay_every < 1:
            raise ValueError(f"decay 'steps' needs decay_every of at least 1, got {self.decay_every}")
        for name in ("steps", "train", "test", "proposals", "optimizer_steps", "groups", "classifier_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warm_up", "schedule_steps", "clip_frames", "validate_every", "validate_groups", "reuse", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; it must be at least 0 and less than 1")
        if not 0 < self.clip_norm < math.inf or not 0 < self.decay_factor <= 1:
            factors = f"clip_norm {self.clip_norm}, decay_factor {self.decay_factor}"
            raise ValueError(f"{factors}: clip_norm must be above 0, and decay_factor at most 1")
        numbers = {**self.learning_rates, **asdict(self.losses)}
        if wrong := {name: value for name, value in numbers.items() if not 0 <= value < math.inf}:
            raise ValueError(f"learning rates and losses must be at least 0, got {wrong}")
        if self.batch < 2:
            raise ValueError(f"batch must be at least 2, got {self.batch}: batch normalisation needs several sequences")
        if not self.losses.iou and self.classifier_every > 1:
            raise ValueError(f"classifier_every is {self.classifier_every}; with losses.iou 0 it must be 1")
        if self.reuse and self.per_role < max(self.train, self.test):
            raise ValueError(f"per_role {self.per_role} is less than train {self.train} or test {self.test}")
        if self.reuse and self.groups % self.batch:
            raise ValueError(f"groups {self.groups} must be a multiple of batch {self.batch}")

    @property
    def steps_per_cache(self) -> int:
        """Optimiser steps per cache."""
        return self.groups * self.reuse // self.batch

    @classmethod
    def load(cls, path: str | Path, stage: str | None = None) -> TrainingConfig:
        """Read a YAML file; unknown keys are refused.

        :param stage: name of a mapping under ``stages``, whose values replace those of the file.
        """
        try:
            values = read_yaml(path, aliases=10) or {}
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path}: expected keys and values, got {type(values).__name__}")
        stages = values.pop("stages", None) or {}
        if (stage is None) != (not stages) or (stages and stage not in stages):
            raise ValueError(f"{path}: --stage is {stage}; the file has the stages: {', '.join(stages) or 'none'}")
        values |= stages.get(stage, {})
        if "losses" in values:
            values["losses"] = _checked(LossWeights, values["losses"], f"{path}: losses")
        if "scenes" in values:
            scenes = {k: tuple(v) if isinstance(v, list) else v for k, v in values["scenes"].items()}
            values["scenes"] = _checked(SceneConfig, scenes, f"{path}: scenes")
        if "data" in values:
            values["data"] = tuple(values["data"])
        return _checked(cls, values, str(path))

    def plain(self) -> dict[str, Any]:
        """Return the configuration as plain YAML values."""
        values = asdict(self)
        values["data"] = [dict(item) for item in self.data]
        values["scenes"]["mix"] = list(self.scenes.mix)
        return values


def _checked(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Build a dataclass of ``values``; unknown keys and wrong types are refused."""
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - set(known)):
        raise ValueError(f"{where}: unknown keys {unknown}; known are {known}")
    defaults = cls()
    for name, value in values.items():
        kind = type(getattr(defaults, name))
        fits = isinstance(value, (int, float) if kind is float else kind) and (
            kind is bool or not isinstance(value, bool)
        )
        if not fits:
            raise ValueError(f"{where}: {name} is {value!r}; expected {kind.__name__}")
    return cls(**values)
