# SPDX-License-Identifier: Apache-2.0
"""Ages of the node's results on a busy machine: processes that use a core each run beside a 15 Hz camera.

The node runs the shipped tracker in a process of its own. An age counts from the stamp, set just before the image is
published, to the publication of the result.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import programs
from harness.ros_harness import BEST_EFFORT, Client, Image, context, numbered_image, spinning, wait_until
from result_files import prepare_folder, write_results

from benchmark.report import Criterion, table
from benchmark.ros_benchmark import SETTLE_SECONDS, choose_profile, node, send, start
from benchmark.sequences import SyntheticVideo
from dimp_ros.ros_utils.messages import from_bgr

FILES = ("busy.json", "busy.md")
SIZE = (640, 480)
RATE = 15.0
MOST_INTERVALS = 2.0
"""What an age is wanted to stay below, in camera intervals."""


class BusyRun(NamedTuple):
    """A stream of images beside so many busy processes; ages and inference in milliseconds."""

    threads: int
    busy: int
    load: float
    published: int
    processed: int
    inference_ms: float
    age_ms: tuple[float, float, float]
    """Median, 99 % and maximum."""
    growth_ms: float
    """Median age of the last third of the images without that of the first third: where images queue it grows."""


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run so many processes that use a core each."""
    processes = [programs.start([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(threads: int, counts: Sequence[int], length: float, folder: Path) -> list[BusyRun]:
    """Send images to one node for ``length`` seconds beside each number of busy processes.

    :param threads: parameter of the node.
    """
    video, notes, spans = SyntheticVideo(SIZE), folder / "notes.json", []
    command = [sys.executable, "-m", "benchmark.ros_benchmark_node", "--notes", str(notes)]
    command += ["--ros-args", "-p", f"threads:={threads}"]
    with context():
        client = Client(BEST_EFFORT)
        images: list[Image] = [from_bgr(numbered_image(0).header, video.frame(n)) for n in range(60)]
        with spinning(client.node), node(command, folder / "node.log"):
            wait_until(client.images.get_subscription_count, "the node's image subscription", 60.0)
            start(client, images[0], video.boxes(0, 1)[0])
            for count in counts:
                with busy_processes(count):
                    begin = time.time()
                    published = send(client, images, RATE, SETTLE_SECONDS + length)
                    spans.append((count, os.getloadavg()[0], published, begin + SETTLE_SECONDS, time.time()))
                time.sleep(1.0)
    found = json.loads(notes.read_text(encoding="utf-8"))
    return [
        summarize(threads, count, load, published, [one for one in found if low <= one["stamp"] < high])
        for count, load, published, low, high in spans
    ]


def summarize(threads: int, busy: int, load: float, published: int, images: Sequence[dict[str, float]]) -> BusyRun:
    """Return the figures of a stream.

    :param images: the node's notes of those that it processed. :raises RuntimeError: if there are fewer than three.
    """
    if len(images) < 3:
        raise RuntimeError(f"{len(images)} of {published} images were processed beside {busy} busy processes")
    ages = np.array([one["age"] for one in images])
    third = len(ages) // 3
    return BusyRun(
        threads,
        busy,
        load,
        published - round(SETTLE_SECONDS * RATE),
        len(images),
        statistics.median(one["inference"] for one in images),
        (float(np.median(ages)), float(np.quantile(ages, 0.99)), float(ages.max())),
        float(np.median(ages[-third:]) - np.median(ages[:third])),
    )


def acceptance_criteria(runs: Sequence[BusyRun]) -> list[Criterion]:
    """Return what is wanted of each stream."""
    interval, wanted = 1e3 / RATE, []
    for run in runs:
        beside = f"threads {run.threads}, {run.busy} busy processes"
        age = run.age_ms[1] / interval
        wanted += [
            Criterion(f"{beside}: 99 % of ages below 2 intervals", f"{age:.2f}", age < MOST_INTERVALS),
            Criterion(f"{beside}: ages do not grow", f"{run.growth_ms:+.0f} ms", run.growth_ms < interval),
        ]
    return wanted


def text(runs: Sequence[BusyRun]) -> str:
    """Write the figures as Markdown."""
    interval = 1e3 / RATE
    head = ("threads", "busy processes", "age, intervals: median, 99 %, max", "inference, ms", "images", "load")
    rows = [
        [
            str(run.threads),
            str(run.busy),
            ", ".join(f"{age / interval:.2f}" for age in run.age_ms),
            f"{run.inference_ms:.1f}",
            f"{run.processed} of {run.published}",
            f"{run.load:.1f}",
        ]
        for run in runs
    ]
    wanted = ([goal.text, goal.value, "yes" if goal.met else "NO"] for goal in acceptance_criteria(runs))
    return (
        f"Ages of the node's results; {SIZE[0]}x{SIZE[1]} at {RATE:g} Hz, an interval is {interval:.1f} ms\n\n"
        + table(head, rows)
        + "\n\nWanted\n\n"
        + table(("what", "is", "met"), wanted)
        + "\n"
    )


def main(argv: Sequence[str]) -> int:
    """Measure without and with busy processes, print the tables and write them."""
    parser = argparse.ArgumentParser(prog="bench --ros --busy", description=__doc__)
    parser.add_argument("--busy", type=int, required=True, metavar="N", help="processes that use a core each")
    parser.add_argument("--threads", default="0", help="values of the parameter threads, with commas")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each stream of images")
    parser.add_argument("--out", type=Path, default=Path("build") / "bench", help="folder for busy.{json,md}")
    given = parser.parse_args(argv)
    prepare_folder(parser, given.out, FILES)
    choose_profile()
    with tempfile.TemporaryDirectory() as folder:
        try:
            values = [int(value) for value in given.threads.split(",")]
            counts = sorted({0, given.busy})
            runs = [run for value in values for run in measure(value, counts, given.seconds, Path(folder))]
        except RuntimeError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    return write_results("bench", given.out, FILES, [run._asdict() for run in runs], text(runs))
