# SPDX-License-Identifier: Apache-2.0
"""Texts of bounded length: what others have sent may be in them."""

from __future__ import annotations

import traceback

MAX_TEXT = 1000
"""Longest text of an error or an answer that leaves the process, characters."""
MAX_LINES = 60
"""Longest traceback in the log, lines."""


def shortened(text: str, limit: int = MAX_TEXT) -> str:
    """Return ``text`` with at most ``limit`` characters: of a longer one its beginning and its end."""
    if len(text) <= limit:
        return text
    gap = f" ... [{len(text)} characters] ... "
    kept = limit - len(gap)
    return text[: kept - kept // 3] + gap + text[len(text) - kept // 3 :]


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an error, its lines and their number bounded."""
    lines = [line for part in traceback.format_exception(error) for line in part.rstrip("\n").split("\n")]
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES // 2], f"  ... [{len(lines)} lines] ...", *lines[-MAX_LINES // 2 :]]
    return "\n".join(shortened(line) for line in lines)
