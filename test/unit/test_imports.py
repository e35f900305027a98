# SPDX-License-Identifier: Apache-2.0
"""The folder plan of CONTRIBUTING.md: which folder may import which, and no import circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "dimp_ros"

EVERYWHERE = "files"
ALLOWED: dict[str, set[str]] = {
    "files": set(),
    "geometry": set(),
    "images": {"geometry"},
    "model": set(),
    "datasets": {"geometry", "images"},
    "synthetic": {"geometry", "images", "datasets"},
    "tracker": {"geometry", "images", "model"},
    "training": {"geometry", "images", "model", "datasets", "synthetic"},
    "evaluation": {"geometry", "images", "model", "datasets", "synthetic", "tracker"},
    "ros_utils": {"geometry", "images", "tracker"},
    "node": {"geometry", "images", "tracker", "ros_utils"},
    "apps/recording": {"geometry", "images", "tracker"},
    "apps/bags": {"geometry", "images", "tracker", "apps/recording"},
    "apps/track": {"geometry", "images", "tracker", "apps/bags", "apps/recording"},
    "apps/steering": {"geometry", "images", "tracker", "ros_utils"},
    "apps/console": {"geometry", "images", "tracker", "ros_utils"},
    "apps/simulator": {"geometry", "images", "tracker", "ros_utils", "apps/recording", "apps/mavlink"},
    "apps/mavlink": {"geometry", "images", "tracker", "ros_utils"},
    "apps/export": {"model", "tracker"},
    "apps/demo": {"geometry", "images", "tracker", "ros_utils", "apps/recording"},
}
"""Folder -> folders of the package that it may import. All may import `EVERYWHERE`. msg and srv are generated."""

WITHOUT_ROS = ("files", "geometry", "images", "model", "tracker", "datasets", "synthetic", "training", "evaluation")
ROS_MODULES = ("rclpy", "std_msgs", "sensor_msgs", "geometry_msgs", "vision_msgs", "builtin_interfaces", "launch")


def folder_of(parts: tuple[str, ...]) -> str:
    """Return the folder of ALLOWED that a module, given by its path below the package, belongs to."""
    return "/".join(parts[:2]) if parts[0] == "apps" and len(parts) > 1 else parts[0]


def is_module(parts: tuple[str, ...]) -> bool:
    path = PACKAGE.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports_of(path: Path, *, types: bool = True) -> Iterator[str]:
    """Yield the names of modules that a file imports anywhere; ``types``: those for type checkers, too."""
    stack: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while stack:
        node = stack.pop()
        if not types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            stack.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                parts = (*node.module.split(".")[1:], alias.name)
                submodule = node.module.split(".")[0] == "dimp_ros" and is_module(parts)
                yield f"{node.module}.{alias.name}" if submodule else node.module
        stack.extend(ast.iter_child_nodes(node))


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent not in (PACKAGE, PACKAGE / "apps"))


def test_every_folder_imports_only_what_it_may() -> None:
    wrong = []
    for path in MODULES:
        folder = folder_of(path.relative_to(PACKAGE).parts)
        for name in imports_of(path):
            parts = tuple(name.split(".")[1:])
            if name.split(".")[0] != "dimp_ros" or not parts or parts[0] in ("msg", "srv"):
                continue
            if folder_of(parts) not in {folder, EVERYWHERE, *ALLOWED[folder]}:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_allowed_imports_form_no_circle() -> None:
    TopologicalSorter(ALLOWED).prepare()


def test_modules_form_no_import_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(("dimp_ros", *(parts[:-1] if parts[-1] == "__init__" else parts)))
        graph[name] = {other for other in imports_of(path, types=False) if other.startswith("dimp_ros.")} - {name}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("folder", WITHOUT_ROS)
def test_folder_without_ros_imports_no_ros_at_run_time(folder: str) -> None:
    for path in (PACKAGE / folder).rglob("*.py"):
        found = {name.split(".")[0] for name in imports_of(path, types=False)} & set(ROS_MODULES)
        generated = [
            name for name in imports_of(path, types=False) if name.startswith(("dimp_ros.msg", "dimp_ros.srv"))
        ]
        assert not found and not generated, f"{path.relative_to(ROOT)} imports {found or generated}"


def test_tools_import_nothing_from_the_tests() -> None:
    for path in (ROOT / "tools").rglob("*.py"):
        assert not [name for name in imports_of(path) if name.split(".")[0] in ("helpers", "test", "conftest")], path


def test_public_class_names_are_unique() -> None:
    places: dict[str, list[str]] = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *(ROOT / "tools").rglob("*.py")]):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
