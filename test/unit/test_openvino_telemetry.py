# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's import neither writes to the home folder nor asks for a network address."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import socket, sys
def refused(*arguments, **options):
    print("asked for", arguments[0], flush=True)
    raise OSError("no network in this test")
socket.getaddrinfo = socket.create_connection = refused
import {module}
import openvino, openvino.tools.ovc
openvino.Core()
print("imported")
"""


@pytest.mark.parametrize(
    "module",
    [
        "dimp_ros.model.inference.graph_conversion",
        "dimp_ros.model.inference.openvino_graphs",
        "dimp_ros.apps.export.writer",
    ],
)
def test_importing_openvino_reports_nothing(module, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "XDG_CACHE_HOME")}
    environment |= {"HOME": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM.format(module=module)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "imported\n"
    assert not list(tmp_path.rglob("*"))
