# SPDX-License-Identifier: Apache-2.0
"""Everything that a training run needs in one file, for a borrowed machine that has PyTorch and nothing else of ours.

python -m zipfile -e pack.zip folder && cd folder && python train.py --minutes 8 --folder out
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import dimp_ros
from dimp_ros.datasets.base import held_out
from dimp_ros.datasets.packed import ANNOTATIONS, PICTURES
from dimp_ros.datasets.packed_writer import MIB, Encoded, Fit, Item, Level, annotation_lines, items_of
from dimp_ros.datasets.registry import WeightedDataSet
from dimp_ros.files.outputs import OutputFile
from dimp_ros.training.config import TrainingConfig

PACKAGE = Path(dimp_ros.__file__).resolve().parent
NOT_PACKED = ("node", "apps", "weights")
DATE = (1980, 1, 1, 0, 0, 0)
"""Of every file in a pack, so that the same input gives the same bytes."""

LAUNCHER = '''# SPDX-License-Identifier: Apache-2.0
"""Train as config.yaml says; arguments are those of dimp-train. Also: torchrun --nproc_per_node 8 train.py ..."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # outside of the guard: processes that the training starts read this file as well

if __name__ == "__main__":
    from dimp_ros.training.cli import main

    sys.exit(main([str(HERE / "config.yaml"), "--start", str(HERE / "{start}"), *sys.argv[1:]]))
