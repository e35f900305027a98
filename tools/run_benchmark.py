# SPDX-License-Identifier: Apache-2.0
"""Where the time of a frame goes: `make bench`. With `--ros`, what the node adds to the tracker; see --help of both."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run the benchmark of the tracker, or that of the node."""
    if "--transport" in sys.argv[1:]:
        from benchmark.transport import main as bench_transport

        return bench_transport([argument for argument in sys.argv[1:] if argument not in ("--ros", "--transport")])
    if any(argument.partition("=")[0] == "--busy" for argument in sys.argv[1:]):
        from benchmark.busy import main as bench_busy

        return bench_busy([argument for argument in sys.argv[1:] if argument != "--ros"])
    if "--ros" in sys.argv[1:]:
        from benchmark.ros_benchmark import main as bench_node

        return bench_node([argument for argument in sys.argv[1:] if argument != "--ros"])
    from benchmark.cli import main as bench_tracker

    return bench_tracker()


if __name__ == "__main__":
    sys.exit(main())
