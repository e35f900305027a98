# SPDX-License-Identifier: Apache-2.0
"""Batches of a run: rendered for every step, or drawn from a cache of sequences that is used several times.

Both depend on seed, rank and step alone, so that a resumed run sees the same batches.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dimp_ros.files.outputs import sync_file, write_error, write_text
from dimp_ros.files.worker_processes import worker_context
from dimp_ros.model.checkpoints.network_source import tensors_digest
from dimp_ros.model.dimp import DimpNet
from dimp_ros.synthetic.image_store import Pixels, open_tables, read_tables
from dimp_ros.synthetic.renderer import SceneRenderer
from dimp_ros.synthetic.scene_planner import ScenePlanner
from dimp_ros.training.config import TrainingConfig
from dimp_ros.training.network import Frames, early_maps
from dimp_ros.training.sampling import CROP_SIZE, Group, draw_group, render_groups
from dimp_ros.training.workers import DIED, share_work

FRESH, CACHED, VALIDATION = 11, 12, 13
"""Purpose of random numbers, part of every seed."""


class BatchStream(Protocol):
    """A source of batches by step."""

    def batches(self, first: int) -> Iterator[Frames]:
        """Iterate over the batches from step ``first`` on."""
        ...


class _Plans(Dataset[list[Group]]):
    """Plans of step i, for workers of a DataLoader."""

    def __init__(self, store: Path, config: TrainingConfig, rank: int) -> None:
        self.store, self.config, self.rank = store, config, rank
        self._planner: ScenePlanner | None = None

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, step: int) -> list[Group]:
        if self._planner is None:  # opened in the worker: tables are not sent between processes
            self._planner = ScenePlanner(open_tables(self.store), self.config.scenes)
        seeds = ((self.config.seed, FRESH, step, self.rank, i) for i in range(self.config.batch))
        return [draw_group(self._planner, np.random.default_rng(s), self.config.train, self.config.test) for s in seeds]


class FreshBatches:
    """New sequences for every step: workers plan them, this process renders them on the device of ``pixels``.

    :param interrupted: asked when a worker has died; where it is true, the batches end.
    """

    def __init__(
        self,
        store: Path,
        pixels: Pixels,
        config: TrainingConfig,
        rank: int,
        workers: int,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.plans = _Plans(store, config, rank)
        self.renderer = SceneRenderer(pixels)
        self.config, self.rank, self.workers, self.interrupted = config, rank, workers, interrupted

    def batches(self, first: int) -> Iterator[Frames]:
        """Iterate over the batches from step ``first`` on.

        :raises ChildProcessError: if a worker died.
        """
        loader = DataLoader(
            self.plans,
            batch_size=None,
            sampler=range(first, self.config.steps),
            num_workers=self.workers,
            multiprocessing_context=worker_context() if self.workers else None,
            prefetch_factor=4 if self.workers else None,
            collate_fn=_same,
        )
        for step, groups in enumerate(self._planned(loader), start=first):
            yield make_frames(self.renderer, groups, (self.config.seed * 1_000_003 + step) * 64 + self.rank)

    def _planned(self, loader: DataLoader[list[Group]]) -> Iterator[list[Group]]:
        main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGCHLD)
        try:
            plans = iter(loader)
            if main:  # torch's would raise the death of a worker anywhere, such as within a step
                signal.signal(signal.SIGCHLD, before)
            yield from plans
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            if not self.interrupted():
                raise ChildProcessError(DIED) from error


def _same(groups: list[Group]) -> list[Group]:
    """Return the plans unchanged, instead of a DataLoader's default collation to tensors."""
    return groups


def make_frames(renderer: SceneRenderer, groups: list[Group], seed: int) -> Frames:
    """Render the images of planned groups."""
    device = renderer.device
    images = render_groups(renderer, groups, torch.Generator(device).manual_seed(seed))
    boxes = torch.from_numpy(np.stack([group.boxes for group in groups])).to(device)
    visible = torch.from_numpy(np.stack([group.visible for group in groups])).to(device)
    return Frames((images,), boxes, visible)


def validation_frames(store: Path, config: TrainingConfig, pixels: Pixels) -> list[Frames]:
    """Render the fixed sequences for validation, in batches of the run's size."""
    planner = ScenePlanner(open_tables(store), config.scenes)
    renderer = SceneRenderer(pixels)
    groups = [
        draw_group(planner, np.random.default_rng((VALIDATION, i)), config.train, config.test)
        for i in range(config.validate_groups)
    ]
    parts = [groups[i : i + config.batch] for i in range(0, len(groups), config.batch)]
    return [make_frames(renderer, part, VALIDATION + i) for i, part in enumerate(parts)]


