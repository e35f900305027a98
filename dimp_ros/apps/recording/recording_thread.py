# SPDX-License-Identifier: Apache-2.0
"""What the thread of a recording does around its work: errors in one line, and the video of one that ends early."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable


class RecordingFailed(RuntimeError):
    """The recording cannot go on; the text says why."""


def run_recording(name: str, record: Callable[[], int], keep_video: Callable[[], int], closing: threading.Event) -> int:
    """Record, and return the exit status: that of ``record``, or 2 where it ended early.

    :param name: of the program, for what is printed. :param keep_video: finishes the video of one that ended early, and
        returns how many of its last images are left out.
    :param closing: set while the node is closed: errors are of that then, and not told.
    """
    code = 2
    try:
        code = record()
    except RecordingFailed as error:
        print(f"[{name}] {error}", file=sys.stderr)
    except Exception as error:
        if not closing.is_set():
            print(f"[{name}] {type(error).__name__}: {error}", file=sys.stderr)
    if code == 2:
        try:
            if missing := keep_video():
                print(f"[{name}] the video lacks the last {missing} images", file=sys.stderr)
        except Exception as error:
            print(f"[{name}] there is no video: {type(error).__name__}: {error}", file=sys.stderr)
    return code
