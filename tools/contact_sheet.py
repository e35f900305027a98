# SPDX-License-Identifier: Apache-2.0
"""Lay frames of a video out as one image: tools/contact_sheet.py VIDEO IMAGE, such as docs/images/servo.jpg."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from dimp_ros.files.inputs import video_path
from dimp_ros.files.outputs import check_outputs, write_bytes

COLUMNS, ROWS, WIDTH = 3, 2, 400


def main() -> int:
    """Write the sheet; return the exit code: 2 for a video or an image that cannot be used."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        write_sheet(sys.argv[1], Path(sys.argv[2]))
    except (ValueError, OSError) as error:
        print(f"contact_sheet: {error}", file=sys.stderr)
        return 2
    return 0


def write_sheet(source: str, target: Path) -> None:
    """Read the whole video and take frames at equal distances, the first a little after the start.

    :raises ValueError, OSError: if the video cannot be read, or the image not be written.
    """
    check_outputs([("IMAGE", target)], [("VIDEO", Path(source))])
    if not cv2.haveImageWriter(str(target)):
        raise ValueError(f"IMAGE {target} has a suffix that OpenCV does not write; give it .jpg or .png")
    video, frames = cv2.VideoCapture(video_path(source)), []
    while (frame := video.read()[1]) is not None:
        frames.append(frame)
    if not frames:
        raise ValueError(f"{source} has no frame that OpenCV can read; give a video")
    height = round(WIDTH * frames[0].shape[0] / frames[0].shape[1])
    chosen = np.linspace(len(frames) // 20, len(frames) - 1, COLUMNS * ROWS).astype(int)
    tiles = [cv2.resize(frames[i], (WIDTH, height), interpolation=cv2.INTER_AREA) for i in chosen]
    sheet = np.vstack([np.hstack(tiles[row * COLUMNS : (row + 1) * COLUMNS]) for row in range(ROWS)])
    _, content = cv2.imencode(target.suffix, sheet, [cv2.IMWRITE_JPEG_QUALITY, 85])
    write_bytes(target, content.tobytes())


if __name__ == "__main__":
    sys.exit(main())
