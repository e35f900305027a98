# SPDX-License-Identifier: Apache-2.0
"""Soak a tracker node in a process of its own: hours of images and requests, and what must hold throughout."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from harness.ros_harness import context
from programs import start

from dimp_ros.ros_utils.fastdds import give_room_for_images
from soak.client import ANSWER_SECONDS, LATE_SECONDS, SoakClient
from soak.report import ResourceSample, SoakReport, TargetLedger, judge_resources, sample
from soak.traffic import MAX_TARGETS, ResultWatcher, SoakCamera

STOP_SECONDS = 5.0
START_SECONDS = 300.0
"""For a first start, which compiles the graphs; minutes on a busy machine."""
EXPECTED_ERRORS = re.compile(r"image is not used|stamp|no image for|refused|not taken")
"""Log lines about errors that the traffic makes on purpose."""


class SoakPlan(NamedTuple):
    """Settings of a soak.

    :param seconds: duration. :param warm_up: seconds after which memory must not grow.
    :param memory_growth: that is allowed, MiB per hour, see `judge_resources`.
    :param update_seconds: time of the scripted tracker's update.
    """

    seconds: float
    warm_up: float
    memory_growth: float = 20.0
    tracker: str = "scripted"
    update_seconds: float = 0.02
    clients: int = 3
    seed: int = 1


def soak(plan: SoakPlan, folder: Path) -> dict[str, Any]:
    """Run a node and its traffic; return the results. ``violations`` is empty on success.

    :param folder: for the node's log and figures.
    """
    give_room_for_images()  # else a request is lost where images fill half a MiB, and comes again 3 s later
    report, ledger, samples = SoakReport(), TargetLedger(), []
    log, times, heap = folder / "node.log", folder / "times.json", folder / "heap.txt"
    command = [sys.executable, "-m", "soak.node", "--tracker", plan.tracker]
    command += ["--seconds", str(plan.update_seconds), "--times", str(times), "--heap", str(heap), "--ros-args"]
    for name, value in (("max_targets", MAX_TARGETS), ("give_up_after", 0.0), ("threads", 1)):
        command += ["-p", f"{name}:={value}"]
    with log.open("wb") as output:
        node = start(command, output=output)
        try:
            with context():
                samples = _traffic(plan, node, heap, ledger, report)
            _end(node, report)
        finally:
            if node.poll() is None:
                node.kill()
                node.wait()
    resources = judge_resources(samples, plan.warm_up, plan.memory_growth, report)
    _judge_log(log, report)
    tracker = json.loads(times.read_text(encoding="utf-8")) if times.is_file() else {}
    _judge_age(tracker, report)
    return {
        "plan": plan._asdict(),
        "tracker_seconds": tracker,
        "resources": resources,
        "seconds": {name: one.summary() for name, one in sorted(report.durations.items())},
        "counts": dict(sorted(report.counts.items())),
        "violations_by_kind": dict(report.kinds),
        "violations": report.violations,
        "samples": [list(one) for one in samples],
    }


def _traffic(
    plan: SoakPlan, node: subprocess.Popen[bytes], heap: Path, ledger: TargetLedger, report: SoakReport
) -> list[ResourceSample]:
    """Run camera, watcher and clients against the node, and sample its resources each second."""
    camera = SoakCamera(plan.seed, report)
    watcher = ResultWatcher(camera, ledger, report)
    clients = [SoakClient(number, plan.seed, camera, ledger, report) for number in range(plan.clients)]
    _wait_until_active(node, clients[0])
    stop = threading.Event()
    threads = [threading.Thread(target=_run, args=(one, stop, report)) for one in (camera, watcher, *clients)]
    for thread in threads:
        thread.start()
    samples = []
    begin = time.monotonic()
    try:
        while (now := time.monotonic() - begin) < plan.seconds and node.poll() is None:
            samples.append(sample(node.pid, now, heap))
            time.sleep(max(0.0, 1.0 - (time.monotonic() - begin - now)))
        if node.poll() is not None:
            report.violation("node", f"it ended by itself with {node.returncode}")
    finally:
        stop.set()
        for thread in threads:
            thread.join(max(ANSWER_SECONDS.values()) + LATE_SECONDS + 5)
            if thread.is_alive():
                report.violation("soak", f"{thread.name} hangs")
        for one in (camera, watcher, *clients):
            one.node.destroy_node()
    return samples


def _run(one: SoakCamera | ResultWatcher | SoakClient, stop: threading.Event, report: SoakReport) -> None:
    """Run one part of the traffic; an exception is a fault of the soak itself, and reported."""
    try:
        one.run(stop)
    except Exception as error:
        report.violation("soak", f"{type(one).__name__} ended with {type(error).__name__}: {error}")
        raise


def _wait_until_active(node: subprocess.Popen[bytes], client: SoakClient) -> None:
    """Wait until the node has its image subscription.

    :raises RuntimeError: if it does not get there.
    """
    end = time.monotonic() + START_SECONDS
    while not client.node.count_subscribers("image"):
        if node.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the node did not become active, exit code {node.poll()}; its log says why")
        time.sleep(0.1)


def _end(node: subprocess.Popen[bytes], report: SoakReport) -> None:
    """End the node by SIGINT."""
    if node.poll() is not None:
        return
    node.send_signal(signal.SIGINT)
    try:
        code = node.wait(STOP_SECONDS)
        if code != 0:
            report.violation("node", f"it ended with {code} on SIGINT")
    except subprocess.TimeoutExpired:
        report.violation("node", f"it did not end within {STOP_SECONDS:g} s of SIGINT")


def _judge_log(log: Path, report: SoakReport) -> None:
    """Report exceptions and unexpected errors in the node's log."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if "Traceback" in line or (("[ERROR]" in line or "[FATAL]" in line) and not EXPECTED_ERRORS.search(line)):
            report.violation("log", line[:300])


