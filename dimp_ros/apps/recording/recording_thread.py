# SPDX-License-Identifier: Apache-2.0
"""What the thread of a recording does around its work: errors in one line, and the files of one that ends early."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from dimp_ros.apps.recording.run_files import RunFiles


class RecordingFailed(RuntimeError):
    """The recording cannot go on; the text says why."""


def run_recording(
    name: str, record: Callable[[], int], keep_video: Callable[[], int], files: RunFiles, closing: threading.Event
) -> int:
    """Record, and return the exit status: that of ``record``, or 2 where it ended early.

    :param name: of the program, for what is printed. :param keep_video: finishes the video of one that ended early, and
        returns how many of its last images are left out.
    :param files: of the run; they take their names if it is whole, and are told of.
    :param closing: set while the node is closed: errors are of that then, and not told.
    """
    code = 2
    try:
        recorded = record()
        if recorded != 2:
            written = ", ".join(path.name for path in files.commit())
            print(f"[{name}] written to {files.folder}: {written}", flush=True)
        code = recorded
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
        if kept := files.kept():
            print(f"[{name}] the run was not whole; kept of it: {', '.join(map(str, kept))}", file=sys.stderr)
    files.release()
    return code
