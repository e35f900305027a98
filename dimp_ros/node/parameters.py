# SPDX-License-Identifier: Apache-2.0
"""The tracker node's parameters: one table, from which they are declared, checked and documented.

Importing this module needs neither rclpy nor torch, so that the README's table can be made anywhere.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
    from rclpy.node import Node
    from rclpy.parameter import Parameter as RosParameter

TRACKER_PREFIX = "tracker."


class Parameter(NamedTuple):
    """One row of the table. ``range`` is inclusive; ``read_only`` parameters can be set at start only."""

    name: str
    default: Any
    text: str
    range: tuple[float, float] | None = None
    read_only: bool = False

    @property
    def kind(self) -> type:
        """Type of the value: bool, int, float, str, or tuple for an array of floats or ints."""
        return type(self.default)

    def checked(self, value: Any) -> Any:
        """Return ``value`` in the parameter's type; whole numbers are accepted for floats.

        :raises ValueError: with the value received, what is allowed and the remedy.
        """
        if self.kind is tuple:
            return tuple(Parameter(self.name, self.default[0], self.text, self.range).checked(item) for item in value)
        accepted = (int, float) if self.kind is float else (self.kind,)
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.kind is not bool):
            raise ValueError(f"parameter {self.name} is {value!r}, but must be a {self.kind.__name__}")
        if isinstance(value, (int, float)) and self.kind is not bool:
            value = self.kind(value)
            low, high = self.range or (-math.inf, math.inf)
            if not low <= value <= high:  # a NaN is refused by this as well
                raise ValueError(f"parameter {self.name} is {value:g}, but must lie in {_range_text(self.range)}")
        return value


NODE_PARAMETERS = (
    Parameter("autostart", True, "Configure and activate the node by itself, right after its start.", read_only=True),
    Parameter("model", "dimp_lite", "Name of a model, or path of its weights: .safetensors, or .pth of the reference."),
    Parameter(
        "weights",
        "",
        "Empty for the model's own weights; `random` tries the plumbing without any.",
    ),
    Parameter("device", "auto", "Device that computes: `auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1` ..."),
    Parameter(
        "history_seconds",
        2.0,
        "How long images are held, in seconds of their stamps, for requests about a past image.",
        (0.0, 60.0),
    ),
    Parameter("history_megabytes", 256, "How much memory held images may take, in MiB.", (1, 65536)),
    Parameter(
        "request_timeout",
        10.0,
        "How long a request waits for the tracker, in seconds, before it is refused.",
        (0.1, 600.0),
    ),
    Parameter(
        "no_image_warning", 5.0, "Seconds without an image after which the log says why; 0 turns it off.", (0.0, 3600.0)
    ),
)


def tracker_parameters() -> tuple[Parameter, ...]:
    """Return the fields of the tracker's configuration as rows of the table."""
    from dimp_ros.tracker.config import TrackerConfig

    rows = []
    for field in dataclasses.fields(TrackerConfig):
        low, high = field.metadata["range"]
        limits = None if low is None else (low, math.inf if high is None else high)
        rows.append(Parameter(TRACKER_PREFIX + field.name, field.default, field.metadata["text"], limits))
    return tuple(rows)


def parameter_table() -> str:
    """Return all parameters as a Markdown table, in the order in which they are declared."""
    rows = ["| name | type | default | range | what it is |", "|---|---|---|---|---|"]
    for row in NODE_PARAMETERS + tracker_parameters():
        kind = "float[]" if row.kind is tuple else row.kind.__name__
        text = row.text + (" Set at start only." if row.read_only else "")
        rows.append(f"| `{row.name}` | {kind} | `{_value_text(row.default)}` | {_range_text(row.range)} | {text} |")
    return "\n".join(rows) + "\n"


def _value_text(value: Any) -> str:
    """Write a value as in a parameter file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_value_text(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'


def _range_text(limits: tuple[float, float] | None) -> str:
    """Write a range; half-open ones with the sign that says so."""
    if limits is None:
        return ""
    low, high = limits
    return f">= {low:g}" if math.isinf(high) else f"<= {high:g}" if math.isinf(low) else f"{low:g} .. {high:g}"


class ParameterHandler:
    """Declares the table's parameters on a node, checks every change, and hands out values.

    Values are read when the node is configured. While it is, a change is refused: it would show in
    ``ros2 param get`` and have no effect.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rows = {row.name: row for row in NODE_PARAMETERS + tracker_parameters()}
        self._values: dict[str, Any] = {}
        self.frozen = False
        """Whether the node is configured, and changes are refused."""
        for row in self._rows.values():
            default = list(row.default) if row.kind is tuple else row.default
            value = node.declare_parameter(row.name, default, _descriptor(row)).value
            self._values[row.name] = row.checked(value)
        node.add_on_set_parameters_callback(self._on_set)

    def __getitem__(self, name: str) -> Any:
        """Return the value of a parameter in the type of its default."""
        return self._values[name]

    def tracker_settings(self) -> dict[str, Any]:
        """Return the fields of the tracker's configuration that were given another value than their default.

        The others are left to the weights, which may have been trained with another crop, for one.
        """
        changed = {name: value for name, value in self._values.items() if value != self._rows[name].default}
        start = len(TRACKER_PREFIX)
        return {name[start:]: value for name, value in changed.items() if name.startswith(TRACKER_PREFIX)}

    def _on_set(self, changes: Iterable[RosParameter[Any]]) -> SetParametersResult:
        """Accept a batch of changes as a whole or not at all."""
        from rcl_interfaces.msg import SetParametersResult

        accepted = {}
        for change in changes:
            row = self._rows.get(change.name)
            if row is None:  # use_sim_time and the QoS overrides belong to rclpy
                continue
            try:
                value = row.checked(change.value)
            except (ValueError, TypeError) as error:
                return SetParametersResult(successful=False, reason=str(error))
            if self.frozen and value != self._values[change.name]:
                reason = f"{change.name} is fixed while the node is configured: deactivate and clean it up first"
                return SetParametersResult(successful=False, reason=reason)
            accepted[change.name] = value
        self._values.update(accepted)
        return SetParametersResult(successful=True)


def _descriptor(row: Parameter) -> ParameterDescriptor:
    """Return the descriptor of a row; a float takes whole numbers too, so its range is checked by `Parameter`."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    descriptor = ParameterDescriptor(description=row.text, read_only=row.read_only)
    descriptor.dynamic_typing = row.kind in (float, tuple)
    if row.range is not None and all(math.isfinite(limit) for limit in row.range):
        low, high = row.range
        if row.kind is float:
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        elif row.kind is int:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    if row.range is not None:
        descriptor.additional_constraints = _range_text(row.range)
    return descriptor