def _judge_age(tracker: dict[str, Any], report: SoakReport) -> None:
    """Report ages that the tracker's own times do not explain.

    An image waits for the one before it, for a request, and for as many replayed images as the parameter allows.
    """
    age = report.durations.get("age")
    if age is None:
        report.violation("age", "nothing was published about any image")
        return
    update, init = tracker.get("update"), tracker.get("init")
    if not update or not init:
        report.violation("age", "the node has not written the times of its tracker")
        return
    usual = 2 * 6 * update["p99"] + init["p99"] + 0.1
    most = 2 * 6 * update["max"] + 3 * init["max"] + 1.0
    if age.quantile(0.99) > usual or age.longest > most:
        report.violation(
            "age", f"p99 {age.quantile(0.99):.3f} s, longest {age.longest:.3f} s; expected {usual:.3f} and {most:.3f}"
        )


def text(result: dict[str, Any]) -> str:
    """Return the results as text."""
    lines = [f"soaked for {result['plan']['seconds']:g} s, tracker {result['plan']['tracker']}"]
    for part in ("tracker_seconds", "seconds"):
        lines += [f"  {name:<22} {_figures(values)} s" for name, values in result[part].items()]
    resources = result["resources"]
    if resources:
        for kind, values in zip(("lowest", "highest"), resources["rss_mib"], strict=True):
            lines += [f"  {'memory, ' + kind:<22} {' '.join(map(str, values))} MiB"]
        if "heap_mib" in resources:
            lines += [f"  {'handed out, lowest':<22} {' '.join(map(str, resources['heap_mib']))} MiB"]
        for name, key in (("memory", "rss_mib_per_hour"), ("handed out", "heap_mib_per_hour")):
            if key in resources:
                slope, error = resources[key]
                lines += [f"  {name + ' after warm-up':<22} {slope:+.1f} MiB an hour, standard error {error:.1f}"]
        lines += [f"  {name:<22} {_figures(resources[name])}" for name in ("threads", "descriptors")]
    lines += [f"  {count:>7} {name}" for name, count in result["counts"].items()]
    lines += [f"VIOLATION {one}" for one in result["violations"]]
    lines.append(f"{sum(result['violations_by_kind'].values())} violations")
    return "\n".join(lines)


def _figures(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:g}" for name, value in values.items())
