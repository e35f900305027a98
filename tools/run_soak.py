# SPDX-License-Identifier: Apache-2.0
"""Soak a tracker node: `make soak ARGS="--minutes 30"`. Exit code 1 on a violation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Soak, print a summary, and write it with all samples to build/soak/."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--tracker", choices=("real", "scripted"), default="real")
    parser.add_argument(
        "--warm-up", type=float, help="minutes after which memory must not grow; half of all by default"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the traffic")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "soak")
    given = parser.parse_args()

    from result_files import prepare_folder, write_results
    from soak.run import SoakPlan, soak, text

    files = ("soak.json", "soak.txt")
    prepare_folder(parser, given.out, (*files, "node.log", "times.json", "heap.txt"))
    warm_up = given.minutes / 2 if given.warm_up is None else given.warm_up
    plan = SoakPlan(60 * given.minutes, 60 * warm_up, tracker=given.tracker, seed=given.seed)
    result = soak(plan, given.out)
    return write_results("soak", given.out, files, result, text(result) + "\n") or int(bool(result["violations"]))


if __name__ == "__main__":
    sys.exit(main())
