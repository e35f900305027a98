# SPDX-License-Identifier: Apache-2.0
"""Quantise the graphs of every frame to int8 (NNCF, on training images) and compare them with bfloat16 in OpenVINO.

These are the search graph, without the correlation with the filter, and the closer look. Prints their time by turns in
one process, and how far features, edges and predicted overlap deviate from float32. Needs the packages openvino and
nncf.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import openvino
import torch
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box
from dimp_ros.images.closer_window import CloserWindow, crop_window
from dimp_ros.model.checkpoints.checkpoint import load_model
from dimp_ros.model.inference.graph_conversion import convert
from dimp_ros.model.inference.graphs import TokensGraph
from dimp_ros.model.inference.openvino_graphs import PRECISIONS, GraphKey
from dimp_ros.model.sizes import CLOSER_CONTEXT, CLOSER_SIZE
from dimp_ros.tracker.crop import SearchWindow, crop
from dimp_ros.tracker.tracker import config_of

CHECKED = 16
"""Images, not among those of the calibration, on which the outputs are compared."""


class GraphInputs(NamedTuple):
    """GraphInputs of both graphs for one image."""

    search: list[NDArray[np.generic]]
    closer: list[NDArray[np.generic]]


def draw_inputs(folder: Path, count: int, tokens: TokensGraph, size: int, context: float) -> list[GraphInputs]:
    """Return the windows around a random box in each of ``count`` images of a folder.

    :param size: of the search window, pixels. :param context: its side in target sizes.
    """
    rng = np.random.default_rng(0)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".webp", ".jpg", ".png"))
    drawn = []
    for path in rng.permutation(paths)[:count]:
        image = cv2.imread(str(path))
        (height, width), (x, y) = image.shape[:2], rng.uniform(0.2, 0.8, 2)
        w, h = rng.uniform(0.08, 0.4, 2) * min(height, width)
        box = Box.from_center(x * width, y * height, w, h)
        search = crop(image, SearchWindow.around(box.center, context * math.sqrt(box.area), size))
        window = CloserWindow.around(box, CLOSER_CONTEXT, CLOSER_SIZE)
        closer = crop_window(image, window)[None]
        with torch.no_grad():
            own = tokens(torch.from_numpy(closer), torch.tensor([window.box_to_window(box)]))
        drawn.append(GraphInputs([search[None]], [closer, own.numpy()]))
    return drawn


def compare(
    graphs: dict[str, tuple[openvino.Model, str]],
    inputs: Sequence[list[NDArray[np.generic]]],
    threads: int,
    rounds: int,
) -> None:
    """Run graphs by turns; print their times, and the deviations of outputs from those of the first graph."""
    core, hint = openvino.Core(), {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    requests = {}
    for name, (model, precision) in graphs.items():
        settings = {**hint, "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": PRECISIONS[precision]}
        requests[name] = core.compile_model(model, "CPU", settings).create_infer_request()
    seconds: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(rounds):
        for name, request in requests.items():
            start = time.perf_counter()
            request.infer(inputs[0])
            seconds[name].append(time.perf_counter() - start)
    outputs = {
        name: [[value.copy() for value in request.infer(values).values()] for values in inputs]
        for name, request in requests.items()
    }
    wanted = next(iter(outputs.values()))
    for name, own in outputs.items():
        deviations = [
            [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(values, expected, strict=True)]
            for values, expected in zip(own, wanted, strict=True)
        ]
        milliseconds = 1000 * np.array(seconds[name][rounds // 10 :])
        best, median = milliseconds.min(), np.median(milliseconds)
        texts = ", ".join(f"{value:.3f}" for value in np.median(deviations, 0))
        print(f"  {name}: {best:.2f} ms at best, {median:.2f} in the median; outputs deviate by {texts}")


def main(argv: Sequence[str] | None = None) -> None:
    """Quantise, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="folder of training images")
    parser.add_argument("--count", type=int, default=300, help="images to calibrate with (default: 300)")
    parser.add_argument("--rounds", type=int, default=100, help="times that each graph is run (default: 100)")
    parser.add_argument("--threads", type=int, default=2, help="that compute a graph (default: 2)")
    arguments = parser.parse_args(argv)
    import nncf

    net, info = load_model("dimp_lite")
    net, config = net.eval(), config_of(info)
    tokens = TokensGraph(net).eval()
    drawn = draw_inputs(arguments.images, arguments.count + CHECKED, tokens, config.crop_size, config.search_scale)
    for name, sizes in (("search", (config.crop_size,)), ("closer", ())):
        inputs = [getattr(one, name) for one in drawn]
        model = convert(net, GraphKey(name, sizes, "float32"))
        dataset = nncf.Dataset(inputs[CHECKED:], lambda values: dict(enumerate(values)))
        graphs = {"float32": (model, "float32"), "bfloat16": (model, "bfloat16")}
        for preset in (nncf.QuantizationPreset.PERFORMANCE, nncf.QuantizationPreset.MIXED):
            quantised = nncf.quantize(model, dataset, preset=preset, subset_size=arguments.count)
            graphs[f"int8, {preset.value}"] = (quantised, "bfloat16")
        print(name)
        compare(graphs, inputs[:CHECKED], arguments.threads, arguments.rounds)


if __name__ == "__main__":
    main()
