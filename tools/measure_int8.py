# SPDX-License-Identifier: Apache-2.0
"""Quantise the search graph to int8 (NNCF, on training images) and compare it with float32 and bfloat16 in OpenVINO.

Prints the CPU time of one thread, by turns in one process, and how far the outputs deviate from float32. Needs the
packages openvino and nncf.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dimp_ros.model.checkpoints.checkpoint import load_model
from dimp_ros.model.inference.graphs import SearchGraph
from dimp_ros.tracker.crop import SearchWindow, crop

SIZE, CHECKED = 288, 16
"""Side of a crop, and how many crops, not among those of the calibration, the outputs are compared on."""


def read_crops(folder: Path, count: int) -> list[NDArray[np.uint8]]:
    """Return crops ``[1, S, S, 3]`` of images drawn from a folder, each of a random part."""
    rng = np.random.default_rng(0)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".webp", ".jpg", ".png"))
    crops = []
    for path in rng.permutation(paths)[:count]:
        image = cv2.imread(str(path))
        height, width = image.shape[:2]
        side, (x, y) = rng.uniform(0.4, 1.2) * min(height, width), rng.uniform(0.2, 0.8, 2)
        crops.append(crop(image, SearchWindow.around((x * width, y * height), side, SIZE))[None])
    return crops


def main(argv: Sequence[str] | None = None) -> None:
    """Quantise, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="folder of training images")
    parser.add_argument("--count", type=int, default=150, help="images to calibrate with (default: 150)")
    parser.add_argument("--rounds", type=int, default=100, help="times that each graph is run (default: 100)")
    arguments = parser.parse_args(argv)
    import nncf
    import openvino

    crops = read_crops(arguments.images, arguments.count + CHECKED)
    net = load_model("dimp_lite")[0].eval()
    channels = net.classifier.filter_initializer.filter_conv.out_channels
    filters = (np.random.default_rng(0).standard_normal((1, channels, 4, 4)) / 100).astype(np.float32)
    example = (torch.from_numpy(crops[0]), torch.from_numpy(filters))
    with torch.no_grad():
        model = openvino.convert_model(SearchGraph(net).eval(), example_input=example)
    model.reshape({port: list(value.shape) for port, value in zip(model.inputs, example, strict=True)})
    dataset = nncf.Dataset(crops[CHECKED:], lambda images: {0: images, 1: filters})
    scope = nncf.IgnoredScope(types=["MatMul"], validate=False)  # the correlation with the filter stays in float
    graphs = {"float32": (model, "f32"), "bfloat16": (model, "bf16")}
    for name in ("PERFORMANCE", "MIXED"):
        preset = nncf.QuantizationPreset[name]
        quantised = nncf.quantize(model, dataset, preset=preset, subset_size=arguments.count, ignored_scope=scope)
        graphs[f"int8, {name.lower()}"] = (quantised, "bf16")
    core, hint = openvino.Core(), {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    requests = {
        name: core.compile_model(graph, "CPU", {**hint, "INFERENCE_PRECISION_HINT": precision}).create_infer_request()
        for name, (graph, precision) in graphs.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(arguments.rounds):
        for name, request in requests.items():
            start = time.process_time()
            request.infer([crops[0], filters])
            seconds[name].append(time.process_time() - start)
    outputs = {
        name: [[value.copy() for value in request.infer([images, filters]).values()] for images in crops[:CHECKED]]
        for name, request in requests.items()
    }
    for name, own in outputs.items():
        deviations = [
            [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(values, wanted, strict=True)]
            for values, wanted in zip(own, outputs["float32"], strict=True)
        ]
        features, scores = np.median(deviations, 0)[2:]
        milliseconds = 1000 * np.array(seconds[name][arguments.rounds // 10 :])
        print(
            f"{name}: {milliseconds.min():.2f} ms at best, {np.median(milliseconds):.2f} in the median; "
            f"deviation of features {features:.3f}, of scores {scores:.3f}"
        )


if __name__ == "__main__":
    main()
