# SPDX-License-Identifier: Apache-2.0
"""What the node adds to the tracker: from an image's receipt to what is published, ages, the start, memory."""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import programs
from harness.ros_harness import BEST_EFFORT, Client, Image, context, numbered_image, spinning, wait_until
from result_files import prepare_folder, write_results

from benchmark.report import Criterion, table
from benchmark.sequences import SyntheticVideo
from dimp_ros.ros_utils.messages import from_bgr

ROOT = Path(__file__).resolve().parents[2]
FILES = ("ros.json", "ros.md")
SIZE = (1280, 720)
BOX = (600.0, 300.0, 80.0, 60.0)
RATES = (15.0, 30.0, 60.0, 120.0)
INFERENCES = (0.005, 0.04)
SETTLE_SECONDS = 1.0
"""What is not counted of each stream: discovery and the first images."""

PROFILE = ROOT / "config" / "fastdds_large_images.xml"
"""Without it nearly all images are lost on their way between the processes, and there is nothing to measure."""

PARTS = ("receiving", "handing over", "conversion", "building messages", "publishing", "the rest")


class Stream(NamedTuple):
    """A stream of images and what the node noted of those that it processed; see `ros_benchmark_node`."""

    rate: float
    published: int
    images: list[dict[str, float]]


@contextmanager
def node(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node in a process of its own, and have it end in order."""
    with log.open("wb") as output:
        process = programs.start(command, output=output)
        try:
            yield process
            process.send_signal(signal.SIGINT)
            process.wait(10)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def streams(seconds: float, rates: Sequence[float], length: float, folder: Path) -> list[Stream]:
    """Send images to a node whose tracker takes ``seconds``, for ``length`` seconds at each rate."""
    notes = folder / f"notes_{seconds:g}.json"
    spans = []
    with context():
        client = Client(BEST_EFFORT)
        command = [
            sys.executable,
            "-m",
            "benchmark.ros_benchmark_node",
            "--seconds",
            str(seconds),
            "--notes",
            str(notes),
        ]
        with spinning(client.node), node(command, folder / f"node_{seconds:g}.log"):
            image = numbered_image(0, width=SIZE[0], height=SIZE[1])
            wait_until(client.images.get_subscription_count, "the node's image subscription", 60.0)
            start(client, image)
            for rate in rates:
                begin = time.time()
                published = send(client, [image], rate, SETTLE_SECONDS + length)
                spans.append((rate, published, begin + SETTLE_SECONDS, time.time()))
                time.sleep(0.5)
    images = json.loads(notes.read_text(encoding="utf-8"))
    return [Stream(rate, n, [one for one in images if low <= one["stamp"] < high]) for rate, n, low, high in spans]


def start(client: Client, image: Image, box: Sequence[float] = BOX, timeout: float = 60.0) -> None:
    """Show an image and take the target in it, as soon as that can be done."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        image.header.stamp = client.node.get_clock().now().to_msg()
        client.images.publish(image)
        time.sleep(0.05)
        if client.init(box).success:
            return
    raise RuntimeError(f"the node has taken no target within {timeout:g} s; its log says why")


def send(client: Client, images: Sequence[Image], rate: float, seconds: float) -> int:
    """Publish images over and over with the time as their stamps; return how many."""
    begin, number = time.monotonic(), 0
    while (now := time.monotonic()) - begin < seconds:
        due = begin + number / rate
        if due > now:
            time.sleep(due - now)
        image = images[number % len(images)]
        image.header.stamp = client.node.get_clock().now().to_msg()
        client.images.publish(image)
        number += 1
    return number


def parts(images: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """Split what images took without the inference, milliseconds."""
    split: dict[str, list[float]] = {name: [] for name in ("all of it", *PARTS, "rclpy's taking, before the receipt")}
    for one in images:
        known = sum(one.get(name, 0.0) for name in ("conversion", "building messages", "publishing", "inference"))
        handing = max(one["until processed"] - one["receiving"], 0.0)
        split["all of it"].append(one["whole"] - one["inference"])
        split["receiving"].append(one["receiving"])
        split["handing over"].append(handing)
        for name in ("conversion", "building messages", "publishing"):
            split[name].append(one.get(name, 0.0))
        split["the rest"].append(one["whole"] - one["receiving"] - handing - known)
        split["rclpy's taking, before the receipt"].append(one["taking"])
    return split


def first_box(folder: Path) -> tuple[float, float, float]:
    """Start the node with the real tracker; return seconds to its first box, and MiB resident, then and at most."""
    video = SyntheticVideo(SIZE)
    box = video.boxes(0, 1)[0]
    with context():
        client = Client(BEST_EFFORT)
        header = numbered_image(0).header
        images = [from_bgr(header, video.frame(n)) for n in range(30)]
        with spinning(client.node):
            begin = time.monotonic()
            with node([sys.executable, str(ROOT / "scripts" / "tracker_node")], folder / "node.log") as process:
                wait_until(client.images.get_subscription_count, "the node's image subscription", 60.0)
                wait_until(client._init.service_is_ready, "its service", 60.0)
                took = None
                for n in range(2000):
                    images[n % 30].header.stamp = client.node.get_clock().now().to_msg()
                    client.images.publish(images[n % 30])
                    if n < 200 and not any(state.id for state in client.states):
                        client.init(box)
                    if took is None and any(array.detections for array in client.detections):
                        took, last = time.monotonic() - begin, n
                    if took is not None and n > last + 150:
                        break
                    time.sleep(1 / 30)
                if took is None:
                    raise RuntimeError("the node has published no box; its log says why")
                resident, most = (memory(process.pid, name) for name in ("VmRSS", "VmHWM"))
    return took, resident, most


def memory(pid: int, name: str) -> float:
    """Return a figure of a process's memory, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/{pid}/status has no {name}")


def measure(length: float, folder: Path) -> dict[str, Any]:
    """Measure everything; the result consists of JSON types."""
    took, resident, most = first_box(folder)
    null = streams(0.0, (30.0,), max(2 * length, 5.0), folder)[0]
    split = {
        name: {"median_ms": float(np.median(v)), "p99_ms": float(np.quantile(v, 0.99))}
        for name, v in parts(null.images).items()
    }
    ages = [row for seconds in INFERENCES for one in streams(seconds, RATES, length, folder) for row in [_age(one)]]
    start = {"first_box_seconds": took, "resident_mib": resident, "most_resident_mib": most}
    return {"start": start, "images": len(null.images), "overhead": split, "ages": ages}


def _age(stream: Stream) -> dict[str, float]:
    if not stream.images:
        raise RuntimeError(f"none of {stream.published} images at {stream.rate:g} Hz was processed; see the node's log")
    inference = statistics.median(one["inference"] for one in stream.images)
    return {
        "rate": stream.rate,
        "published": stream.published,
        "processed": len(stream.images),
        "inference_ms": inference,
        "age_ms": statistics.median(one["age"] for one in stream.images),
        "age_p99_ms": float(np.quantile([one["age"] for one in stream.images], 0.99)),
        "limit_ms": inference + 500 / stream.rate,
    }


def acceptance_criteria(result: dict[str, Any]) -> list[Criterion]:
    """Return what is wanted of the node."""
    start, overhead = result["start"], result["overhead"]
    whole, conversion = overhead["all of it"]["median_ms"], overhead["conversion"]["median_ms"]
    wanted = [
        Criterion("from receipt to publication without inference below 2 ms", f"{whole:.2f} ms", whole < 2),
        Criterion("of it conversion below 0.3 ms", f"{conversion:.3f} ms", conversion < 0.3),
        Criterion(
            "first box within 5 s of the start", f"{start['first_box_seconds']:.1f} s", start["first_box_seconds"] < 5
        ),
        Criterion(
            "less than 900 MiB resident", f"{start['most_resident_mib']:.0f} MiB", start["most_resident_mib"] < 900
        ),
    ]
    for one in result["ages"]:
        what = f"median age at {one['rate']:g} Hz, {one['inference_ms']:.1f} ms of inference: that and half an interval"
        wanted.append(
            Criterion(what, f"{one['age_ms']:.1f} of {one['limit_ms']:.1f} ms", one["age_ms"] < one["limit_ms"])
        )
    return wanted


def text(result: dict[str, Any]) -> str:
    """Write the result as Markdown."""
    wanted = ([goal.text, goal.value, "yes" if goal.met else "NO"] for goal in acceptance_criteria(result))
    split = ([name, f"{one['median_ms']:.3f}", f"{one['p99_ms']:.3f}"] for name, one in result["overhead"].items())
    ages = (
        [
            f"{one['rate']:g}",
            f"{one['inference_ms']:.1f}",
            f"{one['age_ms'] / one['limit_ms']:.2f}",
            *(f"{one[name]:.1f}" for name in ("age_ms", "limit_ms", "age_p99_ms")),
            f"{one['processed']} of {one['published']}",
        ]
        for one in result["ages"]
    )
    head = ("Hz", "inference, ms", "age / limit", "age, ms", "limit, ms", "p99, ms", "images")
    return (
        f"Wanted of the node; {SIZE[0]}x{SIZE[1]}, bgr8, between two processes\n\n"
        + table(("what", "is", "met"), wanted)
        + f"\n\nA null model's image, {result['images']} of them\n\n"
        + table(("part", "median, ms", "p99, ms"), split)
        + "\n\nAges at publication; the limit is the inference and half a frame interval\n\n"
        + table(head, ages)
        + "\n"
    )


def choose_profile() -> None:
    """Have the middleware of this process and its children use the profile, unless another one was chosen."""
    old = os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy")
    os.environ.setdefault(f"{'FASTRTPS' if old else 'FASTDDS'}_DEFAULT_PROFILES_FILE", str(PROFILE))


def main(argv: Sequence[str]) -> int:
    """Measure, print the tables and write them."""
    parser = argparse.ArgumentParser(prog="bench --ros", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each stream of images")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder for ros.json and ros.md")
    given = parser.parse_args(argv)
    prepare_folder(parser, given.out, FILES)
    choose_profile()
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = measure(given.seconds, Path(folder))
        except RuntimeError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    return write_results("bench", given.out, FILES, result, text(result))
