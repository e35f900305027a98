# SPDX-License-Identifier: Apache-2.0
"""A bank of backbone features of made sequences: with a frozen backbone they are computed once and used several times.

A bank is made by several processes, each with one thread, and lies in memory-mapped files of half-precision numbers.
"""

from __future__ import annotations

import multiprocessing
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import DimpNet
from dimp_ros.training.losses import Batch
from dimp_ros.training.pictures import PictureSet
from dimp_ros.training.sampling import CROP_SIZE, sample_crops
from dimp_ros.training.synthesis import SequenceMaker

_worker: tuple[SequenceMaker, DimpNet, dict[str, NDArray[np.generic]]]


def _shapes(model: DimpNet, groups: int, frames: int) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Return type and shape of each array of a bank."""
    c8, c16 = model.feature_extractor.channels
    return {
        "stride8": (np.float16, (groups, frames, c8, CROP_SIZE // 8, CROP_SIZE // 8)),
        "stride16": (np.float16, (groups, frames, c16, CROP_SIZE // 16, CROP_SIZE // 16)),
        "boxes": (np.float32, (groups, frames, 4)),
        "visible": (np.float32, (groups, frames)),
    }


class FeatureBank:
    """Features, boxes and visibility of ``groups`` sequences of ``2 * per_role`` search windows."""

    def __init__(self, arrays: dict[str, NDArray[np.generic]], per_role: int) -> None:
        self.arrays = arrays
        self.per_role = per_role
        self.groups = len(arrays["boxes"])

    def batch(self, groups: NDArray[np.int64], rng: np.random.Generator, train: int, test: int) -> Batch:
        """Draw ``train`` and ``test`` pictures of each of these sequences."""
        picks = [
            np.concatenate(
                (rng.permutation(self.per_role)[:train], self.per_role + rng.permutation(self.per_role)[:test])
            )
            for _ in groups
        ]
        index = (groups[:, None], np.stack(picks))

        def take(name: str) -> Tensor:
            return torch.from_numpy(self.arrays[name][index].astype(np.float32))

        def split(name: str) -> tuple[Tensor, Tensor]:
            values = take(name)
            first, second = (
                part.flatten(0, 1).contiguous(memory_format=torch.channels_last)
                for part in (values[:, :train], values[:, train:])
            )
            return first, second

        train8, test8 = split("stride8")
        train16, test16 = split("stride16")
        boxes = take("boxes")
        return Batch(
            Features(train8, train16),
            boxes[:, :train],
            Features(test8, test16),
            boxes[:, train:],
            take("visible")[:, train:],
        )


def build_bank(
    folder: Path, pictures: Path, model: DimpNet, *, seed: int, number: int, groups: int, per_role: int, processes: int
) -> FeatureBank:
    """Make bank ``number``, or open it if it is already complete in ``folder``; older banks there are removed."""
    shapes = _shapes(model, groups, 2 * per_role)
    target = folder / f"bank_{number:04d}"
    if not (target / "complete").exists():
        for old in folder.glob("bank_*"):
            shutil.rmtree(old)
        target.mkdir(parents=True)
        _open(target, shapes, "w+")
        setup = partial(_start_worker, pictures, model, target, shapes)
        work = [(seed, number, group, per_role) for group in range(groups)]
        bar = tqdm(total=groups, desc=f"bank {number}", mininterval=10)
        if processes > 1:
            # Not forked: a child of a process whose libraries have threads may wait for one of them for ever.
            context = multiprocessing.get_context("spawn")
            with context.Pool(processes, initializer=partial(setup, threads=1)) as pool:
                for _ in pool.imap_unordered(_make_group, work, chunksize=4):
                    bar.update()
        else:
            setup()
            for item in work:
                _make_group(item)
                bar.update()
        bar.close()
        (target / "complete").touch()
    return FeatureBank(_open(target, shapes, "r"), per_role)


def _open(folder: Path, shapes: dict[str, tuple[type, tuple[int, ...]]], mode: str) -> dict[str, NDArray[np.generic]]:
    """Map the files of a bank."""
    return {
        name: np.memmap(folder / f"{name}.dat", dtype=dtype, mode=mode, shape=shape)  # type: ignore[call-overload]
        for name, (dtype, shape) in shapes.items()
    }


def _start_worker(
    pictures: Path,
    model: DimpNet,
    folder: Path,
    shapes: dict[str, tuple[type, tuple[int, ...]]],
    threads: int | None = None,
) -> None:
    """Prepare a process for making sequences."""
    global _worker
    if threads is not None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
    _worker = (SequenceMaker(PictureSet(pictures)), model.eval(), _open(folder, shapes, "r+"))


def _make_group(work: tuple[int, int, int, int]) -> None:
    """Make one sequence and write its features into the bank."""
    maker, model, arrays = _worker
    seed, number, group, per_role = work
    crops = sample_crops(maker, np.random.default_rng((seed, number, group)), per_role)
    with torch.inference_mode():
        features = model.extract(torch.from_numpy(np.ascontiguousarray(crops.images)).permute(0, 3, 1, 2))
    arrays["stride8"][group] = features.stride8.half().numpy()
    arrays["stride16"][group] = features.stride16.half().numpy()
    arrays["boxes"][group] = crops.boxes
    arrays["visible"][group] = crops.visible
