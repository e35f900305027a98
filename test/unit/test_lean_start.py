# SPDX-License-Identifier: Apache-2.0
"""With OpenVINO, tracking needs no torch and little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
import numpy as np
from dimp_ros.tracker import DimpTracker

image = np.full((240, 320, 3), 90, np.uint8)
image[:, ::16] = 140
target = np.random.default_rng(1).integers(0, 255, (5, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
tracker = DimpTracker("dimp_lite", "cpu", backend="openvino", precision="auto")
tracker.warm_up()
for n in range(22):
    frame = image.copy()
    frame[80 + n : 120 + n, 100 + 2 * n : 132 + 2 * n] = target
    result = tracker.update(frame) if n else tracker.init(frame, (100, 80, 32, 40))
resident = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS:")) // 1024
print(json.dumps({"torch": "torch" in sys.modules, "resident": resident, "box": result.last_box}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_start_keeps_torch_in_memory_whatever_graphs_are_there(tmp_path):
    pytest.importorskip("openvino")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    seen = []
    for start in ("nothing is compiled", "all is compiled", "one graph is missing"):
        if start == "one graph is missing":
            min(tmp_path.rglob("*.blob"), key=lambda file: file.stat().st_size).unlink()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        seen.append(json.loads(done.stdout))
    assert not any(one["torch"] for one in seen)
    assert max(one["resident"] for one in seen) < 450
    assert seen[0]["box"] == pytest.approx(seen[1]["box"], abs=0.1)
    assert seen[2]["box"] == pytest.approx(seen[1]["box"], abs=0.1)
    assert seen[1]["box"] == pytest.approx((142, 101, 32, 40), abs=4)
