# SPDX-License-Identifier: Apache-2.0
"""``dimp-train CONFIG.yaml``: train a model, or go on where a run stopped."""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status (0: finished, 3: stopped by ``--minutes``)."""
    parser = argparse.ArgumentParser(prog="dimp-train", description="Train a model, or go on where a run stopped.")
    parser.add_argument("config", type=Path, help="YAML file with the fields of TrainingConfig")
    parser.add_argument("--pictures", type=Path, required=True, help="folder with annotations.jsonl and images/")
    parser.add_argument("--folder", type=Path, required=True, help="where checkpoints and logs go; resumes a run there")
    parser.add_argument("--start", type=Path, help="weights of an earlier run to start from (default: ImageNet's)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop with a checkpoint after this long")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="processes that make sequences")
    options = parser.parse_args(arguments)

    from dimp_ros.training.loop import Trainer, TrainingConfig

    try:
        config = TrainingConfig.load(options.config)
        trainer = Trainer(config, options.pictures, options.folder, options.processes, options.start)
    except ImportError as error:
        print(f"dimp-train: {error}; what training needs comes with: pip install -e '.[train]'", file=sys.stderr)
        return 2
    except (OSError, ValueError, TypeError) as error:
        print(f"dimp-train: {error}", file=sys.stderr)
        return 2
    finished = trainer.run(options.minutes * 60)
    print(f"step {trainer.step} of {config.total_steps}; weights in {options.folder / 'weights.safetensors'}")
    return 0 if finished else 3


if __name__ == "__main__":
    sys.exit(main())
