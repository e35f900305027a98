# SPDX-License-Identifier: Apache-2.0
"""The rule for consumers printed in docs/reliability.md, as code."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dimp_ros.tracker.result import TargetState

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")


def rule() -> Any:
    """Return the class of the page's example; it is run as it is printed."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"TargetState": TargetState}
    exec(code.replace("from dimp_ros.msg import TargetState\n", ""), names)  # its numbers are those of the message
    return SimpleNamespace(**{name: value for name, value in names.items() if not name.startswith("_")})
