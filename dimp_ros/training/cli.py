# SPDX-License-Identifier: Apache-2.0
"""``dimp-train CONFIG.yaml``: train a model, or go on where a run stopped; under ``torchrun`` on several devices."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dimp_ros.training.config import TrainingConfig


def _data(text: str) -> dict[str, Any]:
    kind, separator, root = text.partition("=")
    if not separator or not kind or not root:
        raise argparse.ArgumentTypeError(f"expected KIND=FOLDER, such as coco=/data/coco, got {text!r}")
    return {"kind": kind, "root": root}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="dimp-train", description="Train a model, or go on where a run stopped.")
    parser.add_argument("config", type=Path, help="YAML file with the fields of TrainingConfig")
    parser.add_argument("--folder", type=Path, help="where checkpoints and logs go; resumes a run there")
    parser.add_argument(
        "--data",
        type=_data,
        action="append",
        default=[],
        metavar="KIND=FOLDER",
        help="a data set instead of those of the configuration; may be repeated",
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="the same as --data compact=DIR")
    parser.add_argument(
        "--store", type=Path, help="where the prepared pictures lie, for several runs (default: FOLDER/store)"
    )
    parser.add_argument("--start", type=Path, help="weights of an earlier run to start from (default: ImageNet's)")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop with a checkpoint after training this long"
    )
    parser.add_argument("--steps", type=int, help="instead of the configuration's; a run may be prolonged")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    cores = os.cpu_count() or 1
    parser.add_argument("--processes", type=int, default=cores, help="processes that plan or make sequences")
    parser.add_argument("--pack", type=Path, metavar="FILE.zip", help="do not train: pack the run for another machine")
    parser.add_argument("--pack-limit", type=float, default=45, metavar="MIB", help="size of the pack (default: 45)")
    return parser


def _config(options: argparse.Namespace) -> TrainingConfig:
    """Return the configuration with what the command line changes in it."""
    from dimp_ros.datasets.registry import resolve_paths
    from dimp_ros.training.config import TrainingConfig

    config = TrainingConfig.load(options.config)
    given = [*options.data, *([{"kind": "compact", "root": options.pictures}] if options.pictures else [])]
    data = tuple({**entry, "root": str(Path(entry["root"]).absolute())} for entry in given)
    data = data or tuple(resolve_paths(entry, options.config.parent) for entry in config.data)
    if not data:
        raise ValueError("no training data: name some under 'data' in the configuration, or with --data or --pictures")
    backbone = os.path.expandvars(config.backbone_weights)
    return dataclasses.replace(config, data=data, steps=options.steps or config.steps, backbone_weights=backbone)


def _inputs(options: argparse.Namespace, config: TrainingConfig) -> list[tuple[str, Path | None]]:
    """Return what a run reads, each with the name under which it was given."""
    data = [(f"the data set {entry['kind']}", Path(entry["root"])) for entry in config.data]
    backbone = Path(config.backbone_weights) if config.backbone_weights else None
    return [
        ("the configuration", options.config),
        ("--start", options.start),
        ("the backbone's weights", backbone),
        *data,
    ]


def _pack(options: argparse.Namespace) -> int:
    """Write the pack."""
    from dimp_ros.datasets.registry import open_data_sets
    from dimp_ros.files.outputs import check_outputs
    from dimp_ros.training.bundle import write_pack

    config = _config(options)
    check_outputs([("--pack", options.pack)], _inputs(options, config))
    data = open_data_sets(config.data)
    write_pack(options.config, data, options.start, options.pack, limit_mib=options.pack_limit)
    return 0


def _train(options: argparse.Namespace) -> int:
    """Train, alone or as one of several processes."""
    from dimp_ros.files.outputs import check_outputs
    from dimp_ros.training.distributed import init_distributed
    from dimp_ros.training.trainer import OUTPUTS, Trainer

    if options.folder is None:
        raise ValueError("--folder is missing: where checkpoints and logs go")
    config = _config(options)
    written = [("--folder", options.folder / name) for name in OUTPUTS] if options.folder.is_dir() else []
    folders = [("--folder", options.folder), ("--store", options.store)]
    check_outputs(written, _inputs(options, config), folders=folders)
    with init_distributed(options.device) as context:
        trainer = Trainer(
            config, options.folder, context, workers=options.processes, start=options.start, store=options.store
        )
        if trainer.step >= config.steps and context.is_main:
            print(f"this run is complete; to prolong it, give more than its {config.steps} --steps")
        finished = trainer.run(options.minutes * 60)
        if context.is_main:
            print(f"step {trainer.step} of {config.steps}; weights in {options.folder / 'weights.safetensors'}")
    return 0 if finished else 3


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status (0: finished, 2: a bad request, 3: stopped by ``--minutes``)."""
    options = build_parser().parse_args(arguments)
    try:
        return _pack(options) if options.pack else _train(options)
    except ImportError as error:
        print(f"dimp-train: {error}; what training needs comes with: pip install -e '.[train]'", file=sys.stderr)
        return 2
    except (OSError, ValueError, TypeError) as error:
        print(f"dimp-train: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