class _Shapes(NamedTuple):
    """Types and shapes of a cache's arrays."""

    maps: list[tuple[type, tuple[int, ...]]]
    groups: int
    frames: int


def _shapes(model: DimpNet, config: TrainingConfig) -> _Shapes:
    """Return what a cache holds: images, or the output of the frozen part of the backbone."""
    c8, c16 = model.feature_extractor.channels
    lead = (config.groups, 2 * config.per_role)
    stride8 = (np.float16, (*lead, c8, CROP_SIZE // 8, CROP_SIZE // 8))
    stride16 = (np.float16, (*lead, c16, CROP_SIZE // 16, CROP_SIZE // 16))
    images = (np.uint8, (*lead, 3, CROP_SIZE, CROP_SIZE))
    maps = {"frozen": [stride8, stride16], "late": [stride8], "all": [images]}[config.backbone]
    return _Shapes(maps, *lead)  # type: ignore[arg-type]


class CachedBatches:
    """Batches from caches of synthetic sequences in memory-mapped files, which single-threaded processes render.

    :param folder: holds the caches; the files of older ones are removed.
    :param interrupted: asked twice a second or more while sequences are rendered, and after each; where it is true, the
        batches end.
    """

    def __init__(
        self,
        folder: Path,
        store: Path,
        model: DimpNet,
        config: TrainingConfig,
        rank: int,
        processes: int,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder, self.store, self.model, self.config = folder, store, model, config
        self.rank, self.processes, self.interrupted = rank, processes, interrupted

    def batches(self, first: int) -> Iterator[Frames]:
        """Iterate over the batches from step ``first`` on."""
        config, step = self.config, first
        while True:
            number, in_cache = divmod(step, config.steps_per_cache)
            arrays = self._cache(config.first_cache + number)
            if arrays is None:
                return
            per_pass = config.groups // config.batch
            for position in range(in_cache, config.steps_per_cache):
                use, index = divmod(position, per_pass)
                order = np.random.default_rng((config.seed, number, use, self.rank)).permutation(config.groups)
                chosen = order[index * config.batch : (index + 1) * config.batch]
                yield self._batch(arrays, chosen, np.random.default_rng((config.seed, 7, step, self.rank)))
                step += 1

    def _batch(self, arrays: list[NDArray[np.generic]], groups: NDArray[np.int64], rng: np.random.Generator) -> Frames:
        """Draw training and test images of some groups."""
        config = self.config
        picks = [
            np.concatenate(
                (
                    rng.permutation(config.per_role)[: config.train],
                    config.per_role + rng.permutation(config.per_role)[: config.test],
                )
            )
            for _ in groups
        ]
        index = (groups[:, None], np.stack(picks))
        *maps, boxes, visible = (torch.from_numpy(array[index]) for array in arrays)
        return Frames(tuple(maps), boxes, visible)

    def _cache(self, number: int) -> list[NDArray[np.generic]] | None:
        """Render a cache, or open the complete one that exists of the same images, backbone and configuration.

        :return: its arrays; None where rendering was interrupted.
        :raises ChildProcessError: if a process that renders died.
        """
        shapes = _shapes(self.model, self.config)
        target = self.folder / f"cache_{self.rank}_{number:04d}"
        complete, origin = target / "complete", self._origin()
        whole = complete.is_file() and complete.read_text(encoding="utf-8") == origin and _has_its_size(target, shapes)
        if not whole:
            for old in self.folder.glob(f"cache_{self.rank}_[0-9][0-9][0-9][0-9]*"):
                _remove(old)
            target.mkdir(parents=True, exist_ok=True)
            for path, dtype, shape in _files(target, shapes):
                _allocate(path, _size(dtype, shape))
            setup = partial(_start, self.store, self.model, self.config, target, shapes)
            work = [(self.config.seed, CACHED, number, self.rank, group) for group in range(self.config.groups)]
            with tqdm(total=len(work), desc=f"cache {number}", mininterval=10, disable=self.rank > 0) as bar:
                for done in self._rendered(work, setup):
                    bar.update(done)
                    if self.interrupted():
                        return None
            for path, _, _ in _files(target, shapes):
                try:
                    sync_file(path)  # else a loss of power may leave the file below without the features
                except OSError as error:
                    raise write_error(path, error) from error
            write_text(complete, origin)
        return _open(target, shapes, "r")

    def _rendered(self, work: Sequence[tuple[int, ...]], setup: Callable[..., None]) -> Iterator[int]:
        """Render the groups of a cache, in several processes where there are; yield how many more are done."""
        if self.processes > 1:
            yield from share_work(_make, work, self.processes, partial(setup, threads=1))
            return
        setup()
        for seed in work:
            _make(seed)
            yield 1

    def _origin(self) -> str:
        """Return what the content of a cache follows from, but for its number and rank."""
        config, backbone = self.config, self.model.feature_extractor
        parts: dict[str, Callable[[], Iterable[nn.Module]]] = {
            "frozen": lambda: [backbone],
            "late": backbone.stride8_modules,
            "all": list,
        }
        fixed = parts[config.backbone]()
        values = {
            "images": read_tables(self.store).get("digest"),
            "backbone": tensors_digest(nn.ModuleList(fixed).state_dict()),
            "config": [config.model, config.seed, config.backbone, config.groups, config.per_role, config.scenes],
        }
        return json.dumps(values, default=vars)


def _remove(cache: Path) -> None:
    """Remove the files of a cache; what else is in its folder stays."""
    for path in cache.iterdir() if cache.is_dir() else ():
        if re.fullmatch(r"\d+\.dat|complete|\.complete\..*partial", path.name):
            path.unlink()
    with suppress(OSError):
        cache.rmdir()


def _allocate(path: Path, size: int) -> None:
    """Make a file with its space on the disk: writing into a mapped one that has none would kill the process.

    :raises WriteFailed: if there is not enough.
    """
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise write_error(path, error) from error


def _files(folder: Path, shapes: _Shapes) -> Iterator[tuple[Path, type, tuple[int, ...]]]:
    """Yield path, type and shape of the files of a cache: its maps, boxes and visibility."""
    lead = (shapes.groups, shapes.frames)
    for number, (dtype, shape) in enumerate([*shapes.maps, (np.float32, (*lead, 4)), (np.float32, lead)]):
        yield folder / f"{number}.dat", dtype, shape


def _size(dtype: type, shape: tuple[int, ...]) -> int:
    """Return the bytes of a file of a cache."""
    return np.dtype(dtype).itemsize * math.prod(shape)


def _has_its_size(folder: Path, shapes: _Shapes) -> bool:
    """Tell whether no file of a cache is missing or cut off."""
    return all(
        path.is_file() and path.stat().st_size == _size(dtype, shape) for path, dtype, shape in _files(folder, shapes)
    )


def _open(folder: Path, shapes: _Shapes, mode: str) -> list[NDArray[np.generic]]:
    """Map the files of a cache."""
    return [
        np.memmap(path, dtype=dtype, mode=mode, shape=shape)  # type: ignore[call-overload]
        for path, dtype, shape in _files(folder, shapes)
    ]


class _Maker(NamedTuple):
    """State of a process that renders the groups of a cache."""

    planner: ScenePlanner
    renderer: SceneRenderer
    model: DimpNet
    config: TrainingConfig
    arrays: list[NDArray[np.generic]]


_maker: _Maker


def _start(
    store: Path, model: DimpNet, config: TrainingConfig, folder: Path, shapes: _Shapes, threads: int | None = None
) -> None:
    """Prepare a process for rendering groups."""
    global _maker
    if threads is not None:  # in a process of its own
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
    tables = open_tables(store)
    renderer = SceneRenderer(Pixels(store, tables))
    _maker = _Maker(ScenePlanner(tables, config.scenes), renderer, model.eval(), config, _open(folder, shapes, "r+"))


def _make(seed: tuple[int, ...]) -> None:
    """Render one group and write it into the cache."""
    planner, renderer, model, config, arrays = _maker
    group = draw_group(planner, np.random.default_rng(seed), config.per_role, config.per_role)
    frames = make_frames(renderer, [group], int(np.random.SeedSequence(seed).generate_state(1)[0]))
    with torch.inference_mode():
        maps = early_maps(model, frames.maps[0].flatten(0, 1), config.backbone)
    for array, value in zip(arrays, (*maps, frames.boxes[0], frames.visible[0]), strict=True):
        array[seed[-1]] = value.to(torch.uint8 if array.dtype == np.uint8 else torch.float32).numpy()
