# SPDX-License-Identifier: Apache-2.0
"""Requests to a node's parameter services, as its executor hands them on, and values given at the start."""

from __future__ import annotations

import array
import math
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import rclpy
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from rclpy.serialization import serialize_message

from dimp_ros.ros_utils.callbacks import guard_services
from dimp_ros.ros_utils.parameter_table import NODE_PARAMETERS, Parameter, tracker_parameters
from dimp_ros.ros_utils.parameters import ParameterHandler
from fuzz.draw import odd_float, odd_int, odd_text
from fuzz.run import Attempt

ROWS = {row.name: row for row in NODE_PARAMETERS + tracker_parameters()}
LONGEST_REASON = 100_000
"""rclpy repeats a name that is not declared, however long it is."""

_TYPES = ("bool", "integer", "double", "string", "byte_array", "bool_array", "integer_array", "double_array")
_TYPE_NAMES = (*_TYPES, "string_array")


@contextmanager
def parameters() -> Iterator[Attempt]:
    """Send batches of parameters, and queries about them, to a node."""
    rclpy.init()
    try:
        node = Node("fuzzed")
        handler = ParameterHandler(node)
        guard_services(node)
        yield lambda draw: _at_start(draw) if draw.random() < 0.02 else _at_run_time(draw, node, handler)
    finally:
        rclpy.try_shutdown()


def _at_start(draw: Random) -> bool:
    """Start a node with unexpected values in its parameter file; return whether it accepts them."""
    given = {message.name: message for message in _batch(draw) if message.name in ROWS}  # rclpy answers for its own
    overrides = []
    for message in given.values():
        if message.value.type in range(1, 1 + len(_TYPE_NAMES)):  # a file has no other
            value = RosParameter.from_parameter_msg(message).value
            overrides.append(RosParameter(message.name, value=list(value) if isinstance(value, array.array) else value))
    node = Node("started", parameter_overrides=overrides)
    try:
        handler = ParameterHandler(node)
        _check_values(node, handler)
        try:
            handler.require_valid()
            handler.tracker_config()
        except ValueError as error:
            assert handler.problems and 10 < len(str(error)) < LONGEST_REASON
        return not handler.problems
    finally:
        node.destroy_node()


def _at_run_time(draw: Random, node: Node, handler: ParameterHandler) -> bool:
    """Set or query parameters; return whether all were set."""
    _reset(node, handler)
    handler.frozen = draw.random() < 0.4
    before = {name: handler[name] for name in ROWS}
    try:
        if draw.random() < 0.1:
            _ask(draw, node)
            return True
        batch = _batch(draw)
        atomically = draw.random() < 0.7
        kind = SetParametersAtomically if atomically else SetParameters
        response = _call(node, kind, kind.Request(parameters=batch))
        results = [response.result] if atomically else response.results
        for result in results:
            assert result.successful or 5 < len(result.reason) < LONGEST_REASON, f"no reason: {result}"
        taken = bool(results) and all(result.successful for result in results)
        after = {name: handler[name] for name in ROWS}
        if atomically and not taken:
            assert repr(after) == repr(before), "a refused batch has changed something"
        _check_values(node, handler)
        return taken
    finally:
        handler.frozen = False


def _call(node: Node, kind: Any, request: Any) -> Any:
    """Call the node's service as the executor does, with a deserialised request, and return its answer."""
    serialize_message(request)
    (service,) = (one for one in node.services if one.srv_type is kind)
    response = service.callback(request, kind.Response())
    serialize_message(response)
    return response


def _ask(draw: Random, node: Node) -> None:
    names = [_name(draw) for _ in range(draw.randrange(5))]
    kind = draw.choice((DescribeParameters, GetParameters, GetParameterTypes, ListParameters))
    if kind is ListParameters:
        _call(node, kind, kind.Request(prefixes=names, depth=draw.choice((0, 1, 2, 2**63))))
    else:
        _call(node, kind, kind.Request(names=names))


def _reset(node: Node, handler: ParameterHandler) -> None:
    """Reset everything, so that an input does not depend on those before it."""
    changed = [row for row in ROWS.values() if repr(handler[row.name]) != repr(row.default)]
    values = [list(row.default) if row.kind is tuple else row.default for row in changed]
    batch = [RosParameter(row.name, value=value) for row, value in zip(changed, values, strict=True)]
    if batch:
        result = node.set_parameters_atomically(batch)
        assert result.successful, f"defaults are refused: {result.reason}"


