# SPDX-License-Identifier: Apache-2.0
"""Feed unexpected inputs to the parts that read them: `make fuzz ARGS="--seed 2"`. Exit code 1 on failure."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"  # messages refuse values that their fields cannot hold
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")


def main() -> int:
    """Use the inputs, print a table, and write it with the failures to build/fuzz/."""
    from fuzz.run import SURFACES, inputs_of, missing, outcomes, supervise, table
    from result_files import prepare_folder

    from dimp_ros.files.arguments import whole
    from dimp_ros.files.outputs import write_text

    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--inputs", type=whole(), default=100_000, help="number of inputs, all surfaces together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--surface", action="append", choices=list(SURFACES), help="only this surface; may be repeated")
    parser.add_argument("--only", type=whole(0), metavar="N", help="use input N of the surface in this process")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fuzz")
    given = parser.parse_args()
    names = given.surface or list(SURFACES)

    if given.only is not None:
        if len(names) != 1:
            parser.error("--only needs one --surface")
        (outcome,) = outcomes(names[0], SURFACES[names[0]], given.seed, [given.only])
        said = outcome.failure or ("taken" if outcome.taken else "refused")
        print(f"{names[0]} {given.seed} {given.only}: {said.rstrip()} ({1000 * outcome.seconds:.1f} ms)", flush=True)
        os._exit(bool(outcome.failure))

    prepare_folder(parser, given.out, ("fuzz.md", "failures.json", *(f"{name}.log" for name in names)))
    tallies, failures = {}, {}
    begin = time.monotonic()
    for name in names:
        surface = SURFACES[name]
        if missing(surface):
            print(f"[fuzz] {name} is skipped: {surface.needs} is not installed", flush=True)
            continue
        start = time.monotonic()
        tally = tallies[name] = supervise(
            name, surface, given.seed, inputs_of(surface, given.inputs), given.out / f"{name}.log"
        )
        print(f"[fuzz] {name}: {tally.inputs:,} inputs in {time.monotonic() - start:.0f} s", flush=True)
        for number, text in tally.failures.items():
            again = f"tools/env python tools/run_fuzz.py --surface {name} --seed {given.seed} --only {number}"
            failures[again] = text
            print(f"FAILURE; to repeat it: {again}\n{text}", flush=True)
    text = table(tallies)
    write_text(given.out / "fuzz.md", text + "\n")
    write_text(given.out / "failures.json", json.dumps(failures, indent=1))
    print(f"{text}\nin {(time.monotonic() - begin) / 60:.1f} min, seed {given.seed}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
