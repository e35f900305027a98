# SPDX-License-Identifier: Apache-2.0
"""The table of the tracker node's parameters: what each is, which values it takes, and when it may change.

Importing this module needs neither rclpy nor torch, so that the tables of docs/ can be made anywhere.
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
TUNED = (
    "crop_size",
    "search_scale",
    "not_found_threshold",
    "distractor_threshold",
    "search_tiles",
    "find_threshold",
    "find_frames",
    "refine_steps",
    "learning_rate",
    "update_interval",
    "seed",
)
"""Fields of the tracker's configuration that are ROS parameters; the others are set by the file `tracker_config`."""


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
        "Empty for the model's own weights; `random`: random weights, for testing the ROS graph.",
        choices=("", "random"),
    ),
    Parameter("device", "auto", "Device that computes: `auto` (CUDA if available), `cpu`, `cuda`, `cuda:1` ..."),
    Parameter(
        "precision",
        "auto",
        "Of the networks: `auto` is float16 on a GPU, bfloat16 on a CPU with instructions for it, else float32.",
        choices=("auto", "float32", "bfloat16", "float16"),
    ),
    Parameter(
        "backend",
        "auto",
        "What runs the networks: `auto` is OpenVINO where it is installed and the device is a CPU, else PyTorch.",
        choices=("auto", "torch", "openvino"),
    ),
    Parameter(
        "threads",
        0,
        "CPU threads of the networks; 0 for `OMP_NUM_THREADS` or else the cores that the process may use.",
        (0, 256),
    ),
    Parameter(
        "device_fallback",
        True,
        "Compute on the CPU, with a warning, when the requested GPU is missing, fails or has no memory left.",
    ),
    Parameter(
        "tracker_config",
        "",
        "Path of a YAML file with further settings of the tracker; `tracker.*` parameters that are set override it.",
    ),
    # Targets
    Parameter("max_targets", 8, "Maximum number of targets.", (1, 64)),
    Parameter(
        "give_up_after",
        60.0,
        "A target that is LOST for this many seconds of image stamps is dropped; 0 for never.",
        (0.0, 86400.0),
        live=True,
    ),
    Parameter(
        "catch_up_images",
        3,
        "A target that was set in a past image catches up through this many buffered images for each new image.",
        (1, 100),
        live=True,
    ),
    Parameter(
        "wait_for_next",
        0.5,
        "Where inference is slower than the camera: the longest wait for a newer image, in intervals between images. "
        "Results are fresher, at a slightly lower rate; 0 for never.",
        (0.0, 1.0),
        live=True,
    ),
    Parameter(
        "request_timeout",
        10.0,
        "A request that the tracker has not served within this many seconds is refused.",
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
    Parameter("max_megapixels", 50.0, "Compressed images larger than this are refused.", (0.01, 1000.0)),
    Parameter(
        "history_seconds",
        2.0,
        "How long images are buffered, in seconds of their stamps, for requests about a past image.",
        (0.0, 60.0),
    ),
    Parameter("history_megabytes", 256, "Maximum memory of buffered images, MiB.", (1, 65536)),
    Parameter(
        "no_image_warning",
        5.0,
        "After this many seconds without an image the log explains why; 0 for never.",
        (0.0, 3600.0),
        live=True,
    ),
    # Position of the target
    Parameter("rectified", False, "Images are rectified: P of camera_info applies, otherwise K and D."),
    Parameter("use_depth", False, "Subscribe depth, aligned to image, for the range of targets."),
    Parameter("depth_megabytes", 64, "Maximum memory of buffered depth images, MiB.", (1, 4096)),
    Parameter("pose_target", "", "Name of the target on target_pose; empty for the only one.", live=True),
    Parameter(
        "target_width",
        0.0,
        "Width of the target in metres, for its range where there is no depth; 0 if unknown.",
        (0.0, 1000.0),
    ),
    Parameter(
        "depth_tolerance",
        0.05,
        "Largest difference between the stamps of an image and its depth image, seconds.",
        (0.0, 10.0),
    ),
    # Targets from a detector
    Parameter(
        "detector.classes",
        (),
        "Class ids that are taken from init_detections; an empty string array takes any.",
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
    Parameter("detector.target_id", "detection", "Name of a target that is taken from detections.", live=True),
    Parameter(
        "detector.lost_seconds",
        1.0,
        "How long that target must be LOST before detections start it again, seconds: the tracker may find it itself.",
        (0.0, 3600.0),
        live=True,
    ),
    # Diagnostics
    Parameter("diagnostics_period", 1.0, "Seconds between two messages on /diagnostics.", (0.1, 60.0), live=True),
)


def tracker_parameters() -> tuple[Parameter, ...]:
    """Return the fields of the tracker's configuration that are parameters of the node."""
    rows = {row.name: row for row in tracker_settings()}
    return tuple(rows[name]._replace(name=TRACKER_PREFIX + name) for name in TUNED)


def tracker_settings() -> tuple[Parameter, ...]:
    """Return all fields of the tracker's configuration, as the file `tracker_config` holds them."""
    from dimp_ros.tracker.config import TrackerConfig

    rows = []
    for field in dataclasses.fields(TrackerConfig):
        low, high = field.metadata["range"]
        limits = None if low is None else (low, math.inf if high is None else high)
        rows.append(Parameter(field.name, field.default, field.metadata["text"], limits, live=field.metadata["live"]))
    return tuple(rows)


def parameter_table(parameters: Sequence[Parameter] | None = None) -> str:
    """Return parameters as a Markdown table, in their order; None for all of the tracker node."""
    rows = ["| name | type | default | range | set | description |", "|---|---|---|---|---|---|"]
    for row in NODE_PARAMETERS + tracker_parameters() if parameters is None else parameters:
        when = "at start" if row.read_only else "any time" if row.live else "unconfigured"
        rows.append(f"| `{row.name}` | {row.kind_text} | {_allowed_texts(row)} | {when} | {row.text} |")
    return "\n".join(rows) + "\n"


def settings_table() -> str:
    """Return the settings of the file `tracker_config` as a Markdown table."""
    rows = ["| name | type | default | range | description |", "|---|---|---|---|---|"]
    rows += [f"| `{row.name}` | {row.kind_text} | {_allowed_texts(row)} | {row.text} |" for row in tracker_settings()]
    return "\n".join(rows) + "\n"


def _allowed_texts(row: Parameter) -> str:
    """Return the cells with the default and the range of a row."""
    allowed = ", ".join(f"`{value_text(choice)}`" for choice in row.choices) or range_text(row.range)
    return f"`{value_text(row.default)}` | {allowed}"


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
