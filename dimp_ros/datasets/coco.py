# SPDX-License-Identifier: Apache-2.0
"""COCO in its published layout: ``annotations/instances_train2017.json`` and ``train2017/000000000009.jpg ...``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.base import Clip, DataSet, Instance, Still, read_box
from dimp_ros.datasets.masks import decode_runs, fill_polygons
from dimp_ros.datasets.video import need_folder
from dimp_ros.files.json_file import named_errors, parse_object
from dimp_ros.images.files import read_image


class CocoDataSet(DataSet):
    """COCO's images with the instances of its 80 categories, without crowds.

    Reading the JSON of train2017 takes about half a minute and 5 GB of memory.

    :param root: the folder that holds ``annotations/`` and the image folder. :param split: name of the image folder.
    :raises OSError: if the annotations or the image folder are missing. :raises ValueError: if they are damaged.
    """

    def __init__(self, root: Path | str, split: str = "train2017", name: str = "COCO") -> None:
        root = need_folder(root, f"annotations/instances_{split}.json and {split}/")
        self.name = name
        folder = need_folder(root / split, "the images of COCO")
        path = root / "annotations" / f"instances_{split}.json"
        self.annotations = (path,)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; unpack COCO's annotations there")
        remedy = "expected images, annotations and categories as in instances_train2017.json: fetch it again"
        with named_errors(f"{path} is no file of COCO instances", remedy):
            self._stills = _stills(parse_object(path.read_bytes()), folder, path)

    def stills(self) -> Sequence[Still]:
        """Return the images in order of their number, including those without instances."""
        return self._stills

    def clips(self) -> Sequence[Clip]:
        """Return nothing: COCO has single images only."""
        return ()


def _stills(content: dict[str, Any], folder: Path, path: Path) -> list[Still]:
    """Convert the content of the annotation file ``path``."""
    licences = {item["id"]: item.get("name") or item.get("url", "") for item in content.get("licenses", ())}
    categories = {category["id"]: str(category["name"]) for category in content["categories"]}
    instances: dict[int, list[Instance]] = defaultdict(list)
    sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in content["images"]}
    for item in sorted(content["annotations"], key=lambda item: item["id"]):
        box = read_box(item["bbox"])
        if box is not None and not item.get("iscrowd"):
            segmentation, size = item.get("segmentation"), sizes[item["image_id"]]
            decode = partial(_decode, segmentation, *size, path, item["id"]) if _has_mask(segmentation) else None
            instances[item["image_id"]].append(Instance(box, categories[item["category_id"]], decode))
    return [
        Still(
            name=f"coco_{Path(image['file_name']).stem}",
            read=partial(read_image, folder / image["file_name"]),
            width=int(image["width"]),
            height=int(image["height"]),
            instances=tuple(instances[image["id"]]),
            source="COCO 2017",
            licence=f"COCO photograph from Flickr: {licences.get(image.get('license')) or 'unstated'}; "
            "annotations CC-BY-4.0",
            exhaustive=True,
            file=folder / image["file_name"],
        )
        for image in sorted(content["images"], key=lambda image: image["id"])
    ]


def _has_mask(segmentation: Any) -> bool:
    """Return whether a segmentation is run lengths, or has a polygon with three corners."""
    return bool(segmentation) and (isinstance(segmentation, dict) or any(map(_is_polygon, segmentation)))


def _is_polygon(corners: Sequence[float]) -> bool:
    return len(corners) >= 6 and len(corners) % 2 == 0


def _decode(segmentation: Any, height: int, width: int, path: Path, number: int) -> NDArray[np.uint8]:
    """Return the mask of a segmentation of the annotation ``number`` in the file ``path``."""
    with named_errors(f"{path}, annotation {number}", "correct or remove it"):
        if isinstance(segmentation, dict):
            if list(segmentation["size"]) != [height, width]:
                raise ValueError(f"a mask of [height, width] {segmentation['size']}; its image has {[height, width]}")
            return decode_runs(segmentation["counts"], height, width)
        return fill_polygons(list(filter(_is_polygon, segmentation)), height, width)
