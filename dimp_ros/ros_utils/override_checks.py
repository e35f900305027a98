# SPDX-License-Identifier: Apache-2.0
"""Parameters that were given at the start and have no effect: misspelt ones, and files for a node of another name."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dimp_ros.files.inputs import require_regular_file
from dimp_ros.files.yaml_file import MAX_BYTES, check_keys, compose_yaml, read_yaml
from dimp_ros.ros_utils.parameter_table import TRACKER_PREFIX
from dimp_ros.tracker.config import TrackerConfig

if TYPE_CHECKING:
    from rclpy.node import Node

SETTINGS = {field.name for field in fields(TrackerConfig)}
QOS_PREFIX = "qos_overrides."
LONGEST_LIST = 10_000
"""Values in a list of a parameter file: ROS's parser takes time with the square of it, here a quarter of a second."""


def warn_of_overrides(node: Node, arguments: Sequence[str] | None = None) -> None:
    """Log parameters and parameter files that were given at the start and have no effect.

    To be called when the node has declared its parameters.

    :param arguments: the program's; None for those of the command line.
    """
    logger = node.get_logger()
    for text in unused_files(arguments or sys.argv[1:], node.get_fully_qualified_name()):
        logger.warning(text)
    given = [name for name in _overrides(node) if not name.startswith(QOS_PREFIX) and not node.has_parameter(name)]
    known = [name for name in _declared(node) if not name.startswith(QOS_PREFIX)]
    for name in given:
        near = nearest(name, known)
        if name.removeprefix(TRACKER_PREFIX) in SETTINGS and name.startswith(TRACKER_PREFIX):
            logger.warning(f"parameter {name} is a setting of the file of tracker_config and has no effect here")
        elif near:
            logger.warning(f"parameter {name} does not exist and has no effect: did you mean {near}?")
        else:
            logger.info(f"parameter {name} does not exist and has no effect")


def forget_override(node: Node, name: str) -> None:
    """Have a parameter that was taken and undeclared not reported as one that does not exist."""
    getattr(node, "_parameter_overrides", {}).pop(name, None)


def unused_qos_overrides(node: Node) -> list[str]:
    """Return what to log of QoS overrides that have no effect; to be called when all topics are open."""
    known = [name for name in _declared(node) if name.startswith(QOS_PREFIX)]
    return [
        f"parameter {name} has no effect: {'did you mean ' + near + '?' if near else 'there are ' + ', '.join(known)}"
        for name in _overrides(node)
        if name.startswith(QOS_PREFIX) and name not in known
        for near in [nearest(name, known)]
    ]


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the most similar of ``known`` names; empty if none is similar."""
    lower = {one.lower(): one for one in known}
    found = get_close_matches(name.lower(), lower, 1, 0.75)
    return lower[found[0]] if found else ""


def unused_files(arguments: Sequence[str], node_name: str) -> list[str]:
    """Return what to log of parameter files that hold nothing for a node.

    :param arguments: of the program; its ``--params-file`` count. :param node_name: with namespace: ``/robot/node``.
    """
    found = []
    for path in _files(arguments):
        names = list(_node_names(path))
        if names and not any(_matches(name, node_name) for name in names):
            found.append(
                f"parameter file {path} has no effect: it is for {', '.join(names)}, this node is {node_name}; use "
                f"/**/{node_name.rpartition('/')[2]} for any namespace"
            )
    return found


def check_files(arguments: Sequence[str] | None = None) -> None:
    """Check the parameter files before ROS's parser reads them: it may take minutes, in which no signal is handled.

    A file that is missing or cannot be read is left to ROS.

    :param arguments: as for `warn_of_overrides`.
    :raises ValueError: if one is no regular file, nested too deeply, has a parameter twice, a merge key or too long a
        list, or they have too many bytes together.
    """
    given = list(_files(arguments or sys.argv[1:]))
    for path in filter(os.path.exists, given):  # ROS would wait for a pipe's writer, or read a device without end
        try:
            require_regular_file(Path(path))
        except ValueError as error:
            raise ValueError(f"parameter file {error}") from error
    paths = [path for path in given if os.path.isfile(path) and os.access(path, os.R_OK)]
    size = sum(Path(path).stat().st_size for path in paths)
    if size > MAX_BYTES:
        raise ValueError(f"the parameter files {', '.join(paths)} have {size} bytes, and may have {MAX_BYTES}")
    for path in paths:
        try:
            root = compose_yaml(path)
            check_keys(root, parts=True)
        except ValueError as error:
            raise ValueError(f"parameter file {path}: {error}") from error
        if _has_merge_key(root):
            raise ValueError(f"parameter file {path}: ROS takes a merge key (<<) for a name: write its values out")
        if _longest_list(root) > LONGEST_LIST:
            raise ValueError(f"parameter file {path}: a list in it has more than {LONGEST_LIST} values")


def _has_merge_key(node: yaml.Node | None) -> bool:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return any(key.tag == "tag:yaml.org,2002:merge" or _has_merge_key(value) for key, value in pairs)


def _longest_list(node: yaml.Node | None) -> int:
    if isinstance(node, yaml.MappingNode):
        return max((_longest_list(one) for pair in node.value for one in pair), default=0)
    if isinstance(node, yaml.SequenceNode):
        return max(len(node.value), *map(_longest_list, node.value), 0)
    return 0


def _files(arguments: Sequence[str]) -> Iterator[str]:
    for option, value in pairwise(arguments):
        if option == "--params-file":
            yield value


def _node_names(path: str) -> Iterator[str]:
    """Yield the names of nodes in a parameter file.

    Nothing of one that cannot be read, which rcl reports itself, nor of a large file.
    """
    try:
        yield from _keys(read_yaml(path), "")
    except (OSError, ValueError):
        return


def _keys(content: Any, prefix: str) -> Iterator[str]:
    if not isinstance(content, Mapping):
        return
    for key, value in content.items():
        name = f"{prefix}/{str(key).strip('/')}"
        if isinstance(value, Mapping) and "ros__parameters" in value:
            yield name
        else:
            yield from _keys(value, name)


def _matches(pattern: str, name: str) -> bool:
    """Return whether a name is meant by a pattern of a parameter file: ``*`` is one part of a name, ``**`` any."""
    wildcards = {"/**": "(/[^/]+)*", "/*": "/[^/]+"}
    expression = "".join(wildcards.get(part, re.escape(part)) for part in re.findall(r"/[^/]*", pattern))
    return re.fullmatch(expression, name) is not None


def _overrides(node: Node) -> list[str]:
    """Return the names of the parameters that were given; rclpy has no public way to ask for them."""
    return list(getattr(node, "_parameter_overrides", {}))


def _declared(node: Node) -> list[str]:
    return list(node.get_parameters_by_prefix(""))
