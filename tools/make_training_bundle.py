# SPDX-License-Identifier: Apache-2.0
"""Put a training run into one zip file for a borrowed machine: code, configuration, weights, re-encoded images.

    python tools/make_training_bundle.py config/train_dimp_lite.yaml bundle.zip --stage gpu --images IMAGES

There: python -m zipfile -e bundle.zip run && cd run && python train.py --minutes 8 --folder out
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import yaml

import dimp_ros
from dimp_ros.datasets.base import Clip, Image, Instance, Still
from dimp_ros.datasets.masks import encode_runs
from dimp_ros.datasets.registry import WeightedDataSet, open_data_sets
from dimp_ros.files.arguments import number
from dimp_ros.files.outputs import OutputFile, check_outputs
from dimp_ros.geometry.box import Box
from dimp_ros.model.checkpoints.checkpoint import load_model
from dimp_ros.model.checkpoints.weights_file import find_weights
from dimp_ros.training.cli import data_set, inputs_of, resolved_config
from dimp_ros.training.config import TrainingConfig
from dimp_ros.training.pretrained import lite_weights

PACKAGE = Path(dimp_ros.__file__).resolve().parent
LEFT_OUT = ("node", "apps", "ros_utils", "weights")
LEVELS = ((480, 80), (480, 60), (480, 45), (448, 40), (416, 36), (384, 36), (352, 36), (320, 36), (288, 36))
"""Longer side in pixels at most, and WebP quality: the first at which everything fits is taken."""

SAMPLE = 200
"""Images from which the size at a level is estimated."""

RESERVE = 2**17
"""Bytes kept free for the files that are added after the images."""

LAUNCHER = '''"""Train as config.yaml says; takes the arguments of dimp-train. Runs under torchrun, too."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ["BUNDLE"] = str(HERE)
sys.path.insert(0, str(HERE))  # not under the guard: processes that the training starts import this file too

if __name__ == "__main__":
    from dimp_ros.training.cli import main

    sys.exit(main([str(HERE / "config.yaml"), *START, *sys.argv[1:]]))
