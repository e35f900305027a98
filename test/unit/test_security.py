# SPDX-License-Identifier: Apache-2.0
"""The sources contain none of the calls that docs/security.md excludes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[2] / "dimp_ros").rglob("*.py"))
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "tempfile.mktemp"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "marshal", "shelve", "requests", "urllib.request", "http.client", "ftplib"}
EXCEPTIONS = {"torch_file_reader.py": ["pickle"]}
"""The unpickler with an allow-list, in a process with limits: see test_torch_file.py."""


def complaints(text: str) -> list[str]:
    """Return what a source does that none may do."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN_MODULES:
            # The name of an error, which torch.load raises, reads nothing.
            found += [str(node.module) for alias in node.names if alias.name != "UnpicklingError"]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in FORBIDDEN_CALLS or options.get("shell") == "True":
                found.append(ast.unparse(node))
            if name == "torch.load" and options.get("weights_only") != "True":
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(path.parents[2])))
def test_no_source_executes_input_or_uses_the_network(path):
    assert complaints(path.read_text(encoding="utf-8")) == EXCEPTIONS.get(path.name, [])


@pytest.mark.parametrize(
    "text",
    [
        "eval('1')",
        "import pickle",
        "from pickle import UnpicklingError, loads",
        "subprocess.run('ls', shell=True)",
        "torch.load(p)",
        "from urllib.request import urlopen",
    ],
)
def test_what_is_looked_for_is_found(text):
    assert complaints(text)
