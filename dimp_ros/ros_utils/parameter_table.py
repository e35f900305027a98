# SPDX-License-Identifier: Apache-2.0
"""The table of the tracker node's parameters: what each is, which values it takes, and when it may change.

Importing this module needs neither rclpy nor torch, so that the README's table can be made anywhere.
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

TRACKER_PREFIX = "tracker."
MAX_ITEMS = 256
"""Longest array that is taken."""
MAX_TEXT = 4096
"""Longest text that is taken, characters: that of a path."""
STRUCTURAL = frozenset({"crop_size", "memory_size", "search_scale"})
"""Fields of the tracker's configuration that are fixed while there are targets, unless their metadata say otherwise."""


class Parameter(NamedTuple):
    """One row of the table.

    :param range: least and greatest value, inclusive, of a number or of every number of an array.
    :param choices: the only values of a text. :param live: may change at any time, and has its effect at once.
    :param read_only: can be set at the start only. A row that is neither is fixed while the node is configured.
    """

    name: str
    default: Any
    text: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    read_only: bool = False

    @property
    def kind(self) -> type:
        """Type of the value: bool, int, float, str, or tuple for an array."""
        return type(self.default)

    @property
    def kind_text(self) -> str:
        """Type of the value in words; an array without default holds texts."""
        if self.kind is not tuple:
            return self.kind.__name__
        return f"{type(self.default[0]).__name__ if self.default else 'str'}[]"

    def checked(self, value: Any) -> Any:
        """Return ``value`` in the parameter's type: whole numbers are taken for floats, sequences for arrays.

        :raises ValueError: with the value received, what is allowed and the remedy.
        """
        if self.kind is tuple:
            return self._checked_array(value)
        accepted = (int, float) if self.kind is float else (self.kind,)
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.kind is not bool):
            raise self._refusal(value, f"must be of type {self.kind.__name__}, such as {value_text(self.default)}")
        if isinstance(value, str):
            return self._checked_text(value)
        return value if isinstance(value, bool) else self._checked_number(value)

    def _checked_text(self, value: str) -> str:
        if self.choices and value not in self.choices:
            raise self._refusal(value, f"must be one of {', '.join(self.choices)}")
        if len(value) > MAX_TEXT:
            raise self._refusal(value, f"has {len(value)} characters and must have {MAX_TEXT} at most")
        return value

    def _checked_number(self, value: Any) -> Any:
        low, high = self.range or (-math.inf, math.inf)
        try:
            number = self.kind(value)
            finite = math.isfinite(number)
        except OverflowError:  # a whole number beyond all floats
            number, finite = value, self.kind is int
        if not finite or not low <= number <= high:
            allowed = f"must lie in {range_text(self.range)}" if self.range else "must be a finite number"
            raise self._refusal(value, allowed)
        return number

    def _checked_array(self, value: Any) -> tuple[Any, ...]:
        """Return an array as a tuple of checked items."""
        if value is None or isinstance(value, (str, bytes, bool, int, float)):
            raise self._refusal(value, f"must be a list ({self.kind_text}), such as {value_text(self.default)}")
        if len(value) > MAX_ITEMS:
            raise self._refusal(value, f"has {len(value)} items and must have {MAX_ITEMS} at most")
        item = self._replace(default=self.default[0] if self.default else "")
        return tuple(item.checked(one) for one in value)

    def _refusal(self, value: Any, allowed: str) -> ValueError:
        return ValueError(f"parameter {self.name} is {reprlib.repr(value)}, but {allowed}: {self.text}")


