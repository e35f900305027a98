# SPDX-License-Identifier: Apache-2.0
"""Write the parameter tables in docs/. Run it after changing a parameter."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BEGIN = "<!-- parameters: made by tools/update_docs.py -->\n"
BEGIN_SETTINGS = "<!-- settings: made by tools/update_docs.py -->\n"
END = "<!-- end -->\n"


def updated(text: str, parameters: Sequence[Any] | None = None) -> str:
    """Return ``text`` with its tables generated from the code; ``parameters`` as for `parameter_table`.

    :raises ValueError: if ``text`` lacks the marker lines.
    """
    from dimp_ros.ros_utils.parameter_table import parameter_table, settings_table

    text = _replaced(text, BEGIN, parameter_table(parameters))
    return _replaced(text, BEGIN_SETTINGS, settings_table()) if parameters is None else text


def _replaced(text: str, begin: str, table: str) -> str:
    before, _, rest = text.partition(begin)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the file lacks the lines {begin!r} and {END!r}")
    return f"{before}{begin}\n{table}\n{END}{after}"


def tables() -> dict[Path, Sequence[Any] | None]:
    """Return each file with a table and its parameters; None stands for those of the tracker node."""
    from dimp_ros.apps.mavlink.settings import MavlinkSettings
    from dimp_ros.apps.steering.follower_control import FollowConfig
    from dimp_ros.apps.steering.servo_control import ServoConfig
    from dimp_ros.ros_utils.config_dataclass import parameter_rows

    return {
        DOCS / "parameters.md": None,
        DOCS / "follower.md": parameter_rows(FollowConfig),
        DOCS / "servo.md": parameter_rows(ServoConfig),
        DOCS / "mavlink.md": parameter_rows(MavlinkSettings),
    }


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for path, parameters in tables().items():
        path.write_text(updated(path.read_text(encoding="utf-8"), parameters), encoding="utf-8")
