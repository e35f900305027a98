# SPDX-License-Identifier: Apache-2.0
"""Training of the box refiner.

``python -m dimp_ros.training.box_refiner --folder RUN --clips CLIPS --images IMAGES``

A run goes on where it stopped: ``checkpoint.pt`` in its folder holds everything but the images, in 18 MB. The learning
rate is constant, and the average of the weights is what is used, until ``--cool MINUTES`` lets it fall to zero.
"""

from __future__ import annotations

import argparse
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path

import torch

from dimp_ros.datasets.clips import read_films
from dimp_ros.files.arguments import number, whole
from dimp_ros.files.program import command
from dimp_ros.files.shared_folder import sole_run
from dimp_ros.model.checkpoints.weights_file import find_weights
from dimp_ros.training.box_pairs import PairBatch, PairSampler
from dimp_ros.training.frame_store import FrameStore, add_store_arguments, store_of
from dimp_ros.training.interruption import deferred_signals
from dimp_ros.training.refiner_trainer import CHECKPOINT, LOG, BoxRefinerSettings, BoxRefinerTrainer, Example, export
from dimp_ros.training.refiner_validation import Validation
from dimp_ros.training.run_lock import check_run
from dimp_ros.training.scene_pairs import SceneViews, scene_store

PROGRAM = "python -m dimp_ros.training.box_refiner"

START = "dimp_lite"
_log = logging.getLogger(__name__)

KIND_WEIGHTS = {"pseudo": 1.0, "human": 2.0, "mask": 8.0}
"""How often sources are drawn, by the kind of their boxes; those of stills and their clips count as masks."""


def source_weights(store: FrameStore, clips: Path) -> dict[str, float]:
    """Return how often to draw each source: boxes that people drew count more than those of a teacher."""
    kinds = {film.source: film.kind for film in read_films(clips, "train")}
    return {video.source: KIND_WEIGHTS.get(kinds.get(video.source, "mask"), 1.0) for video in store.videos}


def prefetched(sampler: PairSampler, count: int, depth: int = 4) -> Iterator[PairBatch]:
    """Yield batches that a thread draws ahead, until it is closed; an error of the thread is raised here."""
    batches: queue.Queue[PairBatch | Exception] = queue.Queue(depth)
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            try:
                batch: PairBatch | Exception = sampler.batch(count)
            except Exception as error:
                batch = error
            batches.put(batch)
            if isinstance(batch, Exception):
                return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            batch = batches.get()
            if isinstance(batch, Exception):
                raise batch
            yield batch
    finally:  # a thread at work would abort the process at its end
        ended.set()
        while thread.is_alive():
            with suppress(queue.Empty):
                batches.get(timeout=0.05)


@command(PROGRAM)
def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of the run; goes on with the checkpoint there")
    add_store_arguments(parser)
    parser.add_argument("--scenes", type=Path, help="folder of the synthetic scenes' images (default: FOLDER/scenes)")
    parser.add_argument("--start", help=f"weights that a new run begins with, and an export is of (default: {START})")
    parser.add_argument("--minutes", type=number(), default=60, help="how long to train")
    parser.add_argument("--cool", type=number(), default=0, help="minutes at the end in which the rate falls to zero")
    parser.add_argument(
        "--backbone-rate",
        type=number(),
        default=BoxRefinerSettings.backbone_rate,
        help="of the backbone from stride 4 on",
    )
    parser.add_argument("--learning-rate", type=number(above=True), default=BoxRefinerSettings.learning_rate)
    parser.add_argument("--threads", type=whole(), default=2)
    parser.add_argument("--export", type=Path, help="train nothing: write weights of --start with the run's refiner")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    try:
        weights = find_weights(arguments.start or START)
        inputs = [("--start", weights), ("--clips", arguments.clips), ("--images", arguments.images)]
        stores = [("--store", arguments.store), ("--scenes", arguments.scenes)]
        check_run(arguments.folder, (CHECKPOINT, LOG), inputs, stores=stores, export=arguments.export)
        with sole_run(arguments.folder), deferred_signals() as interrupted:
            run(arguments, interrupted)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 3 if interrupted() else 0


def run(arguments: argparse.Namespace, interrupted: Callable[[], bool]) -> None:
    """Export, or train for ``--minutes`` or until ``interrupted()``.

    :raises OSError, ValueError: naming a file that cannot be used.
    """
    if arguments.export:
        export(BoxRefinerTrainer(arguments.folder, BoxRefinerSettings()), arguments.start or START, arguments.export)
        return
    settings = BoxRefinerSettings(backbone_rate=arguments.backbone_rate, learning_rate=arguments.learning_rate)
    resumed = (arguments.folder / CHECKPOINT).is_file()
    trainer = BoxRefinerTrainer(arguments.folder, settings, arguments.start or (None if resumed else START))
    store = store_of(arguments)
    scenes = (
        SceneViews(scene_store(arguments.images, arguments.scenes or arguments.folder / "scenes"))
        if arguments.images
        else None
    )
    validation = Validation(arguments.clips)
    _log.info("step %d, %d images, %d val windows", trainer.step, len(store), len(validation.items))
    seed = settings.seed + 1000 * trainer.step + 1
    weights = source_weights(store, arguments.clips)
    sampler = PairSampler(store, seed, searches=settings.searches, scenes=scenes, weights=weights)
    started = time.monotonic()
    sums: dict[str, float] = {}
    batches = saved_on_error(trainer, trainer.examples(prefetched(sampler, settings.references)))
    with closing(batches):
        for count, batch in enumerate(batches, 1):
            left = arguments.minutes - (time.monotonic() - started) / 60
            if left <= 0 or interrupted():
                break
            factor = min(1.0, left / arguments.cool) if arguments.cool else 1.0
            for name, value in trainer.train(batch, factor).items():
                sums[name] = sums.get(name, 0.0) + value / 50
            if trainer.step % 50 == 0:
                trainer.log(**{name: round(value, 4) for name, value in sums.items()}, factor=round(factor, 3))
                pace = (time.monotonic() - started) / count
                _log.info("%d %s %.2f s", trainer.step, {k: round(v, 4) for k, v in sums.items()}, pace)
                sums = {}
            if trainer.step % settings.validate_every == 0:
                trainer.save()
                validate(trainer, validation)
    trainer.save()
    if interrupted():
        _log.info("interrupted after step %d; repeat the command to go on from there", trainer.step)
        return
    validate(trainer, validation)


def saved_on_error(
    trainer: BoxRefinerTrainer, batches: Iterator[PairBatch | Example]
) -> Generator[PairBatch | Example, None, None]:
    """Yield what ``batches`` does; write the checkpoint where that fails, such as at a damaged image."""
    try:
        yield from batches
    except Exception:
        trainer.save()
        raise


def validate(trainer: BoxRefinerTrainer, validation: Validation) -> None:
    """Log the mean overlaps of the averaged refiner."""
    overlaps = validation.overlaps(trainer.averaged())
    trainer.log(val=overlaps)
    _log.info("%d val %s", trainer.step, overlaps)


if __name__ == "__main__":
    raise SystemExit(main())
