# SPDX-License-Identifier: Apache-2.0
"""Training data in the compact format."""

import json
import pickle
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dimp_ros.datasets.compact import CompactDataSet
from dimp_ros.datasets.masks import decode_runs, encode_runs
from dimp_ros.geometry.box import Box

REAL = Path(__file__).parents[3] / "shared" / "data" / "train"


def ellipse(width, height, center, axes):
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, center, axes, 0, 0, 360, 1, -1)
    return mask


def write_set(root: Path) -> Path:
    """Write two stills, a cut-out, a background and a clip of three frames without a target in the second."""
    (root / "images").mkdir(parents=True)
    lines = []

    def add(name, kind, shape, instances, **more):
        image = np.full(shape, 90, np.uint8)
        for item in instances:
            if "mask" in item:
                image[decode_runs(item["mask"]["counts"], *shape[:2]) > 0] = (20, 40, 250, 255)[: shape[2]]
        cv2.imwrite(str(root / "images" / f"{name}.webp"), image)
        lines.append({"id": name, "kind": kind, "width": shape[1], "height": shape[0], "instances": instances, **more})

    def thing(center=(40, 30), **more):
        mask = ellipse(120, 80, center, (20, 12))
        return {
            "bbox": list(cv2.boundingRect(mask)),
            "mask": {"size": [80, 120], "counts": encode_runs(mask)},
            "category": "disc",
            **more,
        }

    shape = (80, 120, 3)
    crowd = {"bbox": [0, 0, 60, 60], "category": "disc", "crowd": 1}
    empty = {"bbox": [5, 5, 0, 9], "category": "disc"}
    add("s1", "still", shape, [thing(), crowd, empty], source="here", licence="CC0", exhaustive=True)
    add("s2", "still", shape, [{"bbox": [1.5, 2, 30, 40.25], "category": None}], source="there")
    add("cut", "cutout", (80, 120, 4), [thing()], source="here")
    add("back", "background", shape, [], source="here")
    add("c_2", "clip", shape, [thing((60, 30), track_id=1)], clip="c", frame=2, source="film", licence="CC-BY")
    add("c_1", "clip", shape, [], clip="c", frame=1, source="film", licence="CC-BY")
    add("c_0", "clip", shape, [thing((50, 30), track_id=1)], clip="c", frame=0, source="film", licence="CC-BY")
    (root / "annotations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def test_boxes_are_read_without_pycocotools(tmp_path, monkeypatch):
    write_set(tmp_path / "set")
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    still = CompactDataSet(tmp_path / "set").stills()[0]
    assert still.instances[0].box.w > 0
    with pytest.raises(ImportError, match=r"pip install 'dimp_ros\[train\]'"):
        still.instances[0].mask()


def test_stills_have_images_boxes_and_masks(tmp_path):
    data = CompactDataSet(write_set(tmp_path / "set"))
    first, second, cutout, background = data.stills()
    assert [s.kind for s in data.stills()] == ["still", "still", "cutout", "background"]
    assert (first.source, first.licence, first.exhaustive) == ("here", "CC0", True)
    assert len(first.instances) == 1  # neither the crowd nor the empty box
    (thing,) = first.instances
    assert np.array_equal(thing.mask(), ellipse(120, 80, (40, 30), (20, 12)))
    image = first.read()
    assert image.shape == (first.height, first.width, 3)
    assert image[30, 40, 2] > 200 > 150 > image[5, 5, 2]  # red in BGR, on the mask
    assert second.instances[0].box == Box(1.5, 2, 30, 40.25)
    assert second.instances[0].mask() is None
    assert not second.exhaustive
    assert second.instances[0].category == ""
    assert cutout.read().shape == (80, 120, 4)
    assert background.instances == ()


def test_a_clip_is_in_order_and_says_where_its_target_is_absent(tmp_path):
    (clip,) = CompactDataSet(write_set(tmp_path / "set")).clips()
    assert (clip.name, len(clip), clip.category, clip.source, clip.licence) == ("c", 3, "disc", "film", "CC-BY")
    assert clip.boxes[:, 0].tolist() == pytest.approx([30, np.nan, 40], nan_ok=True)
    assert np.isnan(clip.boxes[1]).all()
    assert clip.visible.tolist() == [1, 0, 1]
    assert clip.instances[1] is None
    for index in (0, 2):
        x, y, w, h = clip.boxes[index].astype(int)
        assert clip.read(index)[y + h // 2, x + w // 2, 2] > 200
        assert clip.instances[index].mask().sum() > 500


def test_two_tracks_are_two_clips(tmp_path):
    root = write_set(tmp_path / "set")
    lines = [json.loads(line) for line in (root / "annotations.jsonl").read_text().splitlines()]
    next(line for line in lines if line["id"] == "c_1")["instances"] = [
        {"bbox": [1, 2, 3, 4], "track_id": 7, "visible": 0.5}
    ]
    (root / "annotations.jsonl").write_text("\n".join(map(json.dumps, lines)))
    one, other = CompactDataSet(root).clips()
    assert (one.name, other.name) == ("c#1", "c#7")
    assert other.boxes[1].tolist() == [1, 2, 3, 4]
    assert other.visible.tolist() == [0, 0.5, 0]
    assert one.visible.tolist() == [1, 0, 1]


def test_a_set_can_be_sent_to_another_process(tmp_path):
    data = pickle.loads(pickle.dumps(CompactDataSet(write_set(tmp_path / "set"))))
    assert data.clips()[0].read(2).shape == (80, 120, 3)
    assert data.stills()[0].instances[0].mask().any()


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(OSError, match=r"nowhere.*give the folder"):
        CompactDataSet(tmp_path / "nowhere")
    root = write_set(tmp_path / "set")
    (root / "images" / "s1.webp").unlink()
    with pytest.raises(ValueError, match=r"s1\.webp"):
        CompactDataSet(root).stills()[0].read()
    file = root / "annotations.jsonl"
    file.write_text(file.read_text() + '{"id": "x", "kind": "still", "width": 4, "height": 4}\n')
    with pytest.raises(ValueError, match=r"annotations\.jsonl, line 8: KeyError: 'instances'"):
        CompactDataSet(root)
    file.write_text('{"id": "x", "kind": "clap", "instances": []}\n')
    with pytest.raises(ValueError, match=r"line 1.*'clap'.*still, cutout, background, clip"):
        CompactDataSet(root)
    file.write_text('{"id": "x\n')
    with pytest.raises(ValueError, match="line 1: JSONDecodeError"):
        CompactDataSet(root)


@pytest.mark.parametrize("wrong", [{"size": [30_000, 30_000]}, {"size": [5]}, {"size": [5, 6]}, {"counts": [4800]}, {}])
def test_a_wrong_mask_names_its_line(tmp_path, wrong):
    file = write_set(tmp_path / "set") / "annotations.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        for item in line["instances"]:
            item["mask"] = {"counts": "0", "size": [80, 120], **wrong}
    lines[0]["width"] = 30_000 if wrong else 120
    file.write_text("\n".join(map(json.dumps, lines)))
    data = CompactDataSet(tmp_path / "set")
    for instance in (data.stills()[0].instances[0], data.clips()[0].instances[0]):
        with pytest.raises(ValueError, match=r"annotations\.jsonl, line \d: ValueError: .*correct or remove the mask"):
            instance.mask()


@pytest.mark.parametrize("kind", ["still", "clip"])
@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a/../../b", "..", "", "/"])
def test_an_id_that_leads_out_of_the_folder_is_refused(tmp_path, name, kind):
    file = write_set(tmp_path / "set") / "annotations.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    number = next(i for i, line in enumerate(lines) if (line["kind"] == "clip") == (kind == "clip"))
    lines[number]["id"] = name
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match=rf"annotations\.jsonl, line {number + 1}.*leads out of images"):
        CompactDataSet(tmp_path / "set")


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/data with training images")
def test_real_masks_fill_their_boxes():
    data = CompactDataSet(REAL)
    assert len(data.clips()) == 19
    assert sum(map(len, data.clips())) + len(data.stills()) > 5000
    for still in data.stills()[::200]:
        assert still.read().shape[:2] == (still.height, still.width)
        for instance in still.instances:
            if instance.has_mask:
                assert cv2.boundingRect(instance.mask()) == pytest.approx(instance.box, abs=1.01), still.name
