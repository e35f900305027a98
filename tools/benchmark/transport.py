# SPDX-License-Identifier: Apache-2.0
"""Raw images from another process with Fast DDS as installed: loss, age and cost at the publisher, by reliability.

A process publishes RELIABLE images as a camera driver does, without a profile for large images; the tracker node
subscribes BEST_EFFORT or RELIABLE. Its tracker is a pause in the node's worker thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from result_files import prepare_folder, write_results

from benchmark.report import table
from benchmark.ros_benchmark import SETTLE_SECONDS, node
from dimp_ros.ros_utils.fastdds import OWN_CHOICES

FILES = ("transport.json", "transport.md")
SIZES = ((640, 480), (1280, 720))
RATE = 30.0
TRACKER_SECONDS = (0.0, 0.1)
RELIABILITIES = ("best_effort", "reliable")
DISCOVERY_SECONDS = 60.0


class Run(NamedTuple):
    """One stream: what was published and what the node received."""

    width: int
    height: int
    tracker_seconds: float
    reliability: str
    published: int
    received: int
    age_ms: tuple[float, float, float]
    """Median, 95 % and maximum of the age at receipt."""
    publish_ms: tuple[float, float, float]
    """The same of the time that the publisher's call takes."""
    rate: float
    """Images a second that the publisher achieved."""


def publish(argv: Sequence[str]) -> int:
    """Publish images as a camera driver does; write stamps and the time of each call as JSON."""
    parser = argparse.ArgumentParser(prog="transport publish")
    for name, kind in (("--width", int), ("--height", int), ("--rate", float), ("--seconds", float), ("--out", Path)):
        parser.add_argument(name, type=kind, required=True)
    given = parser.parse_args(argv)
    import rclpy
    from sensor_msgs.msg import Image

    from dimp_ros.ros_utils.qos import reliable_qos

    rclpy.init()
    driver = rclpy.create_node("camera")
    publisher = driver.create_publisher(Image, "image", reliable_qos(10))
    image = Image(width=given.width, height=given.height, encoding="bgr8", step=3 * given.width)
    image.data = bytes(image.step * image.height)
    end = time.monotonic() + DISCOVERY_SECONDS
    while not publisher.get_subscription_count() and time.monotonic() < end:
        time.sleep(0.05)
    begin, calls = time.monotonic(), []
    while (now := time.monotonic()) - begin < given.seconds + SETTLE_SECONDS:
        due = begin + len(calls) / given.rate
        if due > now:
            time.sleep(due - now)
        image.header.stamp = driver.get_clock().now().to_msg()
        before = time.perf_counter()
        publisher.publish(image)
        stamp = image.header.stamp.sec + image.header.stamp.nanosec * 1e-9
        calls.append([stamp, (time.perf_counter() - before) * 1e3, time.monotonic() - begin])
    time.sleep(0.5)
    given.out.write_text(json.dumps(calls), encoding="utf-8")
    driver.destroy_node()
    rclpy.try_shutdown()
    return 0


def serve(argv: Sequence[str]) -> int:
    """Run the tracker node until SIGINT; write stamp and age of each image received as JSON."""
    from harness.tracker_double import TrackerDouble

    from dimp_ros.node.pipeline import Pipeline
    from dimp_ros.node.tracker_node import main as run_node

    parser = argparse.ArgumentParser(prog="transport serve")
    parser.add_argument("--seconds", type=float, required=True, help="pause of the worker's thread for each image")
    parser.add_argument("--out", type=Path, required=True)
    given, ros = parser.parse_known_args(argv)
    receipts: list[list[float]] = []
    receive, process = Pipeline.receive, Pipeline._process

    def receiving(pipeline: Any, image: Any) -> None:
        stamp = image.header.stamp.sec + image.header.stamp.nanosec * 1e-9
        receipts.append([stamp, time.time() - stamp])
        receive(pipeline, image)

    def processing(pipeline: Any, image: Any) -> None:
        time.sleep(given.seconds)
        process(pipeline, image)

    Pipeline.receive, Pipeline._process = receiving, processing  # type: ignore[method-assign]
    code = run_node(ros, tracker_factory=lambda _parameters: TrackerDouble())
    given.out.write_text(json.dumps(receipts), encoding="utf-8")
    return code


