# SPDX-License-Identifier: Apache-2.0
"""Write the generated part of README.md: the table of the node's parameters. Run it after changing a parameter."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BEGIN = "<!-- parameters: made by tools/update_readme.py -->\n"
END = "<!-- end -->\n"


def updated(text: str) -> str:
    """Return the README's text with the table as the code has it now."""
    from dimp_ros.node.parameter_table import parameter_table

    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README.md lacks the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{parameter_table()}\n{END}{after}"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
