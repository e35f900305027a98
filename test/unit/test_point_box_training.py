# SPDX-License-Identifier: Apache-2.0
"""Training of the head for points: examples, losses, steps, export."""

import itertools
import json
import os
from types import SimpleNamespace
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch

from dimp_ros.model.checkpoints.checkpoint import load_model, save_torch
from dimp_ros.model.inference.network import InferenceNet
from dimp_ros.model.point_box import CELLS, PointBoxes, PointBoxHead
from dimp_ros.model.sizes import POINT_SIZE, POINT_WINDOWS
from dimp_ros.training import point_boxes
from dimp_ros.training.frame_store import DATA, INDEX, FrameStore
from dimp_ros.training.point_boxes import (
    PointBoxSettings,
    apply_head,
    export,
    load_head,
    main,
    point_losses,
    train,
)
from dimp_ros.training.point_examples import HEADER_BYTES, FeatureFile, PointSampler

ORIGIN = {"backbone": "b1", "images": "i1"}
BOX = (100.0, 60.0, 60.0, 40.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Make a store of one still: a white rectangle on black."""
    folder = tmp_path_factory.mktemp("store")
    image = np.zeros((200, 300, 3), np.uint8)
    x, y, w, h = map(int, BOX)
    image[y : y + h, x : x + w] = 255
    encoded = cv2.imencode(".png", image)[1].tobytes()
    (folder / DATA).write_bytes(encoded)
    video = {"name": "one", "source": "test", "frames": [0], "tracks": [[list(BOX)]]}
    (folder / INDEX).write_text(json.dumps({"summary": "", "offsets": [0, len(encoded)], "videos": [video]}))
    return FrameStore(folder)


def test_edges_enclose_the_object_in_every_window(store):
    sampler = PointSampler(store, seed=1, empty=0.0)
    for _ in range(20):
        example = sampler.example()
        for window, edges in zip(example.windows, example.edges, strict=True):
            left, top, right, bottom = edges * POINT_SIZE
            assert left < POINT_SIZE / 2 < right and top < POINT_SIZE / 2 < bottom, "the point is in the box"
            assert (right - left) / (bottom - top) == pytest.approx(BOX[2] / BOX[3], rel=1e-4)
            grey = window.mean(2)
            xs = np.arange(POINT_SIZE) + 0.5
            inside = ((xs > left + 3) & (xs < right - 3))[None] & ((xs > top + 3) & (xs < bottom - 3))[:, None]
            outside = ((xs < left - 3) | (xs > right + 3))[None] | ((xs < top - 3) | (xs > bottom + 3))[:, None]
            if outside.any():
                assert np.median(grey[inside]) > np.median(grey[outside]) + 60


def test_a_damaged_image_of_a_store_is_named(tmp_path):
    (tmp_path / DATA).write_bytes(bytes(100))
    (tmp_path / INDEX).write_text(json.dumps({"summary": "", "offsets": [0, 100], "videos": []}))
    with pytest.raises(ValueError, match=r"frames\.bin: image 0 is damaged; delete the file"):
        FrameStore(tmp_path).image(0)


def test_points_on_nothing_have_no_edges(store):
    example = PointSampler(store, seed=2, empty=1.0).example()
    assert np.isnan(example.edges).all()
    assert example.windows.shape == (len(POINT_WINDOWS), POINT_SIZE, POINT_SIZE, 3)


def boxes_at(edges, quality=0.0):
    count, hypotheses = edges.shape[:2]
    return PointBoxes(edges, torch.full((count, hypotheses), quality), torch.zeros(count, CELLS * CELLS))


def test_loss_counts_the_better_box_of_a_window():
    right, wrong = torch.tensor([0.3, 0.3, 0.7, 0.6]), torch.tensor([0.1, 0.1, 0.2, 0.2])
    truth = right.repeat(3, 1)

    def loss(*boxes):
        return point_losses(boxes_at(torch.stack(boxes).repeat(3, 1, 1)), truth)["box"]

    both, neither, perfect = loss(right, wrong), loss(wrong, wrong), loss(right, right)
    assert perfect == pytest.approx(0, abs=1e-6) and perfect < both < 0.5 * neither


def test_choice_counts_the_overlap_that_is_lost():
    right, wrong = torch.tensor([0.3, 0.3, 0.7, 0.6]), torch.tensor([0.8, 0.8, 0.9, 0.9])
    boxes = boxes_at(torch.stack((right, wrong)).repeat(3, 1, 1))
    for quality, lost in (([9.0, -9.0], 0.0), ([-9.0, 9.0], 1.0), ([0.0, 0.0], 0.5)):
        boxes = boxes._replace(quality=torch.tensor(quality).repeat(3, 1))
        assert point_losses(boxes, right.repeat(3, 1))["choice"] == pytest.approx(lost, abs=1e-3)


def test_window_without_an_object_teaches_low_quality_only():
    edges = torch.rand(3, 2, 4, requires_grad=True)
    quality = torch.zeros(3, 2, requires_grad=True)
    losses = point_losses(PointBoxes(edges, quality, torch.zeros(3, CELLS * CELLS)), torch.full((3, 4), float("nan")))
    assert losses["box"] == 0 and losses["inside"] == 0 and losses["choice"] == 0
    sum(losses.values()).backward()
    assert edges.grad.abs().max() == 0 and (quality.grad > 0).all()


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    """Compute the features of a few windows and train on them."""
    net, _ = load_model("dimp_lite")
    file = FeatureFile(tmp_path_factory.mktemp("run") / "features.bin", net.feature_extractor.channels, ORIGIN)
    sampler = PointSampler(store, seed=3)
    file.extend(InferenceNet(net), sampler, most=1, minutes=1)
    with file._path.open("ab") as out:
        out.write(b"an interrupted write")
    file.extend(InferenceNet(net), sampler, most=4, minutes=1)
    torch.manual_seed(0)
    head = PointBoxHead(net.feature_extractor.channels)
    before = loss_of(head.eval(), file)
    ticks = itertools.count(step=0.1)  # seconds, so that the number of steps does not depend on the machine
    with patch.object(point_boxes, "time", SimpleNamespace(monotonic=lambda: next(ticks))):
        train(head, file, PointBoxSettings(batch=4, warm_up=1), minutes=0.05)
    return file, head, before


def loss_of(head, file):
    batch = file.batch(range(len(file)))
    with torch.no_grad():
        return float(sum(point_losses(apply_head(head, batch), batch.edges).values()))


def test_features_are_those_of_the_windows_in_order(run):
    file, _, _ = run
    assert len(file) == 4, "the rest of an interrupted write is removed"
    batch = file.batch([3, 1])
    assert batch.features.stride8.shape[2:] == (2 * CELLS, 2 * CELLS)
    assert torch.equal(batch.edges[:3], file.batch([1]).edges)
    widths = (batch.edges[:, 2] - batch.edges[:, 0]).view(2, 3)
    for width in widths[torch.isfinite(widths).all(1)]:
        assert width[2] / width[0] == pytest.approx(POINT_WINDOWS[0] / POINT_WINDOWS[2], rel=1e-3)


@pytest.mark.parametrize("other", [{"backbone": "b2"}, {"images": "i2"}, {"backbone": "b2", "images": "i2"}])
def test_features_of_another_origin_are_refused(run, other):
    file, _, _ = run
    channels = load_model("dimp_lite")[0].feature_extractor.channels
    assert len(FeatureFile(file._path, channels, ORIGIN)) == 4
    with pytest.raises(ValueError, match=rf"{' and '.join(other)} of its features are not .*; delete it"):
        FeatureFile(file._path, channels, ORIGIN | other)


def test_features_without_an_origin_are_refused(run, tmp_path):
    file, _, _ = run
    channels = load_model("dimp_lite")[0].feature_extractor.channels
    (tmp_path / "features.bin").write_bytes(file._path.read_bytes()[HEADER_BYTES:])
    with pytest.raises(ValueError, match="not stated; delete it"):
        FeatureFile(tmp_path / "features.bin", channels, ORIGIN)
    (tmp_path / "features.bin").write_bytes(b"")  # of a run that was killed at once
    assert len(FeatureFile(tmp_path / "features.bin", channels, ORIGIN)) == 0


@pytest.mark.parametrize("content", [b"precious", b'{"mine": 1}\n', b"x" * HEADER_BYTES, b"y" * 2 * HEADER_BYTES])
def test_a_file_that_has_no_features_is_not_replaced(tmp_path, content):
    (tmp_path / "features.bin").write_bytes(content)
    with pytest.raises(ValueError, match="not stated; delete it"):
        FeatureFile(tmp_path / "features.bin", (24, 96), ORIGIN)
    assert (tmp_path / "features.bin").read_bytes() == content


def test_a_run_that_ended_before_its_first_example_goes_on(store, tmp_path):
    net, _ = load_model("dimp_lite")
    for count in (0, 1):
        file = FeatureFile(tmp_path / "features.bin", net.feature_extractor.channels, ORIGIN)
        file.extend(InferenceNet(net), PointSampler(store, seed=1), most=count, minutes=1)
        assert len(file) == count and (tmp_path / "features.bin").stat().st_size >= HEADER_BYTES


def test_added_features_leave_a_hard_link_alone(run, store, tmp_path):
    file, _, _ = run
    net, _ = load_model("dimp_lite")
    (tmp_path / "features.bin").write_bytes(before := file._path.read_bytes())
    os.link(tmp_path / "features.bin", tmp_path / "backup")
    own = FeatureFile(tmp_path / "features.bin", net.feature_extractor.channels, ORIGIN)
    own.extend(InferenceNet(net), PointSampler(store, seed=9), most=5, minutes=1)
    assert len(own) == 5 and (tmp_path / "backup").read_bytes() == before
    assert (tmp_path / "features.bin").read_bytes().startswith(before)


def test_a_head_goes_on_with_its_own_backbone_only(run, tmp_path):
    _, head, _ = run
    channels = load_model("dimp_lite")[0].feature_extractor.channels
    save_torch(tmp_path / "head.pt", {"head": head.state_dict(), "backbone": "b1", "points": 4})
    loaded, points = load_head(tmp_path / "head.pt", channels, "b1")
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in head.state_dict().items())
    assert points == 4
    with pytest.raises(ValueError, match=r"another backbone.* give another --folder"):
        load_head(tmp_path / "head.pt", channels, "b2")
    save_torch(tmp_path / "head.pt", head.state_dict())
    with pytest.raises(ValueError, match=r"another backbone.* give another --folder"):
        load_head(tmp_path / "head.pt", channels, "b1")


def test_no_head_is_exported_where_none_was_trained(tmp_path, capsys):
    run = ["--folder", str(tmp_path / "run"), "--clips", str(tmp_path / "clips"), "--minutes", "0"]
    with pytest.raises(SystemExit):
        main([*run, "--export", str(tmp_path / "out.safetensors")])
    assert "has no head.pt to export" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_training_lowers_the_loss(run):
    file, head, before = run
    assert not head.training
    assert loss_of(head, file) < before


def test_export_is_the_model_with_the_head(run, tmp_path):
    _, head, _ = run
    export(head, "dimp_lite", tmp_path / "with.safetensors", points=12)
    net, info = load_model(str(tmp_path / "with.safetensors"))
    base, _ = load_model("dimp_lite")
    torch.testing.assert_close(net.point_box.mix.weight, head.mix.weight.half().float())
    assert torch.equal(net.bb_regressor.iou_predictor.weight, base.bb_regressor.iou_predictor.weight)
    assert info.details["point_box_points"] == 12