def measure(size: tuple[int, int], pause: float, reliability: str, length: float, folder: Path) -> Run:
    """Measure one stream."""
    sent, received = folder / "sent.json", folder / "received.json"
    module = [sys.executable, "-m", "benchmark.transport"]
    override = f"qos_overrides./image.subscription.reliability:={reliability}"
    serving = [*module, "serve", "--seconds", str(pause), "--out", str(received), "--ros-args", "-p", override]
    sending = ["publish", "--rate", str(RATE), "--seconds", str(length), "--out", str(sent)]
    sending += ["--width", str(size[0]), "--height", str(size[1])]
    with node(serving, folder / "node.log"):
        subprocess.run([*module, *sending], env=stock(os.environ), check=True, timeout=DISCOVERY_SECONDS + 2 * length)
    calls, receipts = (np.array(json.loads(path.read_text(encoding="utf-8"))) for path in (sent, received))
    return summarize(size, pause, reliability, calls.reshape(-1, 3), receipts.reshape(-1, 2))


def stock(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without choices for Fast DDS."""
    return {name: value for name, value in environment.items() if name not in OWN_CHOICES}


def summarize(size: tuple[int, int], pause: float, reliability: str, calls: np.ndarray, receipts: np.ndarray) -> Run:
    """Return the figures of a stream.

    :param calls: [n, 3] stamp, milliseconds of the call, seconds since the start. :param receipts: [m, 2] stamp, age.
    """
    counted = calls[calls[:, 2] >= SETTLE_SECONDS]
    ages = receipts[receipts[:, 0] >= counted[0, 0] - 1e-6, 1] * 1e3
    duration = counted[-1, 2] - counted[0, 2]
    return Run(
        *size,
        pause,
        reliability,
        len(counted),
        len(ages),
        _spread(ages),
        _spread(counted[:, 1]),
        (len(counted) - 1) / duration,
    )


def _spread(values: np.ndarray) -> tuple[float, float, float]:
    if not len(values):
        return (float("nan"),) * 3
    return float(np.median(values)), float(np.quantile(values, 0.95)), float(values.max())


def text(runs: Sequence[Run]) -> str:
    """Write the figures as Markdown, the better reliability of each pair in sight beside the other."""
    head = ("image", "tracker, ms", "subscription", "received", "age ms: median, 95 %, max", "publish() ms", "Hz sent")
    rows = [
        [
            f"{run.width}x{run.height}",
            f"{run.tracker_seconds * 1e3:.0f}",
            run.reliability,
            f"{run.received} of {run.published}",
            ", ".join(f"{value:.0f}" for value in run.age_ms),
            ", ".join(f"{value:.1f}" for value in run.publish_ms),
            f"{run.rate:.1f}",
        ]
        for run in runs
    ]
    return f"Images of another process, {RATE:g} Hz, Fast DDS as installed\n\n{table(head, rows)}\n"


def main(argv: Sequence[str]) -> int:
    """Measure both reliabilities in turn, print the table and write it."""
    parser = argparse.ArgumentParser(prog="bench --ros --transport", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each stream of images")
    parser.add_argument("--repeats", type=int, default=1, help="of each stream")
    parser.add_argument("--out", type=Path, default=Path("build") / "bench", help="folder for transport.{json,md}")
    given = parser.parse_args(argv)
    prepare_folder(parser, given.out, FILES)
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            measure(size, pause, reliability, given.seconds, Path(folder))
            for size in SIZES
            for pause in TRACKER_SECONDS
            for _ in range(given.repeats)
            for reliability in RELIABILITIES
        ]
    return write_results("bench", given.out, FILES, [one._asdict() for one in runs], text(runs))


if __name__ == "__main__":
    sys.exit({"publish": publish, "serve": serve}[sys.argv[1]](sys.argv[2:]))
