# SPDX-License-Identifier: Apache-2.0
"""Soak a tracker node: `make soak ARGS="--minutes 30"`. Exit code 1 on a violation."""

from __future__ import annotations

import argparse
import json
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

    from soak.run import SoakPlan, soak, text

    from dimp_ros.files.outputs import write_text

    given.out.mkdir(parents=True, exist_ok=True)
    warm_up = given.minutes / 2 if given.warm_up is None else given.warm_up
    plan = SoakPlan(60 * given.minutes, 60 * warm_up, tracker=given.tracker, seed=given.seed)
    result = soak(plan, given.out)
    write_text(given.out / "soak.json", json.dumps(result, indent=1))
    summary = text(result)
    write_text(given.out / "soak.txt", summary + "\n")
    print(summary)
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