NODE_PARAMETERS = (
    Parameter("autostart", True, "Configure and activate the node by itself, right after its start.", read_only=True),
    # The model and what it runs on
    Parameter("model", "dimp_lite", "Name of a model, or path of its weights: .safetensors, or .pth of the reference."),
    Parameter(
        "weights",
        "",
        "Empty for the model's own weights; `random` tries the plumbing without any.",
        choices=("", "random"),
    ),
    Parameter("device", "auto", "Device that computes: `auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1` ..."),
    Parameter(
        "precision",
        "auto",
        "Of the networks: `auto` is float16 on a GPU, bfloat16 on a CPU with instructions for it, else float32.",
        choices=("auto", "float32", "bfloat16", "float16"),
    ),
    Parameter(
        "threads",
        0,
        "CPU threads of the networks; 0 leaves it to torch. Fewer than cores, where other programs need them too.",
        (0, 256),
    ),
    Parameter(
        "device_fallback",
        True,
        "Compute on the CPU, with a warning, when the GPU asked for is missing, fails or has no memory left.",
    ),
    # Targets
    Parameter("max_targets", 8, "How many targets may be followed at the same time.", (1, 64)),
    Parameter(
        "give_up_after",
        60.0,
        "Seconds of image stamps after which a target that is LOST all along is dropped; 0 for never.",
        (0.0, 86400.0),
        live=True,
    ),
    Parameter(
        "catch_up_images",
        3,
        "How many past images a target that was set in one of them catches up for each new image.",
        (1, 100),
        live=True,
    ),
    Parameter(
        "wait_for_next",
        0.5,
        "Where inference is slower than the camera: how long to wait for an image newer than the one at hand, in "
        "intervals between images. Boxes are of fresher images, at a slightly lower rate; 0 for never.",
        (0.0, 1.0),
        live=True,
    ),
    Parameter(
        "request_timeout",
        10.0,
        "How long a request waits for the tracker, in seconds, before it is refused.",
        (0.1, 600.0),
        live=True,
    ),
    # Images
    Parameter(
        "image_transport",
        "raw",
        "`raw` subscribes image, `compressed` image/compressed; remapping image moves both.",
        choices=("raw", "compressed"),
    ),
    Parameter("max_megapixels", 50.0, "Compressed pictures larger than this are refused.", (0.01, 1000.0)),
    Parameter(
        "history_seconds",
        2.0,
        "How long images are held, in seconds of their stamps, for requests about a past image.",
        (0.0, 60.0),
    ),
    Parameter("history_megabytes", 256, "How much memory held images may take, in MiB.", (1, 65536)),
    Parameter(
        "no_image_warning",
        5.0,
        "Seconds without an image after which the log says why; 0 turns it off.",
        (0.0, 3600.0),
        live=True,
    ),
    # Where the target is
    Parameter("rectified", False, "Images are rectified: P of camera_info describes them, otherwise K and D."),
    Parameter("use_depth", False, "Subscribe depth, an image aligned to image, for the range of targets."),
    Parameter("depth_megabytes", 64, "How much memory held depth images may take, in MiB.", (1, 4096)),
    Parameter("pose_target", "", "Name of the target that target_pose is about; empty for the only one.", live=True),
    Parameter(
        "target_width",
        0.0,
        "Width of the target in metres, from which its distance follows where there is no depth; 0 if unknown.",
        (0.0, 1000.0),
    ),
    Parameter(
        "depth_tolerance",
        0.05,
        "How far the stamps of an image and of the depth image used for it may be apart, in seconds.",
        (0.0, 10.0),
    ),
    # Targets from a detector
    Parameter(
        "detector.classes",
        (),
        "Class ids that are taken from init_detections; an empty list takes any.",
        live=True,
    ),
    Parameter(
        "detector.min_score", 0.5, "Detections with a lower score than this are not taken.", (0.0, 1.0), live=True
    ),
    Parameter(
        "detector.rule",
        "best_score",
        "Which detection is taken where several qualify.",
        choices=("best_score", "nearest_center", "largest"),
        live=True,
    ),
    Parameter("detector.target_id", "detection", "Name of the target that is taken from detections.", live=True),
    # What is told
    Parameter("diagnostics_period", 1.0, "Seconds between two messages on /diagnostics.", (0.1, 60.0), live=True),
)


def tracker_parameters() -> tuple[Parameter, ...]:
    """Return the fields of the tracker's configuration as rows of the table."""
    from dimp_ros.tracker.config import TrackerConfig

    rows = []
    for field in dataclasses.fields(TrackerConfig):
        low, high = field.metadata["range"]
        limits = None if low is None else (low, math.inf if high is None else high)
        live = field.metadata.get("live", field.name not in STRUCTURAL)
        name = TRACKER_PREFIX + field.name
        rows.append(Parameter(name, field.default, field.metadata["text"], limits, live=live))
    return tuple(rows)


def parameter_table(parameters: Sequence[Parameter] | None = None) -> str:
    """Return parameters as a Markdown table, in their order; None for all of the tracker node."""
    rows = ["| name | type | default | range | set | what it is |", "|---|---|---|---|---|---|"]
    for row in NODE_PARAMETERS + tracker_parameters() if parameters is None else parameters:
        when = "at start" if row.read_only else "any time" if row.live else "unconfigured"
        allowed = ", ".join(f"`{value_text(choice)}`" for choice in row.choices) or range_text(row.range)
        default = value_text(row.default)
        rows.append(f"| `{row.name}` | {row.kind_text} | `{default}` | {allowed} | {when} | {row.text} |")
    return "\n".join(rows) + "\n"


def value_text(value: Any) -> str:
    """Write a value as in a parameter file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(value_text(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'


def range_text(limits: tuple[float, float] | None) -> str:
    """Write a range; half-open ones with the sign that says so."""
    if limits is None:
        return ""
    low, high = (str(limit) if isinstance(limit, int) else f"{limit:g}" for limit in limits)
    return f">= {low}" if high == "inf" else f"<= {high}" if low == "-inf" else f"{low} .. {high}"
