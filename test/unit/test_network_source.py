# SPDX-License-Identifier: Apache-2.0
"""Where networks come from: files that are built when a network is asked for, and what tells their weights apart."""

import torch

from dimp_ros.model.checkpoints.network_source import NetworkSource


def test_digest_of_a_file_holds_until_a_weight_is_written():
    source = NetworkSource.find("dimp_lite")
    digest = source.digest()
    assert source.has_box_refiner and source.has_point_box and source.state() is None
    net = source.move("cpu")
    assert net is source.network() and source.state() is None and source.digest() == digest
    net.classifier.filter_optimizer.filter_reg.add_(1)
    assert source.state() is not None and source.digest() != digest


def test_random_weights_follow_the_seed():
    first, again, other = (NetworkSource.random("dimp_lite", seed) for seed in (0, 0, 1))
    assert first.digest() == again.digest() != other.digest()
    assert not first.has_box_refiner
    before = torch.get_rng_state()
    NetworkSource.random("dimp_lite", 3)
    assert torch.equal(torch.get_rng_state(), before)
