# SPDX-License-Identifier: Apache-2.0
"""Checks of an image stream by its statistics: one line for each problem, with the remedy."""

from __future__ import annotations

from dimp_ros.node.diagnostics.statistics import WINDOW_SECONDS, StreamStatistics
from dimp_ros.ros_utils.fastdds import large_images_remedy

OLD_SECONDS, AHEAD_SECONDS = 5.0, 0.1
"""Ages beyond which stamps and the node's clock do not belong together."""

WALL_SECONDS, SIMULATED_SECONDS = 1e9, 1e8
"""Times above the first (2001) are of a wall clock, below the second (three years) of a simulation or since a boot."""

DROPPED_SHARE = 0.1
"""Share of the images that may be skipped without a warning."""

SETTLE_SECONDS = 2.0
"""A window shorter than this says nothing about the speed: a target may have been learned in it."""

SLOW_HZ, SLOW_SECONDS = 5.0, 0.5
"""Skipping images is harmless while at least so many a second are processed, and 95 % are so fresh."""

LARGE_BYTES = 2**19
"""Larger images do not fit into the memory that Fast DDS shares between processes, as installed."""
ARRIVING_SHARE = 0.6
"""Images are lost where fewer than this share of the camera's arrive."""


def stream_conditions(figures: StreamStatistics) -> dict[str, str]:
    """Return what is wrong by kind, as `ConditionLog` takes it; empty texts where nothing is."""
    return {
        "stamps": stamp_trouble(figures),
        "loss": transport_loss(figures),
        "slowness": slowness(figures),
        "stall": stall(figures),
    }


def transport_loss(figures: StreamStatistics) -> str:
    """Return that large images are lost between the camera's process and the node; empty if they are not."""
    arriving, taken = figures.stamped_rate, figures.camera_rate
    if figures.image_bytes <= LARGE_BYTES or arriving is None or taken is None or arriving >= ARRIVING_SHARE * taken:
        return ""
    remedy = large_images_remedy() or "set image_transport to compressed, or raise the middleware's buffers"
    return (
        f"{arriving:.3g} of about {taken:.3g} images a second arrive: images of {figures.image_bytes / 2**20:.2g} MiB "
        f"are lost between the processes; {remedy}"
    )


def stamp_trouble(figures: StreamStatistics) -> str:
    """Return what is wrong with the images' stamps, by themselves or by the node's clock; empty if nothing is."""
    if figures.zero_stamps:
        return (
            f"{figures.zero_stamps} of {figures.received} images have stamp 0, so that neither their age is known nor "
            "which one a request means: let the publisher set header.stamp to the time of exposure"
        )
    if figures.age_median is not None and figures.last_stamp is not None:
        stamp = figures.last_stamp / 1e9
        if figures.age_median > OLD_SECONDS:
            return _old(figures.age_median, stamp)
        if figures.age_median < -AHEAD_SECONDS:
            return _ahead(-figures.age_median, stamp)
    if figures.backward:
        return (
            f"stamps went back {figures.backward} times, last by {figures.backward_seconds:.3g} s: "
            "a bag that loops, a clock that was set, or two publishers on the topic (ros2 topic info -v); requests "
            "can only mean images since then"
        )
    return ""


def _old(age: float, stamp: float) -> str:
    """Explain stamps that are ``age`` seconds behind the node's clock; ``stamp`` is the last one, seconds."""
    if stamp < SIMULATED_SECONDS and stamp + age > WALL_SECONDS:
        return (
            f"stamps are of a simulation or count from a boot (the last is {stamp:.1f} s), but the node's clock is the "
            "wall clock: set use_sim_time to true with a simulation, or let the driver stamp with ROS time"
        )
    return (
        f"stamps are {age:.3g} s older than the node's clock: play a bag with --clock and set use_sim_time to true, "
        "let the driver stamp at exposure, or set the machines' clocks alike (chrony, ptp)"
    )


def _ahead(ahead: float, stamp: float) -> str:
    """Explain stamps that are ``ahead`` seconds in front of the node's clock."""
    if ahead > WINDOW_SECONDS > stamp - ahead:  # the median age is that of an image some seconds before the last
        return (
            "the node's clock stands at 0: use_sim_time is true, but nothing comes on /clock; play the bag with "
            "--clock, start the simulator's clock, or set use_sim_time to false"
        )
    if stamp > WALL_SECONDS and stamp - ahead < SIMULATED_SECONDS:
        return (
            f"stamps are of the wall clock, but the node's clock is simulated ({stamp - ahead:.1f} s): set "
            "use_sim_time to false, or let the images be stamped with simulated time"
        )
    return (
        f"stamps are {ahead:.3g} s ahead of the node's clock: set the machines' clocks alike (chrony, ptp), or "
        "use_sim_time everywhere or nowhere"
    )


def slowness(figures: StreamStatistics) -> str:
    """Return that images are skipped because inference is slower than the camera; empty if they are not."""
    if figures.dropped <= DROPPED_SHARE * figures.received:
        return ""
    return (
        f"{figures.processed_rate:.3g} of {figures.input_rate:.3g} images a second are processed, always the newest: a "
        "lower camera rate, fewer targets, a smaller model or a faster device leave none out"
    )


def harmful(figures: StreamStatistics) -> bool:
    """Return whether few images a second are processed, or many are old; not in the first seconds of a stream."""
    if figures.window < SETTLE_SECONDS:
        return False
    return figures.processed_rate < SLOW_HZ or (figures.age_p95 or 0.0) > SLOW_SECONDS


def stall(figures: StreamStatistics) -> str:
    """Return that images come in and nothing comes out; empty if something does."""
    silent = figures.since_start if figures.since_processed is None else figures.since_processed
    if not figures.received or silent < WINDOW_SECONDS:
        return ""
    return (
        f"images come in, but none has been reported on for {silent:.0f} s: the tracker hangs; deactivate and activate "
        "the node, and if that does not help clean it up and configure it, or set device to cpu"
    )
