# SPDX-License-Identifier: Apache-2.0
"""The parameters of a node: declared from the table, checked at every change."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from dimp_ros.ros_utils.parameter_table import (
    NODE_PARAMETERS,
    TRACKER_PREFIX,
    Parameter,
    range_text,
    tracker_parameters,
)
from dimp_ros.ros_utils.text import shortened, traceback_text
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.config_file import read_settings

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
    from rclpy.node import Node
    from rclpy.parameter import Parameter as RosParameter


class Change(NamedTuple):
    """A batch of changes that was accepted.

    :param values: the parameters that have another value now. :param config: the tracker's whole configuration, None if
        nothing of it has changed.
    """

    values: dict[str, Any]
    config: TrackerConfig | None


class ParameterHandler:
    """Declares the table's parameters on a node, checks every change, and hands out values.

    A batch of changes is accepted as a whole or not at all; values may be read from any thread, and those of one batch
    appear together. What is not live is read when the node is configured: while it is, such a change is refused,
    because it would have no effect.

    A parameter file may hold a wrong value. The node starts with the default in its place, and `problems` says what was
    wrong until the parameter is set again; see `require_valid`.

    :param rows: the table; None for the tracker node's. Another one holds nothing of the tracker's configuration.
    :param check: raises ValueError for values, by parameter, that do not fit each other; such a batch is refused.
    """

    def __init__(
        self,
        node: Node,
        rows: Sequence[Parameter] | None = None,
        check: Callable[[Mapping[str, Any]], object] | None = None,
    ) -> None:
        self._node = node
        self._check = check
        self._rows = {row.name: row for row in (NODE_PARAMETERS + tracker_parameters() if rows is None else rows)}
        self._values: dict[str, Any] = {}
        self._given: frozenset[str] = frozenset()
        self._listeners: list[Callable[[Change], None]] = []
        self._lock = threading.RLock()
        self._adopting = False
        self._file_settings: dict[str, Any] = {}
        self.notes: list[str] = []
        """What differs from the parameters, such as a device that was replaced."""
        self.frozen = False
        """Whether the node is configured, and only live parameters may change."""
        self.problems: dict[str, str] = {}
        """What was wrong with values given at the start, by parameter."""
        for row in self._rows.values():
            self._declare(row)
        try:
            if rows is None:
                self.tracker_config()
        except ValueError as error:
            self.problems[TRACKER_PREFIX] = f"parameters {TRACKER_PREFIX}*: {error}"
        node.add_on_set_parameters_callback(self._on_set)

    def __getitem__(self, name: str) -> Any:
        """Return the value of a parameter in the type of its default."""
        return self._values[name]

    def require_valid(self) -> None:
        """Check that no value was wrong at the start.

        :raises ValueError: with all of them, in one line.
        """
        if self.problems:
            raise ValueError("; ".join(self.problems.values()))

    def read_tracker_config(self) -> None:
        """Read the file that `tracker_config` names, if any.

        :raises ValueError: if it cannot be read, or holds a wrong value.
        """
        path = self._values["tracker_config"]
        self._file_settings = {}
        if path:
            try:
                self._file_settings = read_settings(path)
            except ValueError as error:
                raise ValueError(f"tracker_config: {error}") from error

    def on_change(self, listener: Callable[[Change], None]) -> None:
        """Call ``listener`` once for every accepted batch that changes something.

        It must return at once; what it raises is logged only.
        """
        self._listeners.append(listener)

    def tracker_settings(self) -> dict[str, Any]:
        """Return the fields of the tracker's configuration that were set, by a parameter or else by the file.

        The others are left to the weights, which may have been trained with another crop size.
        """
        given, values = self._given, self._values
        return {**self._file_settings, **_fields({name: values[name] for name in given})}

    def tracker_config(self, changes: Mapping[str, Any] | None = None) -> TrackerConfig:
        """Return the tracker's configuration by the parameters and the file, with ``changes`` by parameter.

        :raises ValueError: if a value is not allowed.
        """
        return TrackerConfig(**{**self._file_settings, **_fields({**self._values, **(changes or {})})})

    def adopt(self, config: TrackerConfig) -> None:
        """Set the parameters that nobody has set to the configuration in use.

        ``ros2 param get`` tells what is in use then, and a change is checked against it.
        """
        from rclpy.parameter import Parameter as RosParameter

        with self._lock:
            names = [name for name in self._rows if name.startswith(TRACKER_PREFIX) and name not in self._given]
            wanted = {name: getattr(config, name[len(TRACKER_PREFIX) :]) for name in names}
            changed = {name: value for name, value in wanted.items() if value != self._values[name]}
            if not changed:
                return
            self._adopting = True
            try:
                result = self._node.set_parameters_atomically(
                    [RosParameter(name, value=_ros_value(value)) for name, value in changed.items()]
                )
            finally:
                self._adopting = False
        if not result.successful:
            self._node.get_logger().error(f"parameters do not show what the weights ask for: {result.reason}")

    def _declare(self, row: Parameter) -> None:
        """Declare a parameter with the value it was given at the start, or with its default if that one is wrong."""
        from rcl_interfaces.msg import ParameterDescriptor

        # Declared without type, default and limits first: that tells whether a value was given, and any is taken.
        anything = ParameterDescriptor(dynamic_typing=True)
        given = self._node.declare_parameter(row.name, None, anything).value
        self._node.undeclare_parameter(row.name)
        value = row.default
        if given is not None:
            try:
                value = row.checked(given)
                self._given |= {row.name}
            except ValueError as error:
                self.problems[row.name] = str(error)
        self._node.declare_parameter(row.name, _ros_value(value), _descriptor(row), ignore_override=True)
        self._values[row.name] = value

    def _on_set(self, parameters: Iterable[RosParameter[Any]]) -> SetParametersResult:
        """Accept a batch of changes as a whole or not at all, and call the listeners."""
        from rcl_interfaces.msg import SetParametersResult

        with self._lock:
            try:
                accepted = self._checked(parameters)
                changed = {name: value for name, value in accepted.items() if value != self._values[name]}
                config = self._checked_config(accepted)
                if changed and self._check is not None:
                    self._check({**self._values, **accepted})
            except ValueError as error:
                return SetParametersResult(successful=False, reason=shortened(str(error)))
            self._values = {**self._values, **accepted}
            if self._adopting:
                return SetParametersResult(successful=True)
            self._given |= accepted.keys()
            for name in accepted:
                self.problems.pop(name, None)
            if config is not None:
                self.problems.pop(TRACKER_PREFIX, None)
        if changed:
            fields_changed = any(name.startswith(TRACKER_PREFIX) for name in changed)
            self._tell(Change(changed, config if fields_changed else None))
        return SetParametersResult(successful=True)

    def _checked(self, parameters: Iterable[RosParameter[Any]]) -> dict[str, Any]:
        """Return the values of a batch that belong to the table, each checked by itself."""
        accepted = {}
        for parameter in parameters:
            row = self._rows.get(parameter.name)
            if row is None:  # use_sim_time and the QoS overrides belong to rclpy
                continue
            value = row.checked(parameter.value)
            if self.frozen and not self._adopting and not row.live and value != self._values[row.name]:
                raise ValueError(
                    f"{row.name} is fixed while the node is configured, at {self._values[row.name]!r}: deactivate and "
                    "clean it up first (ros2 lifecycle set NODE deactivate, then cleanup), and configure it afterwards"
                )
            accepted[row.name] = value
        return accepted

    def _checked_config(self, accepted: Mapping[str, Any]) -> TrackerConfig | None:
        """Return the configuration that would result, None if nothing of it is in the batch.

        :raises ValueError: if a value is not allowed.
        """
        if not any(name.startswith(TRACKER_PREFIX) for name in accepted):
            return None
        return self.tracker_config(accepted)

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            try:
                listener(change)
            except Exception as error:
                self._node.get_logger().error(f"a change of parameters was not followed:\n{traceback_text(error)}")


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of ``values`` that are the tracker's, by the name of the configuration's field."""
    start = len(TRACKER_PREFIX)
    return {name[start:]: value for name, value in values.items() if name.startswith(TRACKER_PREFIX)}


def _ros_value(value: Any) -> Any:
    """Return a value as rclpy takes it."""
    return list(value) if isinstance(value, tuple) else value


def _descriptor(row: Parameter) -> ParameterDescriptor:
    """Return the descriptor of a row.

    Floats take whole numbers too, and arrays may be empty, which rclpy takes for arrays of bytes: their types are
    checked by `Parameter` alone.
    """
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    descriptor = ParameterDescriptor(description=row.text, read_only=row.read_only)
    descriptor.dynamic_typing = row.kind in (float, tuple)
    if row.range is not None and all(math.isfinite(limit) for limit in row.range):
        low, high = row.range
        if row.kind is float:
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        elif row.kind is int:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    constraints = [f"one of {', '.join(map(repr, row.choices))}"] if row.choices else []
    constraints += [range_text(row.range)] if row.range else []
    constraints += ["any time"] if row.live else [] if row.read_only else ["while the node is unconfigured"]
    descriptor.additional_constraints = "; ".join(constraints)
    return descriptor


class Settings(Protocol):
    """Values of parameters by name, as they are at this moment."""

    def __getitem__(self, name: str) -> Any:
        """Return the value of a parameter."""
        ...
