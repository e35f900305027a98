# SPDX-License-Identifier: Apache-2.0
"""Track a target through a video with exported graphs: ONNX Runtime, NumPy and OpenCV only. See docs/export.md.

python examples/track_onnx.py GRAPHS VIDEO X,Y,W,H      a line per frame: number, x, y, w, h, score peak
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime


def window(image, box, context, size, aspect=0):
    """Sample a window around a box; return it, the box in its pixels, its corner and its scale, both in image pixels.

    It is ``context`` target sizes large; its aspect ratio is the target's to the power of ``aspect``.
    """
    stretch = np.clip((box[2] / box[3]) ** (aspect / 2), 0.5, 2)
    sides = context * np.sqrt(box[2] * box[3]) * np.array((stretch, 1 / stretch))
    corner, scale = box[:2] + box[2:] / 2 - sides / 2, sides / size
    image = cv2.blur(image, np.maximum(scale, 1).astype(int).tolist())  # against aliasing in a large window
    matrix = np.column_stack((np.diag(scale), corner + scale / 2 - 0.5))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    inside = np.hstack(((box[:2] - corner) / scale, box[2:] / scale))
    return crop[None], inside[None].astype(np.float32), corner, scale


if len(sys.argv) != 4:
    sys.exit(__doc__)
graphs = {path.stem: onnxruntime.InferenceSession(path) for path in Path(sys.argv[1]).glob("*.onnx")}
video, box = cv2.VideoCapture(sys.argv[2]), np.array(sys.argv[3].split(","), float)
found, image = video.read()
if not found or "search" not in graphs or box.shape != (4,) or not (box[2:] > 0).all():
    sys.exit(f"need a folder of graphs, a video and a box X,Y,W,H, got {sys.argv[1:]}")
settings = json.loads(graphs["search"].get_modelmeta().custom_metadata_map["settings"])
size, closer_size = settings["crop_size"], graphs["tokens"].get_inputs()[0].shape[1]

crop, inside, *_ = window(image, box, 2 * settings["search_scale"], 2 * size)
filters, samples, boxes, *_ = graphs["first_frame"].run(None, {"image": crop, "box": inside})
learning = {"features": samples, "boxes": boxes, "weights": np.full(len(boxes), 1 / len(boxes), np.float32)}
for _ in range(settings["init_steps"]):
    (filters,) = graphs["update"].run(None, {"filter": filters, **learning})
crop, inside, *_ = window(image, box, 2, closer_size, aspect=0.5)
(tokens,) = graphs["tokens"].run(None, {"images": crop, "boxes": inside})

while (frame := video.read())[0]:
    crop, _, corner, scale = window(frame[1], box, settings["search_scale"], size)
    (scores,) = graphs["search"].run(["scores"], {"images": crop, "filters": filters})
    if scores.max() > settings["not_found_threshold"]:  # otherwise the box stays
        _, row, column = np.unravel_index(scores.argmax(), scores.shape)
        box[:2] = corner + scale * 16 * (column, row) - box[2:] / 2
        crop, _, corner, scale = window(frame[1], box, 2, closer_size, aspect=0.5)
        (edges,) = graphs["closer_look"].run(["edges"], {"images": crop, "tokens": tokens})
        left_top, right_bottom = corner + scale * closer_size * edges.reshape(2, 2)
        if (right_bottom - left_top > settings["min_target_side"]).all():
            box = np.hstack((left_top, right_bottom - left_top))
    print(int(video.get(cv2.CAP_PROP_POS_FRAMES)) - 1, *np.round(box, 1), f"{scores.max():.3f}", flush=True)
