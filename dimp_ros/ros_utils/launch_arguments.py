# SPDX-License-Identifier: Apache-2.0
"""Arguments of the launch files: declared as a table, all checked before the first program starts.

Importing this module needs neither launch nor rclpy; `launch_description` turns the result into launch actions.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import yaml

from dimp_ros.files.yaml_file import compose_yaml
from dimp_ros.ros_utils.parameter_table import Parameter, range_text
from dimp_ros.ros_utils.secrets import read_secret
from dimp_ros.ros_utils.text import shortened

Reader: TypeAlias = Callable[[str], Any]
"""Turns the text of an argument into its value, or raises ValueError saying what is allowed."""

LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
MODELS = ("dimp_lite", "dimp18", "dimp50")
MAX_VALUE_TEXT = 200
"""Longest text of a value, and of what is wrong with it, in an error; characters."""
_TOKEN = r"(?!\d)(?:(?!__)\w|\{(?:ns|namespace)\})+"  # noqa: S105  a part of a topic's name, not a secret


class ArgumentError(ValueError):
    """Arguments that cannot be used; the text is one line with each argument, its value and what is allowed."""


class Argument(NamedTuple):
    """An argument of a launch file.

    :param read: turns its text into its value. :param file: name of the argument with the parameter file that decides
        where this one is left empty, so that its value is None; without it, empty is a value like any other.
    """

    name: str
    default: str
    text: str
    read: Reader
    file: str = ""

    @property
    def description(self) -> str:
        """Description for ``ros2 launch --show-args``."""
        return f"{self.text}; empty: as in {self.file}" if self.file else self.text


class Program(NamedTuple):
    """An executable of this package, and how it is started.

    :param files: parameter files. :param parameters: those that override the files.
    :param ends_launch: ``failure``: the launch ends with an error when the program does; ``always``: it also ends when
        the program has succeeded.
    """

    executable: str
    name: str
    files: tuple[str, ...]
    parameters: dict[str, Any]
    remappings: dict[str, str]
    namespace: str = ""
    log_level: str = "info"
    ends_launch: str = ""


def read_arguments(arguments: Iterable[Argument], given: Mapping[str, str]) -> dict[str, Any]:
    """Return the value of every argument; those left to a parameter file are None.

    :param given: texts by name; what is missing has its default, what is not in ``arguments`` is ignored.
    :raises ArgumentError: with all arguments that are wrong.
    """
    values, errors = {}, []
    for argument in arguments:
        text = given.get(argument.name, argument.default)
        try:
            values[argument.name] = None if argument.file and not text else argument.read(text)
        except (ValueError, OSError, RuntimeError) as error:  # pathlib raises all three for odd paths
            errors.append(f"argument {argument.name}:={one_line(text)}: {one_line(str(error), 2 * MAX_VALUE_TEXT)}")
    if errors:
        raise ArgumentError(shortened("; ".join(errors)))
    return values


def misspelt(arguments: Iterable[Argument], given: Iterable[str]) -> list[str]:
    """Return a line about each name that is no argument here, but nearly one."""
    names = [argument.name for argument in arguments]
    near = {name: difflib.get_close_matches(name, names, 1, 0.75) for name in given if name not in names}
    return [f"argument {name} does not exist; did you mean {match[0]}?" for name, match in near.items() if match]


def overrides(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return those of the values that are to override the parameter file."""
    return {name: values[name] for name in names if values[name] is not None}


def node_program(
    values: Mapping[str, Any], executable: str, name: str, parameters: Iterable[str], remappings: dict[str, str]
) -> Program:
    """Return a node whose parameter file is the argument ``params_file``.

    :param values: of the launch file's arguments, `common_arguments` among them. :param parameters: names of those
        that override the file.
    """
    return Program(
        executable=executable,
        name=name,
        files=(values["params_file"],),
        parameters=overrides(values, *parameters, "use_sim_time"),
        remappings=remappings,
        namespace=values["namespace"],
        log_level=values["log_level"],
    )


def beside(image: str, topic: str) -> str:
    """Return the name of a topic beside the image topic, where camera drivers publish it."""
    return f"{image.rpartition('/')[0]}/{topic}" if "/" in image else topic


# Readers


def boolean(text: str) -> bool:
    """Read true or false in any case: Python and Nav2 write True."""
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


