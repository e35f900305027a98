# SPDX-License-Identifier: Apache-2.0
"""Proposals, labels and losses of training."""

import pytest
import torch

from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import build_model
from dimp_ros.training.losses import Batch, LossWeights, gaussian_labels, hinge_error, training_losses
from dimp_ros.training.sampling import box_iou, make_proposals


def test_proposals_have_the_requested_overlap():
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


def test_without_its_loss_the_overlap_network_is_not_trained():
    torch.manual_seed(0)
    model = build_model("dimp_lite").train()
    losses = training_losses(model, made_batch(model, [[1.0, 1.0]]), LossWeights(iou=0.0), torch.Generator(), 8, 2)
    losses["total"].backward()
    assert losses["iou"].item() == 0
    assert all(p.grad is None for p in model.bb_regressor.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.classifier.parameters())


def test_a_hidden_target_trains_no_box_and_no_positive_score():
    torch.manual_seed(0)
    model = build_model("dimp_lite").eval()
    losses = training_losses(model, made_batch(model, [[0.0, 0.0]]), LossWeights(), torch.Generator(), 8, 2)
    assert losses["iou"].item() == 0
    ignored = training_losses(model, made_batch(model, [[0.2, 0.2]]), LossWeights(), torch.Generator(), 8, 2)
    assert ignored["total"].item() == 0