'''

README = """A training run of dimp_ros: code, configuration, weights to start from, pictures.

    python train.py --minutes 8 --folder out                       (one process; see train.py --help)
    torchrun --nproc_per_node 8 train.py --minutes 8 --folder out  (a process a GPU)

Needs Python 3.10, PyTorch, numpy, opencv-python-headless, safetensors, PyYAML, tqdm. A run that is started again with
the same --folder continues. The result is out/weights.safetensors.

For training only, not for passing on: the pictures are under the licences of their owners.
{pictures} pictures, longer side at most {side} pixels, WebP of quality {quality}, from:
{sources}
"""


@dataclass(frozen=True)
class PackReport:
    """What a pack consists of.

    :param parts: bytes that each part takes in the file. :param pictures: how many there are.
    """

    path: Path
    size: int
    rung: Level
    pictures: int
    parts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / MIB:.2f}" for name, size in self.parts.items())
        return (
            f"{self.path}: {self.size / MIB:.2f} MiB ({parts}); {self.pictures} pictures, longer side at most "
            f"{self.rung.side} pixels, WebP of quality {self.rung.quality}; made in {self.seconds:.0f} s"
        )


def write_pack(
    config: Path,
    data_sets: Sequence[WeightedDataSet],
    start: Path | None,
    out: Path,
    *,
    limit_mib: float = 45,
    without_held_out: bool = False,
    say: Callable[[str], None] = print,
) -> PackReport:
    """Write a pack; pictures are made as small as the limit wants, at most 480 and at least 288 pixels.

    :param config: YAML file of the run; its ``data`` are replaced by ``data_sets`` in their re-encoded form.
    :param start: weights to start from; None packs new ones with a backbone of ImageNet's.
    :param limit_mib: size of the file at most, MiB.
    :param without_held_out: leave out the pictures that are never trained on; the run cannot validate then.
    :raises ValueError: if the configuration is damaged or it does not fit; :raises OSError: if something is missing.
    """
    began = time.monotonic()
    settings = TrainingConfig.load(config)
    weights_name, weights = _start_weights(settings, start)
    keep: Callable[[str], bool] = (lambda name: not held_out(name)) if without_held_out else (lambda name: True)
    per_set = [list(items_of(data, keep)) for data, _ in data_sets]
    items = [item for each in per_set for item in each]
    say(f"packing {len(items)} pictures of {len(data_sets)} data sets into at most {limit_mib:g} MiB")

    with OutputFile(out) as partial:
        rung, encoded = _write(partial, settings, data_sets, per_set, (weights_name, weights), limit_mib)
        size = partial.stat().st_size
        if size > limit_mib * MIB:
            raise ValueError(
                f"the pack takes {size / MIB:.2f} MiB, more than {limit_mib:g}; take fewer sources of pictures"
            )
    report = PackReport(out, size, rung, len(encoded), _parts(out), time.monotonic() - began)
    say(str(report))
    return report


def _write(
    path: Path,
    settings: TrainingConfig,
    data_sets: Sequence[WeightedDataSet],
    per_set: Sequence[Sequence[Item]],
    weights: tuple[str, bytes],
    limit_mib: float,
) -> tuple[Level, list[Encoded]]:
    """Write the archive; return how far the images were reduced, and what they became."""
    items = [item for each in per_set for item in each]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in _code():
            _add(archive, name, content)
        _add(archive, *weights)
        _add(archive, "train.py", LAUNCHER.replace("{start}", weights[0]).encode())
        _add(archive, "config.yaml", _config(settings, data_sets).encode())
        assert archive.fp is not None
        # What else is to come: two short texts, and the directory, where a data set has two entries.
        reserve = 64 * 1024 + sum(2 * (len(info.filename) + 64) for info in archive.infolist()) + 512 * len(data_sets)
        rung, encoded = Fit(items, int(limit_mib * MIB) - archive.fp.tell() - reserve).encode()
        _add_data(archive, per_set, encoded)
        _add(archive, "README.txt", _readme(rung, encoded).encode())
        _add(archive, "pack.json", _manifest(rung, encoded, data_sets).encode())
    return rung, encoded


def _add(archive: zipfile.ZipFile, name: str, content: bytes, compress: bool = True) -> None:
    """Add a file that depends on nothing but its content."""
    info = zipfile.ZipInfo(name, DATE)
    info.external_attr = 0o644 << 16
    info.create_system = 3
    info.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    archive.writestr(info, content)


def _add_data(archive: zipfile.ZipFile, per_set: Sequence[Sequence[Item]], encoded: Sequence[Encoded]) -> None:
    """Add pictures and annotations of each data set, given those of all, one after the other."""
    start = 0
    for number, items in enumerate(per_set):
        part = encoded[start : start + len(items)]
        start += len(items)
        _add(archive, f"data/{number}/{ANNOTATIONS}", annotation_lines(part))
        _add(archive, f"data/{number}/{PICTURES}", b"".join(blob for blob, _ in part), compress=False)


def _code() -> Iterator[tuple[str, bytes]]:
    """Iterate over the sources that training may import, and the licence."""
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        if inside.parts[0] not in NOT_PACKED:
            yield f"dimp_ros/{inside.as_posix()}", path.read_bytes()
    for name in ("LICENSE", "NOTICE"):
        if (PACKAGE.parent / name).is_file():
            yield name, (PACKAGE.parent / name).read_bytes()


def _start_weights(settings: TrainingConfig, start: Path | None) -> tuple[str, bytes]:
    """Return name and content of the weights to start from."""
    from dimp_ros.model.checkpoints.checkpoint import WeightsInfo, load_model, save_weights

    if start is not None:
        architecture = load_model(str(start))[1].architecture  # a broken file must not get as far as the other machine
        if architecture != settings.model:
            raise ValueError(f"{start} holds {architecture!r} weights; the configuration wants {settings.model!r}")
        return "start.safetensors", start.read_bytes()
    import torch

    from dimp_ros.model.dimp import build_model
    from dimp_ros.training.pretrained import load_pretrained_backbone

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = build_model(settings.model)
    source = os.path.expandvars(settings.backbone_weights)
    origin = load_pretrained_backbone(model, Path(source) if source else None)
    backbone = model.feature_extractor
    info = WeightsInfo(settings.model, mean=backbone.mean, std=backbone.std, details={"origin": origin})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "imagenet.safetensors"
        save_weights(path, model, info, torch.float16)
        return path.name, path.read_bytes()


def _config(settings: TrainingConfig, data_sets: Sequence[WeightedDataSet]) -> str:
    """Return the configuration with all its fields, with the packed data sets and without a file of the backbone."""
    data = [
        {"kind": "packed", "root": f"data/{number}", "name": data.name, "weight": weight}
        for number, (data, weight) in enumerate(data_sets)
    ]
    return yaml.safe_dump({**settings.plain(), "data": data, "backbone_weights": ""}, sort_keys=False)


def _sources(encoded: Iterable[Encoded]) -> Counter[tuple[str, str]]:
    """Count the pictures by source and licence."""
    return Counter((record["source"], record["licence"]) for _, record in encoded)


def _readme(rung: Level, encoded: Sequence[Encoded]) -> str:
    """Return the text for people."""
    lines = sorted(f"    {count:6d}  {source}: {licence}" for (source, licence), count in _sources(encoded).items())
    return README.format(pictures=len(encoded), side=rung.side, quality=rung.quality, sources="\n".join(lines))


def _manifest(rung: Level, encoded: Sequence[Encoded], data_sets: Sequence[WeightedDataSet]) -> str:
    """Return the text for programs."""
    content: dict[str, Any] = {
        "commit": _commit(),
        "pictures": len(encoded),
        "longer_side": rung.side,
        "webp_quality": rung.quality,
        "data": [data.name for data, _ in data_sets],
    }
    return json.dumps(content, indent=2) + "\n"


def _commit() -> str:
    """Return the commit of the checkout that is packed, empty where there is none."""
    command = ["git", "-C", str(PACKAGE), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _parts(path: Path) -> dict[str, int]:
    """Return how many bytes each part takes."""
    parts = dict.fromkeys(("pictures", "annotations", "weights", "code", "other"), 0)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = Path(info.filename)
            if name.parts[0] == "data":
                part = "pictures" if name.name == PICTURES else "annotations"
            elif name.suffix == ".safetensors":
                part = "weights"
            else:
                part = "code" if name.suffix == ".py" else "other"
            parts[part] += info.compress_size
    return parts
