# SPDX-License-Identifier: Apache-2.0
"""``dimp-train CONFIG.yaml``: train a model or resume a run; under ``torchrun`` on several devices."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimp_ros.files.arguments import number, whole
from dimp_ros.files.program import command

if TYPE_CHECKING:
    from dimp_ros.training.config import TrainingConfig


def data_set(text: str) -> dict[str, Any]:
    """Parse ``KIND=FOLDER``, for argparse."""
    kind, separator, root = text.partition("=")
    if not separator or not kind or not root:
        raise argparse.ArgumentTypeError(f"expected KIND=FOLDER, such as coco=/data/coco, got {text!r}")
    return {"kind": kind, "root": root}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="dimp-train", description="Train a model or resume a run.")
    parser.add_argument("config", type=Path, help="YAML file with the fields of TrainingConfig")
    parser.add_argument("--stage", help="stage of the configuration, where it has several")
    parser.add_argument("--folder", type=Path, required=True, help="for checkpoints and logs; a run there is resumed")
    parser.add_argument(
        "--data",
        type=data_set,
        action="append",
        default=[],
        metavar="KIND=FOLDER",
        help="a data set instead of those of the configuration; may be repeated",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="the same as --data compact=DIR")
    parser.add_argument("--store", type=Path, help="image store, may be shared by runs (default: FOLDER/store)")
    parser.add_argument("--start", type=Path, help="weights of an earlier run to start from (default: ImageNet's)")
    parser.add_argument(
        "--minutes", type=number(most=math.inf), default=math.inf, help="stop with a checkpoint after this long"
    )
    parser.add_argument("--steps", type=whole(), help="instead of the configuration's; may extend a finished run")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--processes", type=whole(0), default=os.cpu_count() or 1, help="processes that plan or render (default: cores)"
    )
    return parser


def resolved_config(
    path: Path, stage: str | None, data: Sequence[Mapping[str, Any]], images: Path | None
) -> TrainingConfig:
    """Load a configuration with absolute paths; ``data`` and ``images`` of the command line replace its data sets.

    :raises ValueError: if the file is damaged or no data set is given.
    """
    from dimp_ros.datasets.registry import resolve_paths
    from dimp_ros.training.config import TrainingConfig

    config = TrainingConfig.load(path, stage)
    given = [*data, *([{"kind": "compact", "root": images}] if images else [])]
    entries = [{**entry, "root": str(Path(entry["root"]).absolute())} for entry in given]
    entries = entries or [resolve_paths(entry, path.parent) for entry in config.data]
    if not entries:
        raise ValueError("no training data: name some under 'data' in the configuration, or with --data or --images")
    backbone = os.path.expandvars(config.backbone_weights)
    return dataclasses.replace(config, data=tuple(entries), backbone_weights=backbone)


def inputs_of(options: argparse.Namespace, config: TrainingConfig) -> list[tuple[str, Path | None]]:
    """Return the files and folders that a run reads, each with the name under which it was given.

    :raises ValueError, OSError: if there are no weights to start from.
    """
    from dimp_ros.model.checkpoints.weights_file import find_weights

    return [
        ("the configuration", options.config),
        ("--start", find_weights(str(options.start)) if options.start else None),
        ("backbone_weights", Path(config.backbone_weights) if config.backbone_weights else None),
        *((f"the data set {entry['kind']}", Path(entry["root"])) for entry in config.data),
    ]


def _train(options: argparse.Namespace) -> int:
    """Train, alone or as one of several processes."""
    from dimp_ros.files.outputs import check_outputs
    from dimp_ros.files.shared_folder import sole_run
    from dimp_ros.training.distributed import init_distributed
    from dimp_ros.training.interruption import deferred_signals
    from dimp_ros.training.run_lock import check_resumable
    from dimp_ros.training.trainer import CHECKPOINT, CONFIG, OUTPUTS, WEIGHTS, Trainer

    config = resolved_config(options.config, options.stage, options.data, options.images)
    config = dataclasses.replace(config, steps=options.steps or config.steps)
    written = [("--folder", options.folder / name) for name in OUTPUTS] if options.folder.is_dir() else []
    folders = [("--folder", options.folder), ("--store", options.store)]
    check_outputs(written, inputs_of(options, config), folders=folders)
    check_resumable(options.folder, CHECKPOINT, (WEIGHTS, CONFIG))
    with (
        init_distributed(options.device) as context,
        sole_run(options.folder) if context.is_main else nullcontext(),
        deferred_signals() as interrupted,
    ):
        trainer = Trainer(
            config, options.folder, context, workers=options.processes, start=options.start, store=options.store
        )
        if trainer.step > config.steps:
            raise ValueError(f"{options.folder} is at step {trainer.step} already; give at least as many --steps")
        if trainer.step == config.steps and context.is_main:
            print(f"this run is complete; to extend it, give more than its {config.steps} --steps")
        finished = trainer.run(options.minutes * 60, interrupted)
        if context.is_main:
            print(f"step {trainer.step} of {config.steps}; weights in {options.folder / WEIGHTS}")
        kept = context.is_main and trainer.exported.changed
        if interrupted() and context.is_main:
            print("interrupted; repeat the command to go on from there", file=sys.stderr)
    if not finished:
        return 3
    return 1 if kept and not trainer.exported.written else 0


@command("dimp-train")
def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status (0: finished, 1: finished, but for weights that others changed and that
    were kept, 2: a bad request, 3: stopped by ``--minutes`` or a signal).
    """
    options = build_parser().parse_args(arguments)
    try:
        return _train(options)
    except ImportError as error:
        print(f"dimp-train: {error}; what training needs comes with: pip install -e '.[train]'", file=sys.stderr)
        return 2
    except (OSError, ValueError, TypeError) as error:
        print(f"dimp-train: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
