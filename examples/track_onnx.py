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

SHIFTS = np.array([(0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1), (0, 0.5), (0.5, 0)])


class OnnxTracker:
    """DiMP's procedure for one target, without re-detection, hard negatives and the fit to the first frame."""

    def __init__(self, folder, image, box):
        self.graphs = {path.stem: onnxruntime.InferenceSession(path) for path in Path(folder).glob("*.onnx")}
        self.config = json.loads(self.graphs["search"].get_modelmeta().custom_metadata_map["settings"])
        self.box, self.frame, self.random = np.array(box, float), 0, np.random.default_rng(0)
        corner, scale, size = self.search_window()
        shifts = SHIFTS * self.config["augment_shift"] * size / 2
        views = np.stack([sample(image, corner - scale * shift, scale, size) for shift in shifts])
        boxes = np.hstack((to_window(self.box, corner, scale)[:2] + shifts, np.tile(self.box[2:] / scale, (7, 1))))
        copies, keep = self.config["dropout_copies"], 1 - self.config["dropout_rate"]
        dropout = (self.random.random((copies, self.graphs["first_frame"].get_inputs()[4].shape[1])) < keep) / keep
        unused = np.zeros((len(views), *self.graphs["search"].get_inputs()[1].shape[1:]))
        stride8, stride16, features, _ = self.call("search", views, unused)
        learned = self.call("first_frame", stride8[:1], stride16[:1], features, boxes, dropout)
        self.features, self.filter, *self.modulation = learned
        self.boxes = np.concatenate((boxes, np.tile(boxes[:1], (copies, 1))))
        self.weights = np.full(len(self.boxes), 1 / len(self.boxes))
        self.learn(self.config["init_steps"])
        if "tokens" in self.graphs:
            corner, scale, size = self.closer_window()
            window, inside = sample(image, corner, scale, size), to_window(self.box, corner, scale)
            (self.tokens,) = self.call("tokens", window[None], inside[None])

    def call(self, name, *inputs):
        """Run a graph on inputs in its order; numbers become float32, images stay uint8."""
        arrays = [array if array.dtype == np.uint8 else array.astype(np.float32) for array in inputs]
        names = [port.name for port in self.graphs[name].get_inputs()]
        return self.graphs[name].run(None, dict(zip(names, arrays, strict=True)))

    def search_window(self):
        """Return corner and scale (image pixels per window pixel) of the search window, and its size."""
        side, size = self.config["search_scale"] * np.sqrt(self.box[2:].prod()), self.config["crop_size"]
        return self.box[:2] + self.box[2:] / 2 - side / 2, np.full(2, side / size), size

    def closer_window(self):
        """Return the same of the box refiner's window: twice the target's size, with the root of its aspect ratio."""
        size = self.graphs["closer_look"].get_inputs()[0].shape[1]
        stretch = np.clip((self.box[2] / self.box[3]) ** 0.25, 0.5, 2)
        sides = 2 * np.sqrt(self.box[2:].prod()) * np.array((stretch, 1 / stretch))
        return self.box[:2] + self.box[2:] / 2 - sides / 2, sides / size, size

    def learn(self, steps):
        """Optimise the filter on the samples."""
        for _ in range(steps):
            (self.filter,) = self.call("update", self.filter, self.features, self.boxes, self.weights)

    def update(self, image):
        """Return the box in the next image and the score peak; the box stays where the target is not found."""
        self.frame += 1
        corner, scale, size = self.search_window()
        crop = sample(image, corner, scale, size)[None]
        stride8, stride16, features, scores = self.call("search", crop, self.filter)
        row, column = np.unravel_index(scores[0].argmax(), scores[0].shape)
        if scores[0, row, column] < self.config["not_found_threshold"]:
            return self.box, scores[0, row, column]
        self.box[:2] = corner + scale * 16 * (column, row) - self.box[2:] / 2
        self.refine(image, stride8, stride16, corner, scale)
        self.remember(features, to_window(self.box, corner, scale))
        if self.frame % self.config["update_interval"] == 0:
            self.learn(self.config["update_steps"])
        return self.box, scores[0, row, column]

    def refine(self, image, stride8, stride16, corner, scale):
        """Refine the box: by the box refiner where the model has one, else along the gradient of the overlap."""
        if "tokens" in self.graphs:
            corner, scale, size = self.closer_window()
            edges, _ = self.call("closer_look", sample(image, corner, scale, size)[None], self.tokens)
            ends = edges[0].reshape(2, 2) * size * scale
            best = np.hstack((corner + ends[0], ends[1] - ends[0]))
        else:
            box, count = to_window(self.box, corner, scale), self.config["proposals"]
            jitter = self.random.uniform(-1, 1, (count, 4)) * np.sqrt(box[2:].prod())
            jitter *= np.repeat([self.config["jitter_center"], self.config["jitter_size"]], 2)
            jitter[0], length = 0, np.full(1, self.config["refine_step_length"])
            sides = np.maximum(box[2:] + jitter[:, 2:], box[2:].min() / 3)
            proposals = np.hstack((box[:2] + box[2:] / 2 + jitter[:, :2] - sides / 2, sides))
            boxes, overlaps = self.call("refine", stride8, stride16, *self.modulation, proposals[None], length)
            best = boxes[0, overlaps[0].argsort()[-self.config["best_boxes"] :]].mean(0) * np.tile(scale, 2)
            best[:2] += corner
        if np.isfinite(best).all() and (best[2:] > self.config["min_target_side"]).all():
            self.box = best

    def remember(self, features, box):
        """Add a sample; a full memory loses its oldest one that is not of the first frame."""
        first, rate = len(SHIFTS) + self.config["dropout_copies"], self.config["learning_rate"]
        kept = np.delete(np.arange(len(self.boxes)), [first] if len(self.boxes) == self.config["memory_size"] else [])
        self.features = np.concatenate((self.features[kept], features))
        self.boxes = np.concatenate((self.boxes[kept], box[None]))
        self.weights = np.append(self.weights[kept] * (1 - rate), rate)
        self.weights[:first] *= max(1, self.config["first_frame_share"] / self.weights[:first].sum())
        self.weights /= self.weights.sum()


def sample(image, corner, scale, size):
    """Resample a window of an image to ``[size, size, 3]``; a large one is smoothed first, the border is replicated."""
    if scale.max() > 2:
        image = cv2.blur(image, tuple(int(s) for s in np.maximum(scale, 1)))
    transform = np.hstack((np.diag(scale), (corner + scale / 2 - 0.5)[:, None]))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, transform, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def to_window(box, corner, scale):
    """Convert a box from image to window pixels."""
    return np.hstack(((box[:2] - corner) / scale, box[2:] / scale))


if __name__ == "__main__":
    video = cv2.VideoCapture(sys.argv[2])
    found, image = video.read()
    tracker = OnnxTracker(sys.argv[1], image, [float(number) for number in sys.argv[3].split(",")])
    while True:
        found, image = video.read()
        if not found:
            break
        box, peak = tracker.update(image)
        print(tracker.frame, *np.round(box, 1), f"{peak:.3f}", flush=True)
