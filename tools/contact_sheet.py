# SPDX-License-Identifier: Apache-2.0
"""Lay frames of a video out as one image: tools/contact_sheet.py VIDEO IMAGE, such as docs/images/servo.jpg."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from dimp_ros.files.outputs import check_outputs, write_bytes

COLUMNS, ROWS, WIDTH = 3, 2, 400


def main() -> int:
    """Read the whole video and take frames at equal distances, the first a little after the start."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    check_outputs([("IMAGE", Path(sys.argv[2]))], [("VIDEO", Path(sys.argv[1]))])
    video, frames = cv2.VideoCapture(sys.argv[1]), []
    while (frame := video.read()[1]) is not None:
        frames.append(frame)
    if not frames:
        print(f"{sys.argv[1]} has no frame that OpenCV can read", file=sys.stderr)
        return 1
    height = round(WIDTH * frames[0].shape[0] / frames[0].shape[1])
    chosen = np.linspace(len(frames) // 20, len(frames) - 1, COLUMNS * ROWS).astype(int)
    tiles = [cv2.resize(frames[i], (WIDTH, height), interpolation=cv2.INTER_AREA) for i in chosen]
    sheet = np.vstack([np.hstack(tiles[row * COLUMNS : (row + 1) * COLUMNS]) for row in range(ROWS)])
    _, content = cv2.imencode(Path(sys.argv[2]).suffix, sheet, [cv2.IMWRITE_JPEG_QUALITY, 85])
    write_bytes(Path(sys.argv[2]), content.tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
