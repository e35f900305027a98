# SPDX-License-Identifier: Apache-2.0
"""The box of the object at a point."""

import math

import cv2
import numpy as np
import pytest
import torch

from dimp_ros.apps.simulator.textures import ASSETS, dog_images
from dimp_ros.geometry.box import Box, iou
from dimp_ros.images.closer_window import windows_at
from dimp_ros.images.picture import ArrayPicture
from dimp_ros.model.checkpoints.checkpoint import load_model, save_weights
from dimp_ros.model.checkpoints.weights_file import WeightsInfo
from dimp_ros.model.dimp import build_model
from dimp_ros.model.point_box import CELLS, PointBoxes
from dimp_ros.model.sizes import POINT_WINDOWS
from dimp_ros.tracker import DimpTracker
from dimp_ros.tracker.point_box import CandidateBox, agreed, rank_boxes
from dimp_ros.tracker.torch_backend import TorchBackend

SIZE = (480, 320)


def dog(place: tuple[int, int], height: int) -> tuple[np.ndarray, Box]:
    """Return a photograph-like image of a dog on grass, and the dog's box."""
    grass = cv2.imread(str(ASSETS / "grass.webp"))
    image = cv2.resize(grass, SIZE)
    cutout = dog_images()[0]
    rows, columns = np.nonzero(cutout[..., 3] > 128)
    cutout = cutout[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    width = round(height * cutout.shape[1] / cutout.shape[0])
    cutout = cv2.resize(cutout, (width, height), interpolation=cv2.INTER_AREA)
    alpha = cutout[..., 3:] / 255
    x, y = place
    part = image[y : y + height, x : x + width]
    part[:] = (alpha * cutout[..., :3] + (1 - alpha) * part).astype(np.uint8)
    return image, Box(x, y, width, height)


class HeadAt(torch.nn.Module):
    """A head that always gives the same edges and qualities, one box a window."""

    def __init__(self, edges: list[float], quality: float) -> None:
        super().__init__()
        self.edges, self.quality = edges, quality

    def forward(self, features: object) -> PointBoxes:
        """Return the boxes; the largest window is the surest."""
        count = len(POINT_WINDOWS)
        edges = torch.tensor(self.edges).expand(count, 1, 4)
        quality = self.quality - 9 * torch.arange(count)[:, None]
        return PointBoxes(edges, quality, torch.zeros(count, CELLS * CELLS))


@pytest.fixture(scope="module")
def tracker():
    return DimpTracker("dimp_lite", "cpu")


@pytest.fixture
def with_head(tracker):
    """Return a function that gives the tracker's network another head."""
    own = tracker.net.point_box

    def use(head):
        tracker.net.point_box = head
        return tracker

    yield use
    tracker.net.point_box = own


@pytest.mark.parametrize(("place", "height"), [((60, 60), 60), ((200, 80), 150), ((330, 200), 90)])
def test_shipped_head_finds_a_dog_on_grass(tracker, place, height):
    image, truth = dog(place, height)
    found = tracker.find_box(image, truth.center)
    assert iou(np.array(found), np.array(truth)) > 0.5, f"{found} for {truth}"


def test_point_on_a_plain_wall_is_refused_in_words(tracker):
    plain = np.full((240, 320, 3), 140, np.uint8)
    with pytest.raises(ValueError, match=r"no object stands out at point \(160, 120\).*draw a box"):
        tracker.find_box(plain, (160.0, 120.0))


def test_surest_window_gives_the_box(with_head):
    point = (200.0, 150.0)
    found = with_head(HeadAt([0.4, 0.45, 0.6, 0.55], 3.0)).find_box(np.zeros((320, 480, 3), np.uint8), point)
    side = POINT_WINDOWS[0] * math.sqrt(320 * 480)
    assert found.center == pytest.approx(point)
    assert (found.w, found.h) == pytest.approx((0.2 * side, 0.1 * side), rel=1e-5)


@pytest.mark.parametrize(
    ("edges", "quality", "words"),
    [
        ([0.4, 0.4, 0.6, 0.6], -3.0, "no object stands out"),
        ([math.nan, 0.4, 0.6, 0.6], 3.0, "no object stands out"),
        ([0.4, 0.4, 0.6, 0.6], math.nan, "no object stands out"),
        ([0.5, 0.4, 0.501, 0.6], 3.0, "both sides must be at least"),
        ([0.6, 0.4, 0.4, 0.6], 3.0, "both sides must be at least"),
    ],
)
def test_useless_box_is_refused(with_head, edges, quality, words):
    with pytest.raises(ValueError, match=words):
        with_head(HeadAt(edges, quality)).find_box(np.zeros((320, 480, 3), np.uint8), (200.0, 150.0))


def test_candidates_that_agree_outvote_a_single_one():
    pair = [CandidateBox(Box(10, 10, 20, 20), 0.6), CandidateBox(Box(10, 10, 22, 20), 0.6)]
    found = agreed([CandidateBox(Box(100, 10, 50, 50), 0.65), *pair])
    assert found.box == pytest.approx((10, 10, 21, 20)) and found.overlap == 0.6
    nothing = CandidateBox(Box(5, 5, 0, 0), 0.0)
    assert agreed([nothing, nothing]) == nothing


@pytest.mark.parametrize("point", [(-1.0, 5.0), (481.0, 5.0), (5.0, math.nan), (math.inf, 5.0)])
def test_point_outside_the_image_is_refused(tracker, point):
    with pytest.raises(ValueError, match="outside the 480 x 320 image"):
        tracker.find_box(np.zeros((320, 480, 3), np.uint8), point)


@pytest.mark.parametrize("point", [(0.0, 0.0), (480.0, 320.0), (0.0, 320.0)])
def test_boxes_at_the_corners_lie_in_the_image(tracker, point):
    image, _ = dog((200, 80), 150)
    backend = TorchBackend(tracker.net, tracker.device, "float32")
    for box, overlap in rank_boxes(backend, ArrayPicture(image), point):
        assert box.x >= 0 and box.y >= 0 and box.x + box.w <= 480 and box.y + box.h <= 320
        assert 0 <= overlap <= 1


def test_grey_images_are_taken(tracker):
    image, truth = dog((200, 80), 150)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    ranked = rank_boxes(TorchBackend(tracker.net, tracker.device, "float32"), ArrayPicture(grey), truth.center)
    assert len(ranked) >= len(POINT_WINDOWS)


def test_weights_without_the_head_say_so():
    random = DimpTracker("dimp_lite", "cpu", weights="random")
    with pytest.raises(ValueError, match="cannot find an object at a point"):
        random.find_box(np.zeros((100, 100, 3), np.uint8), (50.0, 50.0))


def test_head_is_stored_with_the_weights(tmp_path):
    net = build_model("dimp_lite").eval()
    net.add_point_box()
    save_weights(tmp_path / "with.safetensors", net, WeightsInfo("dimp_lite"), torch.float16)
    loaded, _ = load_model(str(tmp_path / "with.safetensors"))
    assert loaded.point_box is not None and loaded.box_refiner is None
    torch.testing.assert_close(loaded.point_box.mix.weight, net.point_box.mix.weight.half().float())


def test_windows_are_centred_and_scale_with_the_image():
    windows = windows_at((10.0, 20.0), (640, 160), (1.0, 0.5), 224)
    assert [(w.w, w.h, w.size) for w in windows] == [(320, 320, 224), (160, 160, 224)]
    assert all((w.x + w.w / 2, w.y + w.h / 2) == (10, 20) for w in windows)