'''

README = """A training run of dimp_ros: code, configuration, starting weights, images.

    python train.py --minutes 8 --folder out

Needs Python 3.10, PyTorch, numpy, opencv-python-headless, safetensors, PyYAML, tqdm, pycocotools. The result is
out/weights.safetensors. The images are under the licences of their owners: for training only, not for passing on.

"""


class Item(NamedTuple):
    """An image to encode: ``index`` is None for a still, else the number of the clip's frame."""

    data: Still | Clip
    index: int | None

    def encode(self, side: int, quality: int) -> tuple[bytes, dict[str, Any]]:
        """Return the image as WebP with at most ``side`` pixels on its longer side, and its annotation line."""
        data, index = self
        image: Image = data.read(index) if isinstance(data, Clip) and index is not None else data.read()  # type: ignore
        height, width = image.shape[:2]
        factor = min(1.0, side / max(height, width))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        record: dict[str, Any] = {"width": size[0], "height": size[1], "source": data.source, "licence": data.licence}
        if isinstance(data, Still):
            if (width, height) != (data.width, data.height):
                raise ValueError(f"{data.name} is {width} x {height}, its boxes are for {data.width} x {data.height}")
            found = [_instance(item, size, (width, height)) for item in data.instances]
            record |= {"id": data.name, "kind": data.kind, "exhaustive": data.exhaustive}
        else:
            assert index is not None
            found = []
            if np.isfinite(box := data.boxes[index]).all():
                known = data.instances[index] if data.instances else None
                instance = known or Instance(Box(*box.tolist()), data.category)
                found = [_instance(instance, size, (width, height)) | {"visible": round(float(data.visible[index]), 3)}]
            record |= {"id": f"{data.name}/{index:05d}", "kind": "clip", "clip": data.name, "frame": index}
        if size != (width, height):
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        done, blob = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
        if not done:
            raise OSError("this OpenCV cannot write WebP; install opencv-python of PyPI")
        return blob.tobytes(), {**record, "instances": found}


def _instance(instance: Instance, size: tuple[int, int], old: tuple[int, int]) -> dict[str, Any]:
    """Return an instance's annotation, scaled from an image of ``old`` (width, height) to one of ``size``."""
    fx, fy = size[0] / old[0], size[1] / old[1]
    x, y, w, h = instance.box
    record: dict[str, Any] = {"bbox": [round(v, 2) for v in (x * fx, y * fy, w * fx, h * fy)]}
    record["category"] = instance.category
    mask = instance.mask()
    if mask is not None and size != old:
        mask = np.asarray(cv2.resize(mask * 255, size, interpolation=cv2.INTER_AREA) > 127, np.uint8)
    if mask is not None and mask.any():
        record["mask"] = {"size": list(mask.shape), "counts": encode_runs(mask)}
    return record


def items_of(data_set: WeightedDataSet) -> Iterator[Item]:
    """Yield the images of all stills and clips."""
    yield from (Item(still, None) for still in data_set.data.stills())
    yield from (Item(clip, index) for clip in data_set.data.clips() for index in range(len(clip)))


def encode(items: Sequence[Item], level: tuple[int, int]) -> list[tuple[bytes, dict[str, Any]]]:
    """Encode images in parallel, in order."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda item: item.encode(*level), items))


def encode_to_fit(items: Sequence[Item], budget: int) -> tuple[tuple[int, int], list[tuple[bytes, dict[str, Any]]]]:
    """Encode images at the first of `LEVELS` at which they take at most ``budget`` bytes.

    :raises ValueError: if they do not fit at the last.
    """

    def size_of(encoded: Sequence[tuple[bytes, dict[str, Any]]]) -> int:
        # A stored file costs its name twice and 92 bytes; annotations shrink to about a third.
        return sum(len(blob) + 2 * len(line["id"]) + 128 + len(json.dumps(line)) // 3 for blob, line in encoded)

    sample = items[:: max(1, len(items) // SAMPLE)]
    expected = 0.0
    for level in LEVELS:
        expected = size_of(encode(sample, level)) * len(items) / max(len(sample), 1)
        if expected <= budget and size_of(encoded := encode(items, level)) <= budget:
            return level, encoded
    raise ValueError(
        f"{len(items)} images take {expected / 2**20:.1f} MiB at {LEVELS[-1][0]} pixels, and {budget / 2**20:.1f} MiB "
        "are left for them: take fewer with max_stills, max_clips and max_frames in the configuration, or raise --limit"
    )


def write_bundle(config: TrainingConfig, start: Path | None, out: Path, limit_mib: float) -> str:
    """Write the bundle and return a line that describes it; see `main` for the arguments.

    :raises ValueError: if the weights are of another model or the images do not fit. :raises OSError: if a file lacks.
    """
    if start is not None and (found := load_model(str(start))[1].architecture) != config.model:
        raise ValueError(f"{start} holds {found!r} weights; the configuration wants {config.model!r}")
    data_sets = open_data_sets(config.data)
    per_set = [list(items_of(data_set)) for data_set in data_sets]
    with OutputFile(out) as partial:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(PACKAGE.rglob("*.py")):
                if path.relative_to(PACKAGE).parts[0] not in LEFT_OUT:
                    archive.write(path, f"dimp_ros/{path.relative_to(PACKAGE).as_posix()}")
            for licence in (PACKAGE.parent / "LICENSE", PACKAGE.parent / "NOTICE"):
                archive.write(licence, licence.name)
            values = config.plain()
            if start is not None:
                archive.write(find_weights(str(start)), "start.safetensors")
                arguments = '"--start", str(HERE / "start.safetensors"), '
            else:
                archive.write(config.backbone_weights or lite_weights()[0], "backbone.pth")
                arguments, values["backbone_weights"] = "", "$BUNDLE/backbone.pth"
            archive.writestr("train.py", LAUNCHER.replace("*START, ", arguments))
            data = [
                {"kind": "compact", "root": f"data/{number}", "name": each.name, "weight": weight}
                for number, (each, weight) in enumerate(data_sets)
            ]
            archive.writestr("config.yaml", yaml.safe_dump({**values, "data": data}, sort_keys=False))
            written = sum(info.compress_size for info in archive.infolist())
            budget = int(limit_mib * 2**20) - written - RESERVE
            level, encoded = encode_to_fit([item for items in per_set for item in items], budget)
            remaining = iter(encoded)
            for number, items in enumerate(per_set):
                lines = []
                for blob, record in (next(remaining) for _ in items):
                    archive.writestr(f"data/{number}/images/{record['id']}.webp", blob, zipfile.ZIP_STORED)
                    lines.append(json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n")
                archive.writestr(f"data/{number}/annotations.jsonl", "".join(lines))
            counts = Counter((record["source"], record["licence"]) for _, record in encoded)
            sources = [f"{count:7d}  {source}: {licence}\n" for (source, licence), count in sorted(counts.items())]
            archive.writestr("README.txt", README + "".join(sources))
            about = {"commit": _commit(), "images": len(encoded), "longer_side": level[0], "webp_quality": level[1]}
            archive.writestr("bundle.json", json.dumps(about))
        size = partial.stat().st_size
        if size > limit_mib * 2**20:
            raise ValueError(f"the bundle takes {size / 2**20:.2f} MiB, more than {limit_mib:g}; take fewer images")
    return f"{out}: {size / 2**20:.1f} MiB, {len(encoded)} images of {level[0]} pixels, WebP quality {level[1]}"


def _commit() -> str:
    """Return the commit of this checkout, empty where there is none."""
    command = ["git", "-C", str(PACKAGE), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, or 2 for a bad request."""
    parser = argparse.ArgumentParser(description="Put a training run into one zip file for a borrowed machine.")
    parser.add_argument("config", type=Path, help="YAML file of the run")
    parser.add_argument("out", type=Path, help="the zip file to write")
    parser.add_argument("--stage", help="stage of the configuration")
    parser.add_argument("--data", type=data_set, action="append", default=[], metavar="KIND=FOLDER")
    parser.add_argument("--images", type=Path, metavar="DIR", help="the same as --data compact=DIR")
    parser.add_argument("--start", type=Path, help="weights to start from (default: a backbone with ImageNet weights)")
    parser.add_argument(
        "--limit", type=number(above=True), default=60, metavar="MIB", help="size at most (default: 60)"
    )
    options = parser.parse_args(arguments)
    try:
        config = resolved_config(options.config, options.stage, options.data, options.images)
        check_outputs([("OUT", options.out)], inputs_of(options, config))
        print(write_bundle(config, options.start, options.out, options.limit))
    except (OSError, ValueError) as error:
        print(f"make_training_bundle: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