def choice(*choices: str) -> Reader:
    """Return a reader of one of several words, in any case."""

    def read(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text.lower()

    return read


def or_empty(read: Reader) -> Reader:
    """Return a reader that also takes an empty text, as it is."""
    return lambda text: read(text) if text else text


def device(text: str) -> str:
    """Read the name of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", text, re.ASCII):
        raise ValueError("must be auto, cpu, cuda or cuda:N")
    return text


def model(text: str) -> str:
    """Read the name of a model, or the path of a file with weights."""
    path = Path(text).expanduser()
    if text in MODELS:
        return text
    if not path.is_file():
        raise ValueError(f"must be {', '.join(MODELS)} or the path of a file with weights, and there is no such file")
    return str(path)


def topic(text: str) -> str:
    """Read the name of a topic. One below a node's own name would be another topic for each node that gets it."""
    if not re.fullmatch(rf"/?{_TOKEN}(/{_TOKEN})*", text, re.ASCII):
        raise ValueError(
            "must be a topic name such as /camera/image_raw: letters, digits and single _, parts separated by /, no "
            "part beginning with a digit; no ~ and no {node}, which are another topic for each node"
        )
    return text


def namespace(text: str) -> str:
    """Read a namespace, which may be empty."""
    if text and not re.fullmatch(rf"/|/?{_TOKEN}(/{_TOKEN})*", text, re.ASCII):
        raise ValueError("must be empty or a namespace such as robot or /fleet/robot")
    return "" if text == "/" else text


def existing_file(text: str) -> str:
    """Read the path of a file that can be read."""
    path = Path(text).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no such file{_from_here(path)}")
    if not os.access(path, os.R_OK):
        raise ValueError("the file cannot be read by this user; change its mode")
    return str(path)


def secret_file(name: str) -> Reader:
    """Return a reader of the path of a file with a secret that nobody else may read. :param name: of the argument."""

    def read(text: str) -> str:
        path = existing_file(text)
        read_secret(name, Path(path))
        return path

    return read


def parameter_file(text: str) -> str:
    """Read the path of a ROS parameter file, which must be YAML and hold parameters.

    As in ROS's own parser there are no aliases: they would make a small file a large or an endless tree.
    """
    path = existing_file(text)
    if not _holds_parameters(compose_yaml(path)):
        raise ValueError(
            "the file holds no parameters; they stand below NODE_NAME: or /**:, and there ros__parameters:"
        )
    return path


def output_folder(text: str) -> str:
    """Read the path of a folder that exists or can be made."""
    path = Path(text).expanduser()
    existing = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not existing.is_dir():
        raise ValueError(f"must be a folder, and {existing} is a file")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"must be a folder that this user can write to; {existing} is not")
    return str(path)


def box(text: str) -> list[float]:
    """Read a box: x, y of its top-left corner, width and height."""
    allowed = "must be four numbers X,Y,W,H in pixels, W and H above 0"
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(allowed) from None
    if len(numbers) != 4 or not all(abs(number) < 1e6 for number in numbers) or min(numbers[2:]) <= 0:
        raise ValueError(allowed)
    return numbers


def value_of(row: Parameter) -> Reader:
    """Return a reader of values of a ROS parameter, with its type and range."""

    def read(text: str) -> Any:
        if row.kind is bool:
            return boolean(text)
        if row.kind not in (int, float):
            return row.checked(text)
        try:
            number = row.kind(text)
        except ValueError:
            kind = "whole number" if row.kind is int else "number"
            raise ValueError(f"must be a {kind}{' in ' * bool(row.range)}{range_text(row.range)}") from None
        return row.checked(number)

    return read


def for_parameter(rows: Iterable[Parameter], name: str, file: str, text: str = "") -> Argument:
    """Return the argument for the ROS parameter of the same name; empty leaves it to the parameter file.

    :param file: name of the argument with that file. :param text: instead of the parameter's own description.
    """
    row = next(row for row in rows if row.name == name)
    allowed = f" ({', '.join(one for one in row.choices if one)})" if row.choices else ""
    return Argument(name, "", (text or row.text.rstrip(".")) + allowed, value_of(row), file)


def common_arguments(file: str = "params_file") -> tuple[Argument, ...]:
    """Return the arguments that every launch file has."""
    return (
        Argument("namespace", "", "namespace of the nodes and their relative topics", namespace),
        Argument(
            "log_level", "info", f"least severe level that is logged: {', '.join(LOG_LEVELS)}", choice(*LOG_LEVELS)
        ),
        Argument("use_sim_time", "", "whether time comes from the topic /clock", boolean, file),
    )


def _from_here(path: Path) -> str:
    return "" if path.is_absolute() else f" in {Path.cwd()}"


def one_line(text: str, limit: int = MAX_VALUE_TEXT) -> str:
    """Return text without line breaks or other control characters, and of bounded length."""
    return shortened("".join(one if one.isprintable() else repr(one)[1:-1] for one in shortened(text, limit)), limit)


def _holds_parameters(node: yaml.Node | None) -> bool:
    if not isinstance(node, yaml.MappingNode):
        return False
    return any(key.value == "ros__parameters" or _holds_parameters(value) for key, value in node.value)