def _check_values(node: Node, handler: ParameterHandler) -> None:
    """Assert that all values are allowed and that the node reports the same."""
    for name, row in ROWS.items():
        value = handler[name]
        assert row.checked(value) == value and type(value) is row.kind, f"{name} is {value!r}"
        assert all(math.isfinite(number) for number in (value,) if isinstance(number, float))
        told = node.get_parameter(name).value
        if row.kind is tuple:
            assert list(told) == list(value), f"{name} is {value!r}, but the node says {told!r}"
        else:
            assert told == value, f"{name} is {value!r}, but the node says {told!r}"
    if not handler.problems:
        handler.tracker_config()


def _name(draw: Random) -> str:
    kind = draw.randrange(12)
    if kind < 10:
        return draw.choice(list(ROWS))
    others = ("use_sim_time", "start_type_description_service", "qos_overrides./image.subscription.depth", "tracker.")
    return draw.choice(others) if kind == 10 else odd_text(draw)


def _batch(draw: Random) -> list[ParameterMessage]:
    """Return a batch with at most one wrong value, mostly."""
    names = [_name(draw) for _ in range(draw.choice((1, 1, 2, 3, 8)))]
    wrong = draw.randrange(2 * len(names))
    return [
        ParameterMessage(name=name, value=_odd_value(draw) if place == wrong else _value(draw, ROWS.get(name)))
        for place, name in enumerate(names)
    ]


def _message(kind: str, value: Any) -> ParameterValue:
    return ParameterValue(type=1 + _TYPE_NAMES.index(kind), **{f"{kind}_value": value})


def _value(draw: Random, row: Parameter | None) -> ParameterValue:
    """Return a value that is allowed for the parameter alone, sometimes a limit of its range."""
    if row is None:
        return _message("bool", False)
    if row.kind is bool:
        return _message("bool", draw.random() < 0.5)
    if row.kind is str:
        return _message("string", draw.choice(row.choices or (row.default, "other", odd_text(draw))))
    if row.kind is tuple:
        if not row.default or isinstance(row.default[0], str):
            return _message("string_array", [odd_text(draw) for _ in range(draw.randrange(4))])
        count = draw.choice((len(row.default), 0, 1, 2, 8))
        return _message("double_array", [_number(draw, row, row.default[0]) for _ in range(count)])
    number = _number(draw, row, row.default)
    return _message("integer" if row.kind is int else "double", number)


def _number(draw: Random, row: Parameter, default: Any) -> Any:
    low, high = row.range or (-1e6, 1e6)
    high = min(high, draw.choice((1e3, 1e9)))
    number = draw.choice((low, high, default, default, draw.uniform(low, high), draw.uniform(low, high)))
    if isinstance(default, int):
        return min(max(int(number) // 32 * 32 if row.name.endswith("crop_size") else int(number), -(2**62)), 2**62)
    return float(number)


def _odd_value(draw: Random) -> ParameterValue:
    """Return a value of any type, or of a type that does not exist."""
    if draw.random() < 0.1:
        return ParameterValue(type=draw.choice((0, 0, 10, 255)), double_value=odd_float(draw))
    kind = draw.choice(_TYPE_NAMES)
    several = range(draw.choice((0, 1, 3, 300)))
    values: dict[str, Any] = {
        "bool": lambda: draw.random() < 0.5,
        "integer": lambda: odd_int(draw, -(2**63), 2**63 - 1),
        "double": lambda: odd_float(draw),
        "string": lambda: odd_text(draw),
        "byte_array": lambda: [bytes([draw.randrange(256)]) for _ in several],
        "bool_array": lambda: [draw.random() < 0.5 for _ in several],
        "integer_array": lambda: [odd_int(draw, -(2**63), 2**63 - 1) for _ in several],
        "double_array": lambda: [odd_float(draw) for _ in several],
        "string_array": lambda: [odd_text(draw) for _ in several[:20]],
    }
    return _message(kind, values[kind]())
