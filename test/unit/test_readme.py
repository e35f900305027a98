# SPDX-License-Identifier: Apache-2.0
"""README, CONTRIBUTING and docs/ agree with the code: links, commands and the generated table are current."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from helpers.launch_files import launch_file as read_launch_file

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), ROOT / "dimp_ros" / "weights" / "dimp_lite.md"]
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", read(path), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_parameter_table_is_generated_from_the_code() -> None:
    spec = importlib.util.spec_from_file_location("update_docs", ROOT / "tools" / "update_docs.py")
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = read(DOCS / "parameters.md")
    assert tool.updated(text) == text, "run: tools/env python tools/update_docs.py"


def test_readme_is_at_most_150_lines_and_1500_words() -> None:
    text = read(README)
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1500


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_has_a_target(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", without_code(read(page))):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_index_links_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)", read(DOCS / "README.md")))
    assert {path.name for path in DOCS.glob("*.md")} - {"README.md"} <= linked


def test_every_image_is_shown_on_a_page() -> None:
    shown = {Path(name).name for page in PAGES for name in re.findall(r"\]\(([^)]*images/[^)]+)\)", read(page))}
    assert {path.name for path in (DOCS / "images").iterdir()} == shown


def test_images_stay_below_three_megabytes() -> None:
    assert all(path.stat().st_size < 3_000_000 for path in (DOCS / "images").iterdir())


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_named_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^    )make ([a-z][a-z-]*)", read(page), re.MULTILINE))
    assert named <= targets
    assert page != README or {"demo", "test"} <= named


@pytest.mark.parametrize("launch_file", sorted(path.name for path in (ROOT / "launch").glob("*.launch.py")))
def test_every_named_launch_argument_exists(launch_file: str) -> None:
    used = [
        line for page in PAGES for line in re.findall(rf"{re.escape(launch_file)}(?:`, [^`]*`| )([^`\n]*)", read(page))
    ]
    arguments = set(re.findall(r"\b([a-z_]+):=", " ".join(used)))
    declared = {argument.name for argument in read_launch_file(launch_file).ARGUMENTS}
    assert arguments <= declared


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_named_module_and_tool_exists(page: Path) -> None:
    text = read(page)
    modules = re.findall(r"python -m (dimp_ros[\w.]+)", text) + re.findall(r"from (dimp_ros[\w.]*) import", text)
    missing = [name for name in modules if not module_exists(name)]
    tools = re.findall(r"\b((?:tools|test|config|scripts|launch)/[\w/]+\.(?:py|yaml|xml|ini))\b", text)
    assert not missing and [name for name in tools if not (ROOT / name).exists()] == []


PROGRAMS = {
    "dimp-track": ["dimp_ros/apps/track/cli.py"],
    "dimp-eval": ["dimp_ros/evaluation/cli.py"],
    "dimp-train": ["dimp_ros/training/cli.py"],
    "dimp-convert": ["dimp_ros/model/checkpoints/convert_cli.py"],
    "dimp-export": ["dimp_ros/apps/export/cli.py"],
    "make bench": [
        "tools/run_benchmark.py",
        *(f"tools/benchmark/{n}.py" for n in ("cli", "ros_benchmark", "transport")),
    ],
    "make fuzz": ["tools/run_fuzz.py"],
    "make soak": ["tools/run_soak.py"],
}
"""Commands, and the files that know their options."""


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_named_option_exists(program: str) -> None:
    source = "".join(read(ROOT / path) for path in PROGRAMS[program])
    commands = [
        command.partition("#")[0]
        for page in PAGES
        for command in re.findall(rf"^    {program} (.*(?:\\\n.*)*)", read(page), re.MULTILINE)
    ]
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", " ".join(commands)))
    assert commands and {name for name in named if f'"{name}"' not in source} == set()


def module_exists(name: str) -> bool:
    if name in ("dimp_ros.msg", "dimp_ros.srv"):
        return True
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()
