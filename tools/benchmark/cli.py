# SPDX-License-Identifier: Apache-2.0
"""The command line of the benchmark: `make bench`, or `tools/run_benchmark.py` with arguments."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from result_files import prepare_folder, write_results

from benchmark.sequences import SIDE, BenchmarkVideo, ImageFolderVideo, SyntheticVideo
from dimp_ros.geometry.box import Box

FILES = ("bench.json", "bench.md")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; `docs/performance.md` tells how to read what comes out."""
    parser = argparse.ArgumentParser(
        prog="bench",
        description="Time the tracker's stages against the roofline, the eager baseline and OpenCV's trackers.",
    )
    parser.add_argument("--models", type=_names, help="names or paths with commas; dimp_lite, on a GPU all three")
    parser.add_argument(
        "--sizes",
        type=_sizes,
        default="640x480,1280x720,1920x1080",
        help="of images and, after @, sides of targets in pixels: 640x480,1920x1080@120; 60 by default",
    )
    parser.add_argument("--targets", type=_numbers, default=[1, 2, 4, 8], help="numbers of targets")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", type=_names, help="types of numbers; float32, on a GPU float16 as well")
    parser.add_argument(
        "--backend", type=_names, default=["auto"], help="what runs the networks: auto, torch, openvino"
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="of torch and OpenCV; 0: as many as torch takes by itself"
    )
    parser.add_argument(
        "--against", type=_names, default=["csrt", "kcf"], help="OpenCV's trackers: csrt,kcf,nanotrack_v2"
    )
    parser.add_argument("--peers", type=Path, help="folder that holds NanoTrack's model files")
    parser.add_argument("--frames", type=Path, help="folder of images to use instead of synthetic ones; needs --box")
    parser.add_argument("--box", type=_box, help="x,y,w,h in pixels of the target in the first of --frames")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--length", type=int, default=24, help="frames of a repeat, a multiple of 8")
    parser.add_argument("--cpu-time", action="store_true", help="of stages: for a busy machine, with --threads 1")
    parser.add_argument("--quick", action="store_true", help="one repeat of 8 frames: to see that everything runs")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for bench.json and bench.md")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables and write them; return the exit code: 2 for invalid arguments."""
    parser = build_parser()
    given = parser.parse_args(argv)
    inputs = [("--models", Path(name).expanduser()) for name in given.models or ()]
    prepare_folder(parser, given.out, FILES, [*inputs, ("--peers", given.peers), ("--frames", given.frames)])
    try:
        return _bench(given)
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2


def _bench(given: argparse.Namespace) -> int:
    import cv2
    import torch

    from benchmark.candidates import ModelChoice
    from benchmark.report import text
    from benchmark.run import Scope, measure
    from benchmark.timing import Plan
    from dimp_ros.model.dimp import ARCHITECTURES
    from dimp_ros.tracker.device import choose_device

    if given.threads:
        torch.set_num_threads(given.threads)
    cv2.setNumThreads(torch.get_num_threads())
    on_gpu = choose_device(given.device).type == "cuda"
    models = given.models or (sorted(ARCHITECTURES) if on_gpu else ["dimp_lite"])
    precisions = given.precision or (["float32", "float16"] if on_gpu else ["float32"])
    choices = [
        ModelChoice.find(model, given.device, each, backend)
        for model in models
        for each in precisions
        for backend in given.backend
    ]
    plan = Plan(repeats=given.repeats, frames=given.length)
    if given.quick:
        plan = Plan(repeats=1, frames=8, warm=16, inits=1)
    plan.check()
    scope = Scope(choices, given.targets, given.against, given.peers, plan, given.cpu_time)
    begin = time.monotonic()

    def tell(what: str) -> None:
        print(f"[bench] {time.monotonic() - begin:5.0f} s  {what}", file=sys.stderr, flush=True)

    result = measure(scope, _videos(given), tell)
    return write_results("bench", given.out, FILES, result, text(result))


def _videos(given: argparse.Namespace) -> list[BenchmarkVideo]:
    if given.frames is None:
        return [SyntheticVideo(size, side) for size, side in given.sizes]
    if given.box is None:
        raise ValueError("--frames needs --box x,y,w,h, the target in its first image")
    return [ImageFolderVideo(given.frames, given.box)]


def _names(value: str) -> list[str]:
    names = [name.strip() for name in value.split(",")]
    return [name for name in names if name]


def _numbers(value: str) -> list[int]:
    return [int(name) for name in _names(value)]


def _sizes(value: str) -> list[tuple[tuple[int, int], int]]:
    sizes = []
    for name in _names(value):
        size, _, side = name.partition("@")
        width, _, height = size.partition("x")
        sizes.append(((int(width), int(height)), int(side or SIDE)))
    return sizes


def _box(value: str) -> Box:
    return Box(*(float(number) for number in value.split(",")))
