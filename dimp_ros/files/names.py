# SPDX-License-Identifier: Apache-2.0
"""Names of files that come from data: of a sequence, a track or a tracker."""

from __future__ import annotations

import hashlib
import re

_LONGEST = 150


def file_name(text: str) -> str:
    """Return a text as the name of one file or folder, which leads nowhere else.

    Letters and digits of ASCII and some signs are kept. A name that changes ends in a hash, so that two that differ
    stay apart: `dimp:/a/b` and `dimp:/a_b`.
    """
    name = re.sub(r"^\.|[^A-Za-z0-9._@=+# -]+", "_", text)[:_LONGEST]
    if name == text and name:
        return name
    return f"{name}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"
